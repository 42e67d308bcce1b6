// The convolution itself and the gradient of its input, which is a convolution with the weights turned around.

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <vector>

#include "entry_point.h"
#include "every_second.h"
#include "matrix_product.h"
#include "team.h"
#include "vectors.h"
#include "winograd.h"

namespace {

constexpr int64_t kMaxSegment = 96;   // tiles of one tile row that are transformed together
constexpr int64_t kMinSeparate = 48;  // tiles that a block must have for a thread to process it alone

// How the tiles of a batch are cut into segments (pieces of a tile row) and blocks (segments processed together). Large
// inputs give every thread blocks of its own, as threads that never wait for each other suffer least on a busy machine;
// for small ones all threads work on the same block, since narrow matrix products are slow.
struct Tiling {
  int64_t height, width, rows, cols, segments_per_row, segment, segments, block, blocks;
  bool separate;

  Tiling(int64_t batch, int64_t h, int64_t w, int64_t channels, int threads) : height(h), width(w) {
    rows = ceil_div(h, kTile);
    cols = ceil_div(w, kTile);
    const int64_t fitting = kMaxScratch / (kFreqs * channels * static_cast<int64_t>(sizeof(float)));
    separate = threads > 1;
    if (separate) cut(batch, fitting / threads, threads);
    if (!separate || block * segment < kMinSeparate) {
      separate = false;
      cut(batch, fitting, 1);
    }
  }

  void cut(int64_t batch, int64_t fitting, int64_t multiple) {
    const int64_t max_tiles = std::clamp<int64_t>(fitting / kLanes * kLanes, kLanes, kMaxTiles);
    segments_per_row = ceil_div(cols, std::min(kMaxSegment, max_tiles));
    segment = ceil_div(cols, segments_per_row);
    segments = batch * rows * segments_per_row;
    blocks = ceil_div(ceil_div(segments, max_tiles / segment), multiple) * multiple;
    block = ceil_div(segments, blocks);
    blocks = ceil_div(segments, block);
  }

  // Floats between two rows of a transformed matrix, with room for a whole vector to be stored at the last tile.
  int64_t row_stride() const { return padded(block * segment + kLanes); }
};

// A segment's place: image, first row and column of its output, number of its tiles.
struct Segment {
  int64_t image, y, x, tiles;

