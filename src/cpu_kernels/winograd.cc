#include "winograd.h"

#include <algorithm>
#include <vector>

namespace winograd {
namespace {

// The tiles of a batch of features (B, H, W, channels), numbered by image, row and column.
struct Tiles {
  int64_t height, width, rows, cols, count;

  explicit Tiles(const onednn::ConvolutionShape& s)
      : height(s.h), width(s.w), rows(ceil_div(s.h, kTile)), cols(ceil_div(s.w, kTile)), count(s.b * rows * cols) {}

  // Image, first row and first column of a tile.
  int64_t image(int64_t tile) const { return tile / cols / rows; }
  int64_t y(int64_t tile) const { return tile / cols % rows * kTile; }
  int64_t x(int64_t tile) const { return tile % cols * kTile; }
  // Tiles per block, if their transforms have `channels` channels in total.
  int64_t block(int64_t channels) const {
    const int64_t fitting = kMaxScratch / (kFreqs * channels * static_cast<int64_t>(sizeof(float)));
    return std::min(count, std::clamp<int64_t>(fitting / kRows * kRows, kRows, kMaxTiles));
  }
};

// Loads up to kLanes floats.
inline Vec load_some(const float* p, int64_t lanes) {
  if (lanes >= kLanes) return load<Vec>(p);
  Vec v = {};
  for (int64_t i = 0; i < lanes; ++i) v[i] = p[i];
  return v;
}
inline void store_some(float* p, const Vec& v, int64_t lanes) {
  if (lanes >= kLanes) return store(p, v);
  for (int64_t i = 0; i < lanes; ++i) p[i] = v[i];
}

// Transforms windows of size x size, one per tile, to rows of `out`. Input windows include a margin of one pixel.
template <int size, class Transform>
void transform_tiles(Crew& crew, const Tiles& tiles, int64_t channels, const float* features, int64_t begin, int64_t count,
                     const Transform& transform, const Spectrum& out, int64_t stride) {
  constexpr int64_t kMargin = (size - kTile) / 2, kPiece = 4;
  crew.share_range(count, kPiece, [&](int64_t from, int64_t to) {
    for (int64_t tile = from; tile < to; ++tile) {
      const int64_t y = tiles.y(begin + tile) - kMargin, x = tiles.x(begin + tile) - kMargin;
      const float* image = features + tiles.image(begin + tile) * tiles.height * tiles.width * channels;
      for (int64_t c = 0; c < channels; c += kLanes) {
        Vec half[size][kSpan];
        for (int i = 0; i < size; ++i) {
          Vec line[size] = {};
          if (y + i >= 0 && y + i < tiles.height) {
            const float* row = image + (y + i) * tiles.width * channels + c;
            for (int64_t j = std::max<int64_t>(0, -x); j < std::min<int64_t>(size, tiles.width - x); ++j) {
              line[j] = load_some(row + (x + j) * channels, channels - c);
            }
          }
          transform(line, half[i]);
        }
        for (int j = 0; j < kSpan; ++j) {
          Vec column[size], full[kSpan];
          for (int i = 0; i < size; ++i) column[i] = half[i][j];
          transform(column, full);
          for (int i = 0; i < kSpan; ++i) store(out[i * kSpan + j] + tile * stride + c, full[i]);
        }
      }
    }
  });
}

// Transforms the weights of `out` filters with `in` channels to a matrix (in, out) per frequency. Element (k, c, tap) is at
// weight[k * out_stride + c * in_stride + tap]. With `rotate`, the order of the taps is reversed.
void transform_weights(Crew& crew, const float* weight, int64_t in, int64_t out, int64_t in_stride, int64_t out_stride,
                       bool rotate, const Spectrum& u, int64_t stride) {
  const int64_t groups = ceil_div(out, kLanes);
  crew.share_range(groups * in, 64, [&](int64_t from, int64_t to) {
    for (int64_t item = from; item < to; ++item) {
      const int64_t c = item % in, k = item / in * kLanes;
      Vec taps[3][3] = {}, half[3][kSpan];
      for (int64_t lane = 0; lane < std::min<int64_t>(kLanes, out - k); ++lane) {
        const float* filter = weight + (k + lane) * out_stride + c * in_stride;
        for (int i = 0; i < 9; ++i) taps[i / 3][i % 3][lane] = filter[rotate ? 8 - i : i];
      }
      for (int i = 0; i < 3; ++i) weight_transform(taps[i], half[i]);
      for (int j = 0; j < kSpan; ++j) {
        const Vec column[3] = {half[0][j], half[1][j], half[2][j]};
        Vec full[kSpan];
        weight_transform(column, full);
        for (int i = 0; i < kSpan; ++i) store(u[i * kSpan + j] + c * stride + k, full[i]);
      }
    }
  });
}

// A matrix. There are `stride` floats from one row to the next.
template <class T>
struct Matrix {
  T* data;
  int64_t stride;
  T* operator()(int64_t row, int64_t column) const { return data + row * stride + column; }
};

constexpr int64_t kChunk = 16;  // terms per partial sum

// out[r][n] = sum over i < depth of left[r][i] * right[i][n], for `rows` <= kRows rows and `cols` vectors of columns. With
// `turned`, left is transposed. With `add`, the result is added to out.
template <int cols, bool turned>
void multiply_panel(Matrix<const float> left, Matrix<const float> right, int64_t depth, int64_t rows, bool add,
                    Matrix<float> out) {
  for (int64_t begin = 0; begin < depth; begin += kChunk) {
    Vec sum[kRows][cols] = {};
    for (int64_t i = begin; i < std::min(begin + kChunk, depth); ++i) {
      Vec column[cols];
      for (int j = 0; j < cols; ++j) column[j] = load<Vec>(right(i, j * kLanes));
#pragma GCC unroll 8
      for (int r = 0; r < kRows; ++r) {
        const float factor = turned ? *left(i, r) : *left(r, i);
        for (int j = 0; j < cols; ++j) sum[r][j] += factor * column[j];
      }
    }
#pragma GCC unroll 8
    for (int r = 0; r < kRows; ++r) {
      if (r >= rows) break;
      for (int j = 0; j < cols; ++j) {
        float* target = out(r, j * kLanes);
        store(target, begin == 0 && !add ? sum[r][j] : load<Vec>(target) + sum[r][j]);
      }
    }
  }
}

template <bool turned>
void multiply(Matrix<const float> left, Matrix<const float> right, int64_t depth, int64_t rows, int64_t columns, bool add,
              Matrix<float> out) {
  for (int64_t n = 0; n < columns; n += kCols * kLanes) {
    const Matrix<const float> part{right(0, n), right.stride};
    const Matrix<float> target{out(0, n), out.stride};
    switch (std::min<int64_t>(kCols, ceil_div(columns - n, kLanes))) {
      case 1: multiply_panel<1, turned>(left, part, depth, rows, add, target); break;
      case 2: multiply_panel<2, turned>(left, part, depth, rows, add, target); break;
      default: multiply_panel<kCols, turned>(left, part, depth, rows, add, target);
    }
  }
}

// Operations after the product.
struct Tail {
  const float *bias, *addend;
  bool relu;
};

// Transforms the products of tiles `begin` .. `begin` + count - 1 back to features (B, H, W, channels).
void transform_output(Crew& crew, const Tiles& tiles, int64_t channels, const Spectrum& m, int64_t stride, int64_t begin,
                      int64_t count, const Tail& tail, float* features) {
  crew.share_range(count, 4, [&](int64_t from, int64_t to) {
    for (int64_t tile = from; tile < to; ++tile) {
      const int64_t top = tiles.y(begin + tile), left = tiles.x(begin + tile);
      for (int64_t k = 0; k < channels; k += kLanes) {
        Vec half[kTile][kSpan];
        for (int j = 0; j < kSpan; ++j) {
          Vec column[kSpan], y[kTile];
          for (int i = 0; i < kSpan; ++i) column[i] = load<Vec>(m[i * kSpan + j] + tile * stride + k);
          output_transform(column, y);
          for (int i = 0; i < kTile; ++i) half[i][j] = y[i];
        }
        const Vec bias = tail.bias ? load_some(tail.bias + k, channels - k) : Vec{};
        for (int64_t i = 0; i < std::min<int64_t>(kTile, tiles.height - top); ++i) {
          Vec y[kTile];
          output_transform(half[i], y);
          for (int64_t j = 0; j < std::min<int64_t>(kTile, tiles.width - left); ++j) {
            const int64_t row = tiles.image(begin + tile) * tiles.height + top + i;
            const int64_t at = (row * tiles.width + left + j) * channels + k;
            Vec value = y[j] + bias;
            if (tail.addend) value += load_some(tail.addend + at, channels - k);
            if (tail.relu) value = value <= 0 ? Vec{} : value;  // NaN stays NaN
            store_some(features + at, value, channels - k);
          }
        }
      }
    }
  });
}

void run(Crew& crew, const Tiles& tiles, int64_t in, int64_t out, const float* x, const float* weight, int64_t in_stride,
         int64_t out_stride, bool rotate, const Tail& tail, float* y) {
  const int64_t block = tiles.block(in + out), in_row = padded(in), out_row = padded(out);
  // The register tile reads whole panels of rows.
  const int64_t room = ceil_div(block, kRows) * kRows;
  const Spectrum u(in * out_row), v(room * in_row), m(block * out_row);
  transform_weights(crew, weight, in, out, in_stride, out_stride, rotate, u, out_row);
  constexpr int64_t kGroup = 48;  // tiles per work item
  for (int64_t begin = 0; begin < tiles.count; begin += block) {
    const int64_t count = std::min(block, tiles.count - begin), groups = ceil_div(count, kGroup);
    transform_tiles<kSpan>(crew, tiles, in, x, begin, count, input_transform, v, in_row);
    crew.share(kFreqs * groups, [&](int64_t item) {
      const int64_t f = item / groups, first = item % groups * kGroup;
      for (int64_t t = first; t < std::min(first + kGroup, count); t += kRows) {
        multiply<false>({v[f] + t * in_row, in_row}, {u[f], out_row}, in, std::min<int64_t>(kRows, count - t), out, false,
                        {m[f] + t * out_row, out_row});
      }
    });
    transform_output(crew, tiles, out, m, out_row, begin, count, tail, y);
  }
}

}  // namespace

bool pays(const onednn::ConvolutionShape& s) {
  const bool fits = s.kernel_h == 3 && s.kernel_w == 3 && s.stride == 1 && s.dilation == 1 && s.groups == 1 && s.pad_top == 1 &&
                    s.pad_left == 1 && s.out_h == s.h && s.out_w == s.w;
  const int64_t tiles = Tiles(s).count;
  return fits && tiles >= 200 && (s.c * s.k >= 128 * 128 || tiles >= 2000);
}

void convolve(Crew& crew, const onednn::ConvolutionShape& s, const float* x, const float* weight, const float* bias,
              const float* addend, bool relu, float* y) {
  run(crew, Tiles(s), s.c, s.k, x, weight, 9, s.c * 9, false, {bias, addend, relu}, y);
}

void input_gradient(Crew& crew, const onednn::ConvolutionShape& s, const float* dy, const float* weight, float* dx) {
  run(crew, Tiles(s), s.k, s.c, dy, weight, s.c * 9, 9, true, {nullptr, nullptr, false}, dx);
}

void weight_gradient(Crew& crew, const onednn::ConvolutionShape& s, const float* x, const float* dy, float* dweight) {
  const Tiles tiles(s);
  const int64_t block = tiles.block(s.c + s.k), in_row = padded(s.c), out_row = padded(s.k);
  const Spectrum v(block * in_row), d(block * out_row), u(s.k * in_row);
  crew.share(kFreqs, [&](int64_t f) { std::fill_n(u[f], s.k * in_row, 0.f); });
  constexpr int64_t kGroup = 64;  // output channels per work item
  const int64_t groups = ceil_div(s.k, kGroup);
  for (int64_t begin = 0; begin < tiles.count; begin += block) {
    const int64_t count = std::min(block, tiles.count - begin);
    transform_tiles<kSpan>(crew, tiles, s.c, x, begin, count, input_transform, v, in_row);
    transform_tiles<kTile>(crew, tiles, s.k, dy, begin, count, gradient_transform, d, out_row);
    crew.share(kFreqs * groups, [&](int64_t item) {
      const int64_t f = item / groups, first = item % groups * kGroup;
      for (int64_t k = first; k < std::min(first + kGroup, s.k); k += kRows) {
        multiply<true>({d[f] + k, out_row}, {v[f], in_row}, count, std::min<int64_t>(kRows, s.k - k), s.c, true,
                       {u[f] + k * in_row, in_row});
      }
    });
  }
  crew.share(s.k, [&](int64_t k) {
    for (int64_t c = 0; c < s.c; c += kLanes) {
      Vec half[3][kSpan];
      for (int j = 0; j < kSpan; ++j) {
        Vec column[kSpan], g[3];
        for (int i = 0; i < kSpan; ++i) column[i] = load<Vec>(u[i * kSpan + j] + k * in_row + c);
        weight_gradient_transform(column, g);
        for (int i = 0; i < 3; ++i) half[i][j] = g[i];
      }
      for (int i = 0; i < 3; ++i) {
        Vec g[3];
        weight_gradient_transform(half[i], g);
        for (int j = 0; j < 3; ++j) {
          for (int64_t lane = 0; lane < std::min<int64_t>(kLanes, s.c - c); ++lane) {
            dweight[(k * s.c + c + lane) * 9 + i * 3 + j] = g[j][lane];
          }
        }
      }
    }
  });
}

}  // namespace winograd
