// RoIAlign over a feature pyramid, forward and backward, float32, NCHW.
//
// Bilinear sampling on a regular grid is separable: each output row is a weighted sum of a few rows of the level, and
// each output cell a weighted sum of a few cells of that. So a region is pooled along y first, over all the columns that
// it touches (contiguous memory, whole vectors), and along x afterwards; the gradient takes the same way backwards.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <vector>

#include "entry_point.h"
#include "team.h"
#include "vectors.h"

namespace {

#ifdef __AVX__
constexpr int kLanes = 8;  // more would only lengthen the spans of small regions
#else
constexpr int kLanes = 4;
#endif
typedef float Vec __attribute__((vector_size(kLanes * sizeof(float))));

struct Tap {
  int32_t cell;
  float weight;
};

// The taps of one axis: 2 * samples for every output cell, the averaging over the samples included in the weights.
void find_taps(float from, float to, int64_t limit, int resolution, int samples, bool aligned, Tap* taps) {
  const float start = from - (aligned ? 0.5f : 0.f), length = std::max(to - from, aligned ? 0.f : 1.f);
  const int count = resolution * samples;
  for (int i = 0; i < count; ++i) {
    float position = start + length * (i + 0.5f) / count;
    Tap &low = taps[2 * i], &high = taps[2 * i + 1];
    low = high = {0, 0.f};
    if (!(position >= -1 && position <= limit)) continue;  // written so that NaN counts as outside, too
    position = std::clamp<float>(position, 0, limit - 1);
    low.cell = static_cast<int32_t>(position);
    high.cell = std::min<int32_t>(low.cell + 1, limit - 1);
    high.weight = (position - low.cell) / samples;
    low.weight = (1 - (position - low.cell)) / samples;
  }
}

// The pyramid, or its gradient: a tensor (B, C, height, width) for each level.
struct Levels {
  std::vector<float*> data;
  std::vector<int64_t> heights, widths;

  Levels(void** tensors, int64_t** shapes, int count) {
    for (int i = 0; i < count; ++i) {
      data.push_back(floats(tensors[i]));
      heights.push_back(shapes[i][2]);
      widths.push_back(shapes[i][3]);
    }
  }
};

struct Region {
  int level;  // below 0 where a coordinate is NaN
  int64_t first, span;  // the columns that are read; taps of x are relative to the first of them
  const Tap *y, *x;
};

// All regions and their taps, found once and used for every channel.
struct Regions {
  int resolution, samples;
  std::vector<Tap> taps;
  std::vector<Region> all;

  // The first three tensors are boxes (count, 4) in cells, level (count) and geometry {resolution, samples, aligned}.
  Regions(void** tensors, int64_t count, const Levels& levels)
      : resolution(ints(tensors[2])[0]), samples(ints(tensors[2])[1]), taps(count * 4 * resolution * samples), all(count) {
    const int axis = 2 * resolution * samples;
    const bool aligned = ints(tensors[2])[2] != 0;
    for (int64_t i = 0; i < count; ++i) {
      const int level = all[i].level = ints(tensors[1])[i];
      if (level < 0) continue;
      const int64_t height = levels.heights[level], width = levels.widths[level];
      const float* box = floats(tensors[0]) + 4 * i;
      Tap *y = &taps[2 * axis * i], *x = y + axis;
      find_taps(box[1], box[3], height, resolution, samples, aligned, y);
      find_taps(box[0], box[2], width, resolution, samples, aligned, x);
      // Taps without weight do not count: those outside the level would stretch the span to column 0.
      int64_t first = width, last = 0;
      for (int t = 0; t < axis; ++t) {
        if (x[t].weight == 0) continue;
        first = std::min<int64_t>(first, x[t].cell);
        last = std::max<int64_t>(last, x[t].cell);
      }
      first = std::min(first, last);
      // Whole vectors of columns where the level is wide enough, moved to the left where they would leave it.
      const int64_t span = std::min(width, (last - first + kLanes) / kLanes * kLanes);
      first = std::min(first, width - span);
      for (int t = 0; t < axis; ++t) x[t].cell = x[t].weight == 0 ? 0 : static_cast<int32_t>(x[t].cell - first);
      all[i] = {level, first, span, y, x};
    }
  }
};

// `taps` is the number of taps of an output cell; `plane` one channel of the level, from the region's first column on;
// `line` has room for a row of the level. `out` is resolution x resolution. The usual number of taps is worth a copy of
// the code in which it is known (kTaps): the innermost loops have no other purpose than to count to it.

template <int kTaps>
void pool(const Region& region, const float* plane, int64_t width, int resolution, int any_taps,
          float* __restrict line, float* __restrict out) {
  const int taps = kTaps ? kTaps : any_taps;
  for (int i = 0; i < resolution; ++i) {
    const Tap* y = region.y + i * taps;
    int64_t c = 0;
    for (; c + kLanes <= region.span; c += kLanes) {
      Vec sum = {};
      for (int t = 0; t < taps; ++t) sum += y[t].weight * load<Vec>(plane + y[t].cell * width + c);
      store(line + c, sum);
    }
    for (; c < region.span; ++c) {
      line[c] = 0;
      for (int t = 0; t < taps; ++t) line[c] += y[t].weight * plane[y[t].cell * width + c];
    }
    const Tap* x = region.x;
    for (int j = 0; j < resolution; ++j, x += taps) {
      float sum = 0;
      for (int t = 0; t < taps; ++t) sum += x[t].weight * line[x[t].cell];
      out[i * resolution + j] = sum;
    }
  }
}

template <int kTaps>
void scatter(const Region& region, const float* dout, int64_t width, int resolution, int any_taps,
             float* __restrict line, float* __restrict dplane) {
  const int taps = kTaps ? kTaps : any_taps;
  for (int i = 0; i < resolution; ++i) {
    std::fill_n(line, region.span, 0.f);
    const Tap* x = region.x;
    for (int j = 0; j < resolution; ++j, x += taps) {
      for (int t = 0; t < taps; ++t) line[x[t].cell] += x[t].weight * dout[i * resolution + j];
    }
    for (const Tap* y = region.y + i * taps; y != region.y + (i + 1) * taps; ++y) {
      if (y->weight == 0) continue;
      float* row = dplane + y->cell * width;
      int64_t c = 0;
      for (; c + kLanes <= region.span; c += kLanes) store(row + c, load<Vec>(row + c) + y->weight * load<Vec>(line + c));
      for (; c < region.span; ++c) row[c] += y->weight * line[c];
    }
  }
}

// Work items are a few channels of an image with all its regions: in the backward pass nobody else writes to them, so
// there are no races and the order of additions is fixed, and in both passes the planes stay in the second-level cache.
constexpr int64_t kChannels = 2;

// Calls body(image, first channel, end channel, line) for all items, `line` being a buffer of the thread's own.
template <class Body>
void for_channels(int64_t images, int64_t channels, const Levels& levels, const Body& body) {
  const int64_t items = ceil_div(channels, kChannels);
  share_with_buffers(images * items, *std::max_element(levels.widths.begin(), levels.widths.end()),
                     [&](int64_t item, float* line) {
    const int64_t first = item % items * kChannels;
    body(item / items, first, std::min(first + kChannels, channels), line);
  });
}

}  // namespace