  Segment(const Tiling& t, int64_t index) {
    const int64_t part = index % t.segments_per_row, row = index / t.segments_per_row;
    image = row / t.rows;
    y = row % t.rows * kTile;
    x = part * t.segment * kTile;
    tiles = std::min(t.segment, t.cols - part * t.segment);
  }
};

// `rows` <= kRows filters, one output channel each, to element [c][r] of every frequency: the order in which the matrix
// product reads them.
void transform_weights(const float* w, int64_t in_stride, int64_t out_stride, bool rotate, int64_t rows,
                       int64_t channels, const Spectrum& u, int64_t offset) {
  for (int64_t c = 0; c < channels; ++c) {
    Filters taps[3][3] = {}, half[3][kSpan];
    for (int64_t r = 0; r < rows; ++r) {
      const float* g = w + r * out_stride + c * in_stride;
      for (int i = 0; i < 9; ++i) taps[i / 3][i % 3][r] = g[rotate ? 8 - i : i];
    }
    for (int i = 0; i < 3; ++i) weight_transform(taps[i], half[i]);
    for (int j = 0; j < kSpan; ++j) {
      const Filters column[3] = {half[0][j], half[1][j], half[2][j]};
      Filters full[kSpan];
      weight_transform(column, full);
      for (int i = 0; i < kSpan; ++i) std::memcpy(u[i * kSpan + j] + offset + c * kRows, &full[i], sizeof(Filters));
    }
  }
}

// Row y of an image from column x - 1 on, the columns sorted by their remainder modulo kTile so that the vectors of the
// transform run over neighbouring tiles: phase[q][t] = row[x - 1 + 4 t + q], zero outside the image.
using Phases = float[kTile][kMaxSegment + 2 * kLanes];

void split_phases(const float* image, const Tiling& t, int64_t y, int64_t x, int64_t tiles, Phases phase) {
  if (y < 0 || y >= t.height) {
    for (int q = 0; q < kTile; ++q) std::fill_n(phase[q], tiles + 1, 0.f);
    return;
  }
  const float* row = image + y * t.width;
  const auto edge = [&](int64_t i) {
    for (int q = 0; q < kTile; ++q) {
      const int64_t column = x - 1 + kTile * i + q;
      phase[q][i] = column >= 0 && column < t.width ? row[column] : 0.f;
    }
  };
  const int64_t begin = x == 0 ? 1 : 0;
  const int64_t end = std::clamp<int64_t>((t.width - x + 1) / kTile, begin, tiles + 1);
  for (int64_t i = 0; i < begin; ++i) edge(i);
  float *__restrict p0 = phase[0], *__restrict p1 = phase[1], *__restrict p2 = phase[2], *__restrict p3 = phase[3];
  const float* __restrict inner = row + x - 1;
  for (int64_t i = begin; i < end; ++i) {
    p0[i] = inner[kTile * i];
    p1[i] = inner[kTile * i + 1];
    p2[i] = inner[kTile * i + 2];
    p3[i] = inner[kTile * i + 3];
  }
  for (int64_t i = end; i < tiles + 1; ++i) edge(i);
}

// One channel of one segment into place `offset` (of frequency 0) of the transformed input.
void transform_input(const float* image, const Tiling& t, const Segment& s, const Spectrum& v, int64_t offset,
                     Phases phases[kSpan]) {
  for (int i = 0; i < kSpan; ++i) split_phases(image, t, s.y - 1 + i, s.x, s.tiles, phases[i]);
  for (int64_t n = 0; n < s.tiles; n += kLanes) {
    Vec half[kSpan][kSpan];
    for (int i = 0; i < kSpan; ++i) {
      Vec d[kSpan];
      for (int j = 0; j < kSpan; ++j) d[j] = load<Vec>(&phases[i][j % kTile][n + j / kTile]);
      input_transform(d, half[i]);
    }
    for (int j = 0; j < kSpan; ++j) {
      Vec column[kSpan], full[kSpan];
      for (int i = 0; i < kSpan; ++i) column[i] = half[i][j];
      input_transform(column, full);
      // The lanes past the segment's end are overwritten by the next segment, or are the spare room of the row.
      for (int i = 0; i < kSpan; ++i) store(v[i * kSpan + j] + offset + n, full[i]);
    }
  }
}

// One output channel of one segment, from place `offset` of the products.
void transform_output(const Spectrum& m, int64_t offset, const Tiling& t, const Segment& s, float bias,
                      float* image) {
  for (int64_t n = 0; n < s.tiles; n += kLanes) {
    Vec half[kTile][kSpan];
    for (int j = 0; j < kSpan; ++j) {
      Vec column[kSpan], y[kTile];
      for (int i = 0; i < kSpan; ++i) column[i] = load<Vec>(m[i * kSpan + j] + offset + n);
      output_transform(column, y);
      for (int i = 0; i < kTile; ++i) half[i][j] = y[i];
    }
    const int64_t x = s.x + n * kTile;
    const int64_t width = std::min(std::min<int64_t>(kLanes, s.tiles - n) * kTile, t.width - x);
    for (int64_t i = 0; i < std::min<int64_t>(kTile, t.height - s.y); ++i) {
      Vec y[kTile];
      output_transform(half[i], y);
      float phase[kTile][kLanes], line[kLanes * kTile];
      for (int q = 0; q < kTile; ++q) {
        y[q] += bias;
        store(phase[q], y[q]);
      }
      for (int lane = 0; lane < kLanes; ++lane) {
        for (int q = 0; q < kTile; ++q) line[lane * kTile + q] = phase[q][lane];
      }
      float* row = image + (s.y + i) * t.width + x;
      if (width == kLanes * kTile) {
        std::memcpy(row, line, sizeof line);
      } else {
        std::memcpy(row, line, width * sizeof(float));
      }
    }
  }
}

// x (B, C, H, W), w (K, C, 3, 3), bias (K) or null, y (B, K, H, W). With `backward_input` x is the gradient of the output
// (B, K, H, W) and y that of the input (B, C, H, W).
void convolve(const float* x, const float* w, const float* bias, float* y, int64_t B, int64_t C, int64_t K, int64_t H, int64_t W,
              bool backward_input) {
  const int64_t in = backward_input ? K : C, out = backward_input ? C : K;
  const int64_t in_stride = backward_input ? C * 9 : 9, out_stride = backward_input ? 9 : C * 9;
  const int threads = usable_processors();
  const Tiling tiling(B, H, W, in + out, threads);
  const int64_t stride = tiling.row_stride();
  // The output channels are handled in parts whose weights fit; the panels of a part have kRows channels each.
  const int64_t panels = ceil_div(out, kRows), panel_bytes = kFreqs * kRows * in * static_cast<int64_t>(sizeof(float));
  const int64_t parts = ceil_div(panels, std::max<int64_t>(1, kMaxWeights / panel_bytes));
  const int64_t part_panels = ceil_div(panels, parts);
  constexpr int64_t kGroup = 8;  // panels of one work item, which reads its part of v from the second-level cache

  const Spectrum u(part_panels * kRows * in);
  std::vector<Spectrum> inputs, products;
  for (int i = 0; i < (tiling.separate ? threads : 1); ++i) {
    inputs.emplace_back(in * stride);
    products.emplace_back(part_panels * kRows * stride);
  }

  Team::run(threads, [&](Team& team, int index) {
    Phases phases[kSpan] = {};
    const Spectrum &v = inputs[tiling.separate ? index : 0], &m = products[tiling.separate ? index : 0];
    for (int64_t begin_panel = 0; begin_panel < panels; begin_panel += part_panels) {
      const int64_t first = begin_panel * kRows, channels = std::min(part_panels * kRows, out - first);
      const int64_t used_panels = ceil_div(channels, kRows), groups = ceil_div(used_panels, kGroup);
      team.share(used_panels, [&](int64_t p) {
        transform_weights(w + (first + p * kRows) * out_stride, in_stride, out_stride, backward_input,
                          std::min<int64_t>(kRows, channels - p * kRows), in, u, p * kRows * in);
      });

      // for_each(count, body) runs one step of a block: on this thread alone, or shared with the team.
      const auto process_block = [&](int64_t block, const auto& for_each) {
        const int64_t begin = block * tiling.block, count = std::min(tiling.block, tiling.segments - begin);
        // With a single block the first part has left the transformed input in place.
        if (first == 0 || tiling.blocks > 1) {
          for_each(in, [&](int64_t c) {
            for (int64_t i = 0; i < count; ++i) {
              const Segment s(tiling, begin + i);
              const float* image = x + (s.image * in + c) * H * W;
              transform_input(image, tiling, s, v, c * stride + i * tiling.segment, phases);
            }
          });
        }
        for_each(kFreqs * groups, [&](int64_t item) {
          const int64_t freq = item / groups, group = item % groups;
          for (int64_t p = group * kGroup; p < std::min(used_panels, (group + 1) * kGroup); ++p) {
            multiply({u[freq] + p * kRows * in, kRows}, {v[freq], stride}, in,
                     std::min<int64_t>(kRows, channels - p * kRows), count * tiling.segment,
                     {m[freq] + p * kRows * stride, stride});
          }
        });
        for_each(channels, [&](int64_t k) {
          for (int64_t i = 0; i < count; ++i) {
            const Segment s(tiling, begin + i);
            float* image = y + (s.image * out + first + k) * H * W;
            const float shift = bias ? bias[first + k] : 0.f;
            transform_output(m, k * stride + i * tiling.segment, tiling, s, shift, image);
          }
        });
      };
      const auto alone = [](int64_t count, const auto& body) {
        for (int64_t i = 0; i < count; ++i) body(i);
      };
      const auto together = [&](int64_t count, const auto& body) { team.share(count, body); };
      if (tiling.separate) {
        team.share(tiling.blocks, [&](int64_t block) { process_block(block, alone); });
      } else {
        for (int64_t block = 0; block < tiling.blocks; ++block) process_block(block, together);
      }
    }
  });
}

}  // namespace

