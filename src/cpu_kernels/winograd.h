// 3x3 convolution (stride 1, padding 1) of float features with channels last, by Winograd's minimal filtering F(4x4, 3x3)
// (arXiv:1509.09308).
//
// A 4x4 tile of the output depends on a 6x6 tile of the input. Both are transformed to a domain of 36 "frequencies", where the
// convolution is an elementwise product. The sum over channels then becomes 36 independent matrix products, with 4 times
// fewer multiplications than direct convolution:
//   Y = A^T [ sum over channels (G w G^T) * (B^T x B) ] A
// Two choices determine the accuracy. The interpolation points 0, +-5/8, +-3/2, infinity lose far fewer bits than the usual
// 0, +-1, +-2, and float32 still represents their coefficients exactly. The sum over channels is split into short partial
// sums, which removes most of the rounding error of a long float32 sum.
#pragma once

#include <cstdint>
#include <memory>

#include "crew.h"
#include "onednn.h"
#include "vectors.h"

namespace winograd {

// Whether Winograd's algorithm is faster than direct convolution. With few tiles or channels the transforms cost too much.
bool pays(const onednn::ConvolutionShape& shape);

// y (B, H, W, K) = x (B, H, W, C) * weight (K, C, 3, 3) + bias (K) + addend (B, H, W, K). With `relu`, negative results become 0.
// bias and addend may be nullptr.
void convolve(Crew& crew, const onednn::ConvolutionShape& shape, const float* x, const float* weight, const float* bias,
              const float* addend, bool relu, float* y);
// The gradients of x and of the weight, from the gradient of y.
void input_gradient(Crew& crew, const onednn::ConvolutionShape& shape, const float* dy, const float* weight, float* dx);
void weight_gradient(Crew& crew, const onednn::ConvolutionShape& shape, const float* x, const float* dy, float* dweight);

// Vector width, and rows and columns (in vectors) of the register tile. kRows * kCols accumulators and their operands must fit in
// the 32 (AVX-512, NEON) or 16 registers of the machine.
#if defined(__AVX512F__)
constexpr int kVecBytes = 64, kRows = 8;
#elif defined(__AVX__)
constexpr int kVecBytes = 32, kRows = 4;
#elif defined(__aarch64__)
constexpr int kVecBytes = 16, kRows = 8;
#else
constexpr int kVecBytes = 16, kRows = 4;
#endif
constexpr int kLanes = kVecBytes / sizeof(float);
typedef float Vec __attribute__((vector_size(kVecBytes)));
constexpr int kCols = 3;

constexpr int kTile = 4, kSpan = kTile + 2, kFreqs = kSpan * kSpan;
constexpr int64_t kMaxTiles = 192;         // tiles per block ...
constexpr int64_t kMaxScratch = 16 << 20;  // ... and the limit in bytes for its transforms

constexpr float kA = 5.f / 8, kB = 3.f / 2, kA2 = kA * kA, kB2 = kB * kB;
constexpr float kScale0 = 1 / (kA2 * kB2), kScaleA = 1 / (2 * kA2 * (kA2 - kB2)), kScaleB = 1 / (2 * kB2 * (kB2 - kA2));

// One-dimensional transforms. The points +p and -p share the terms that are even or odd in the point.

inline void input_transform(const Vec d[kSpan], Vec v[kSpan]) {
  const Vec even_a = d[4] - kB2 * d[2], odd_a = kA * (d[3] - kB2 * d[1]);
  const Vec even_b = d[4] - kA2 * d[2], odd_b = kB * (d[3] - kA2 * d[1]);
  v[0] = (kA2 * kB2) * d[0] - (kA2 + kB2) * d[2] + d[4];
  v[1] = even_a + odd_a;
  v[2] = even_a - odd_a;
  v[3] = even_b + odd_b;
  v[4] = even_b - odd_b;
  v[5] = (kA2 * kB2) * d[1] - (kA2 + kB2) * d[3] + d[5];
}

inline void output_transform(const Vec m[kSpan], Vec y[kTile]) {
  const Vec sum_a = m[1] + m[2], dif_a = m[1] - m[2], sum_b = m[3] + m[4], dif_b = m[3] - m[4];
  y[0] = m[0] + sum_a + sum_b;
  y[1] = kA * dif_a + kB * dif_b;
  y[2] = kA2 * sum_a + kB2 * sum_b;
  y[3] = (kA * kA2) * dif_a + (kB * kB2) * dif_b + m[5];
}

inline void weight_transform(const Vec g[3], Vec u[kSpan]) {
  const Vec even_a = g[0] + kA2 * g[2], odd_a = kA * g[1], even_b = g[0] + kB2 * g[2], odd_b = kB * g[1];
  u[0] = g[0] * kScale0;
  u[1] = (even_a + odd_a) * kScaleA;
  u[2] = (even_a - odd_a) * kScaleA;
  u[3] = (even_b + odd_b) * kScaleB;
  u[4] = (even_b - odd_b) * kScaleB;
  u[5] = g[2];
}

// Transforms for the gradient of the weights.

inline void gradient_transform(const Vec y[kTile], Vec m[kSpan]) {
  const Vec even_a = y[0] + kA2 * y[2], odd_a = kA * (y[1] + kA2 * y[3]);
  const Vec even_b = y[0] + kB2 * y[2], odd_b = kB * (y[1] + kB2 * y[3]);
  m[0] = y[0];
  m[1] = even_a + odd_a;
  m[2] = even_a - odd_a;
  m[3] = even_b + odd_b;
  m[4] = even_b - odd_b;
  m[5] = y[3];
}

inline void weight_gradient_transform(const Vec u[kSpan], Vec g[3]) {
  const Vec sum_a = (u[1] + u[2]) * kScaleA, dif_a = (u[1] - u[2]) * kScaleA;
  const Vec sum_b = (u[3] + u[4]) * kScaleB, dif_b = (u[3] - u[4]) * kScaleB;
  g[0] = u[0] * kScale0 + sum_a + sum_b;
  g[1] = kA * dif_a + kB * dif_b;
  g[2] = kA2 * sum_a + kB2 * sum_b + u[5];
}

// Floats between the rows of a matrix of `width` columns: whole vectors, and an odd number of cache lines, so that a column of
// the matrix is spread over all sets of the cache.
inline int64_t padded(int64_t width) { return (ceil_div(width, 16) | 1) * 16; }

// One matrix per frequency, in one uninitialised allocation. Matrices are one cache line more than their size apart, because
// writing to 36 addresses that are a power of two apart would use only one set of the cache.
class Spectrum {
 public:
  explicit Spectrum(int64_t size)
      : stride_(ceil_div(size, 16) * 16 + 16), memory_(new float[kFreqs * stride_ + 16]) {
    const auto address = reinterpret_cast<uintptr_t>(memory_.get());
    data_ = memory_.get() + (64 - address % 64) % 64 / sizeof(float);
  }
  float* operator[](int64_t freq) const { return data_ + freq * stride_; }

 private:
  int64_t stride_;
  std::unique_ptr<float[]> memory_;
  float* data_;
};

}  // namespace winograd
