// The gradient of the weights multiplies the transforms of input and output gradient and sums over the tiles, so here
// the vectors run over channels: transforms of kLanes channels of one tile, element [tile][channel].

#include <algorithm>
#include <cstdint>

#include "entry_point.h"
#include "every_second.h"
#include "matrix_product.h"
#include "team.h"
#include "vectors.h"
#include "winograd.h"

namespace {

// Applies a one-dimensional transform from n to kSpan values to the columns and the rows of an n x n tile, whose rows are
// `pitch` vectors apart, and stores the frequencies at `offset`.
template <int n, class Transform>
void transform_tile(const Vec* tile, int64_t pitch, const Transform& transform, const Spectrum& out, int64_t offset) {
  Vec half[n][kSpan];
  for (int i = 0; i < n; ++i) transform(tile + i * pitch, half[i]);
  for (int j = 0; j < kSpan; ++j) {
    Vec column[n], full[kSpan];
    for (int i = 0; i < n; ++i) column[i] = half[i][j];
    transform(column, full);
    for (int i = 0; i < kSpan; ++i) store(out[i * kSpan + j] + offset, full[i]);
  }
}

// A window of up to kLanes channels with the channels side by side, zero outside the image.
void gather_channels(const float* image, int64_t channels, int64_t height, int64_t width, int64_t y, int64_t x,
                     int64_t window_height, int64_t window_width, Vec* window) {
  std::fill_n(window, window_height * window_width, Vec{});
  const int64_t begin = std::max<int64_t>(0, -x), end = std::min(window_width, width - x);
  for (int64_t i = std::max<int64_t>(0, -y); i < std::min(window_height, height - y); ++i) {
    for (int64_t lane = 0; lane < channels; ++lane) {
      const float* row = image + (lane * height + y + i) * width + x;
      for (int64_t j = begin; j < end; ++j) window[i * window_width + j][lane] = row[j];
    }
  }
}

constexpr int64_t kPiece = 16;  // tiles that are gathered at a time

// Transforms of kLanes channels from `channel` on of the tiles `begin` .. `end` - 1, counted through rows and images.
// `size` is kSpan for the input, whose tiles overlap by 2 and start one pixel early, or kTile for the output gradient.
template <int size, class Transform>
void transform_channels(const float* images, int64_t all_channels, int64_t channel, int64_t height, int64_t width,
                        int64_t begin, int64_t end, const Transform& transform, const Spectrum& out, int64_t offset,
                        int64_t stride) {
  const int64_t rows = ceil_div(height, kTile), cols = ceil_div(width, kTile);
  constexpr int64_t kMargin = (size - kTile) / 2;
  Vec window[size * (kPiece * kTile + 2 * kMargin)];
  for (int64_t tile = begin; tile < end;) {
    const int64_t count = std::min(end - tile, cols - tile % cols), row = tile / cols;
    const int64_t pitch = count * kTile + 2 * kMargin;
    const float* image = images + (row / rows * all_channels + channel) * height * width;
    gather_channels(image, std::min<int64_t>(kLanes, all_channels - channel), height, width,
                    row % rows * kTile - kMargin, tile % cols * kTile - kMargin, size, pitch, window);
    for (int64_t t = 0; t < count; ++t, offset += stride) {
      transform_tile<size>(window + t * kTile, pitch, transform, out, offset);
    }
    tile += count;
  }
}

// Up to kLanes input channels of the gradient of one output channel's weights.
void transform_weight_gradient(const Spectrum& u, int64_t offset, int64_t channels, float* dw) {
  Vec half[3][kSpan];
  for (int j = 0; j < kSpan; ++j) {
    Vec column[kSpan], g[3];
    for (int i = 0; i < kSpan; ++i) column[i] = load<Vec>(u[i * kSpan + j] + offset);
    weight_gradient_transform(column, g);
    for (int i = 0; i < 3; ++i) half[i][j] = g[i];
  }
  for (int i = 0; i < 3; ++i) {
    Vec g[3];
    weight_gradient_transform(half[i], g);
    for (int j = 0; j < 3; ++j) {
      for (int64_t c = 0; c < channels; ++c) dw[c * 9 + i * 3 + j] = g[j][c];
    }
  }
}

}  // namespace