// boxes (B, R, 4) in cells, level (B * R), geometry {resolution, samples, aligned}, levels (B, C, H_i, W_i) ->
// pooled (B * R, C, resolution, resolution).
extern "C" int RoIAlign(int count, void** tensors, int*, int64_t** shapes, const char**, void*, void*) {
  return status_of(__func__, [&] {
    const int64_t B = shapes[0][0], R = shapes[0][1], C = shapes[3][1];
    const Levels levels(tensors + 3, shapes + 3, count - 4);
    const Regions regions(tensors, B * R, levels);
    const int resolution = regions.resolution, taps = 2 * regions.samples, cells = resolution * resolution;
    float* out = floats(tensors[count - 1]);
    const auto pool_region = taps == 4 ? pool<4> : pool<0>;
    for_channels(B, C, levels, [&](int64_t image, int64_t first, int64_t end, float* line) {
      for (int64_t i = image * R; i < (image + 1) * R; ++i) {
        const Region& region = regions.all[i];
        if (region.level < 0) {
          std::fill_n(out + (i * C + first) * cells, (end - first) * cells, 0.f);
          continue;
        }
        const int64_t height = levels.heights[region.level], width = levels.widths[region.level];
        for (int64_t c = first; c < end; ++c) {
          const float* plane = levels.data[region.level] + (image * C + c) * height * width + region.first;
          pool_region(region, plane, width, resolution, taps, line, out + (i * C + c) * cells);
        }
      }
    });
  });
}

// boxes, level and geometry as in RoIAlign and the gradient of what it gave, once for each of its calls on the same levels;
// then for each level a tensor (H_i, W_i) of which only the shape counts -> gradients of the levels (B, C, H_i, W_i).
extern "C" int RoIAlignGrad(int count, void** tensors, int* ranks, int64_t** shapes, const char**, void*, void*) {
  return status_of(__func__, [&] {
    int inputs = 0;
    while (ranks[inputs] == 3) inputs += 4;
    const int num_levels = (count - inputs) / 2;
    const Levels gradients(tensors + count - num_levels, shapes + count - num_levels, num_levels);
    for (int call = 0; call < inputs; call += 4) {
      const int64_t B = shapes[call][0], R = shapes[call][1], C = shapes[call + 3][1];
      const Regions regions(tensors + call, B * R, gradients);
      const int resolution = regions.resolution, taps = 2 * regions.samples;
      const float* dout = floats(tensors[call + 3]);
      const auto scatter_region = taps == 4 ? scatter<4> : scatter<0>;
      for_channels(B, C, gradients, [&](int64_t image, int64_t first, int64_t end, float* line) {
        for (int l = 0; l < num_levels && call == 0; ++l) {
          const int64_t size = gradients.heights[l] * gradients.widths[l];
          std::fill_n(gradients.data[l] + (image * C + first) * size, (end - first) * size, 0.f);
        }
        for (int64_t i = image * R; i < (image + 1) * R; ++i) {
          const Region& region = regions.all[i];
          if (region.level < 0) continue;
          const int64_t height = gradients.heights[region.level], width = gradients.widths[region.level];
          for (int64_t c = first; c < end; ++c) {
            float* plane = gradients.data[region.level] + (image * C + c) * height * width + region.first;
            scatter_region(region, dout + (i * C + c) * resolution * resolution, width, resolution, taps, line, plane);
          }
        }
      });
    }
  });
}