// x (B, C, H, W), weight (K, C, 3, 3), bias (K) -> (B, K, H, W), or of stride 2 where the output has half the size.
extern "C" int Convolution(int, void** tensors, int*, int64_t** shapes, const char**, void*, void*) {
  return status_of(__func__, [&] {
    const int64_t B = shapes[0][0], C = shapes[0][1], K = shapes[1][0], H = shapes[0][2], W = shapes[0][3];
    const EverySecond grid(B * K, H, W, shapes[3]);
    float* out = floats(tensors[3]);
    convolve(floats(tensors[0]), floats(tensors[1]), floats(tensors[2]), grid.room(out), B, C, K, H, W, false);
    grid.pick(out);
  });
}

// The gradient of Convolution's output, weight (K, C, 3, 3), a tensor (H, W) of which only the shape counts -> the gradient of
// x (B, C, H, W).
extern "C" int ConvolutionInputGrad(int, void** tensors, int*, int64_t** shapes, const char**, void*, void*) {
  return status_of(__func__, [&] {
    const int64_t B = shapes[0][0], C = shapes[1][1], K = shapes[1][0], H = shapes[2][0], W = shapes[2][1];
    const EverySecond grid(B * K, H, W, shapes[0]);
    convolve(grid.spread(floats(tensors[0])), floats(tensors[1]), nullptr, floats(tensors[3]), B, C, K, H, W, true);
  });
}