// x (B, C, H, W), the gradient of Convolution's output -> the gradient of the weight (K, C, 3, 3).
extern "C" int ConvolutionWeightGrad(int, void** tensors, int*, int64_t** shapes, const char**, void*, void*) {
  return status_of(__func__, [&] {
    const int64_t B = shapes[0][0], C = shapes[0][1], K = shapes[1][1], H = shapes[0][2], W = shapes[0][3];
    const EverySecond grid(B * K, H, W, shapes[1]);
    const float *x = floats(tensors[0]), *dy = grid.spread(floats(tensors[1]));
    float* dw = floats(tensors[2]);
    const int64_t tiles = B * ceil_div(H, kTile) * ceil_div(W, kTile);
    const int64_t x_stride = padded(C), x_groups = ceil_div(C, kLanes);
    // Parts of the output channels whose product stays in cache, whole vectors each.
    const int64_t groups = ceil_div(K, kLanes), group_bytes = kFreqs * kLanes * x_stride * sizeof(float);
    const int64_t parts = ceil_div(groups, std::max<int64_t>(1, kMaxWeights / group_bytes));
    const int64_t part_groups = ceil_div(groups, parts), y_stride = padded(part_groups * kLanes);
    const int64_t fitting = kMaxScratch / (kFreqs * (x_stride + y_stride) * static_cast<int64_t>(sizeof(float)));
    const int64_t block = std::clamp<int64_t>(fitting / kPiece * kPiece, kPiece, kMaxTiles);
    const Spectrum v(block * x_stride), d(block * y_stride), u(part_groups * kLanes * x_stride);

    Team::run(usable_processors(), [&](Team& team, int) {
      for (int64_t first = 0; first < K; first += part_groups * kLanes) {
        const int64_t channels = std::min(part_groups * kLanes, K - first), y_groups = ceil_div(channels, kLanes);
        team.share(kFreqs, [&](int64_t f) { std::fill_n(u[f], channels * x_stride, 0.f); });
        for (int64_t begin = 0; begin < tiles; begin += block) {
          const int64_t count = std::min(block, tiles - begin);
          team.share(ceil_div(count, kPiece) * (x_groups + y_groups), [&](int64_t item) {
            const int64_t group = item % (x_groups + y_groups), at = item / (x_groups + y_groups) * kPiece;
            const int64_t from = begin + at, to = std::min(from + kPiece, begin + count);
            if (group < x_groups) {
              transform_channels<kSpan>(x, C, group * kLanes, H, W, from, to, input_transform, v,
                                        at * x_stride + group * kLanes, x_stride);
            } else {
              const int64_t channel = (group - x_groups) * kLanes;
              transform_channels<kTile>(dy, K, first + channel, H, W, from, to, gradient_transform, d,
                                        at * y_stride + channel, y_stride);
            }
          });
          team.share(kFreqs * y_groups, [&](int64_t item) {
            const int64_t f = item / y_groups, begin_row = item % y_groups * kLanes;
            for (int64_t row = begin_row; row < std::min(begin_row + kLanes, channels); row += kRows) {
              multiply_add({d[f] + row, y_stride}, {v[f], x_stride}, count, std::min<int64_t>(kRows, channels - row), C,
                           {u[f] + row * x_stride, x_stride});
            }
          });
        }
        team.share(channels, [&](int64_t k) {
          for (int64_t c = 0; c < C; c += kLanes) {
            transform_weight_gradient(u, k * x_stride + c, std::min<int64_t>(kLanes, C - c), dw + ((first + k) * C + c) * 9);
          }
        });
      }
    });
  });
}
