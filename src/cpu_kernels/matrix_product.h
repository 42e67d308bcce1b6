// The matrix products of the frequencies.
#pragma once

#include <algorithm>
#include <cstdint>

#include "vectors.h"
#include "winograd.h"

namespace {

constexpr int kCols = 3;    // vectors in a row of the register tile
constexpr int kChunk = 16;  // terms of a partial sum

// A matrix with `stride` floats between its rows.
template <class T>
struct Matrix {
  T* data;
  int64_t stride;
  T* operator()(int64_t row, int64_t column) const { return data + row * stride + column; }
};

// m[r][n] = sum over c < depth of u[c][r] * v[c][n] for `rows` <= kRows rows and `cols` vectors of columns.
template <int cols>
void multiply_panel(Matrix<const float> u, Matrix<const float> v, int64_t depth, int64_t rows, Matrix<float> m) {
  for (int64_t begin = 0; begin < depth; begin += kChunk) {
    Vec sum[kRows][cols] = {};
    for (int64_t c = begin; c < std::min<int64_t>(begin + kChunk, depth); ++c) {
      Vec column[cols];
      for (int j = 0; j < cols; ++j) column[j] = load<Vec>(v(c, j * kLanes));
      const float* row = u(c, 0);
#pragma GCC unroll 8
      for (int r = 0; r < kRows; ++r) {
        for (int j = 0; j < cols; ++j) sum[r][j] += row[r] * column[j];
      }
    }
#pragma GCC unroll 8
    for (int r = 0; r < kRows; ++r) {
      if (r >= rows) break;
      for (int j = 0; j < cols; ++j) {
        float* out = m(r, j * kLanes);
        store(out, begin == 0 ? sum[r][j] : load<Vec>(out) + sum[r][j]);
      }
    }
  }
}

inline void multiply(Matrix<const float> u, Matrix<const float> v, int64_t depth, int64_t rows, int64_t width,
                     Matrix<float> m) {
  for (int64_t n = 0; n < width; n += kCols * kLanes) {
    const Matrix<const float> columns{v(0, n), v.stride};
    const Matrix<float> out{m(0, n), m.stride};
    switch (std::min<int64_t>(kCols, ceil_div(width - n, kLanes))) {
      case 1: multiply_panel<1>(u, columns, depth, rows, out); break;
      case 2: multiply_panel<2>(u, columns, depth, rows, out); break;
      default: multiply_panel<kCols>(u, columns, depth, rows, out);
    }
  }
}

// The same added to m, by way of a sum of its own: long sums lose accuracy.
inline void multiply_add(Matrix<const float> u, Matrix<const float> v, int64_t depth, int64_t rows, int64_t width,
                         Matrix<float> m) {
  for (int64_t n = 0; n < width; n += kCols * kLanes) {
    alignas(64) float sum[kRows * kCols * kLanes];
    const int64_t columns = std::min<int64_t>(kCols * kLanes, ceil_div(width - n, kLanes) * kLanes);
    multiply(u, {v(0, n), v.stride}, depth, rows, columns, {sum, kCols * kLanes});
    for (int64_t r = 0; r < rows; ++r) {
      for (int64_t i = 0; i < columns; i += kLanes) {
        store(m(r, n + i), load<Vec>(m(r, n + i)) + load<Vec>(sum + r * kCols * kLanes + i));
      }
    }
  }
}

}  // namespace
