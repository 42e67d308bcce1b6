// RoIAlign over a feature pyramid, forward and backward, float32, NCHW.
//
// Bilinear sampling on a regular grid is separable: each output row is a weighted sum of a few rows of the level, and
// each output cell a weighted sum of a few cells of that. So a region is pooled along y first, over all the columns that
// it touches (contiguous memory, whole vectors), and along x afterwards; the gradient takes the same way backwards.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <vector>

#include "kernels.h"
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

// All regions' taps, found once and used for every channel.
class Regions {
 public:
  struct Region {
    int level;
    int64_t first, span;  // the columns that are read; taps of x are relative to the first of them
    const Tap *y, *x;
  };

  Regions(const int64_t* heights, const int64_t* widths, const float* rois, const int32_t* level_of_roi, int64_t count,
          int resolution, int samples, bool aligned)
      : regions_(count), taps_(count * 4 * resolution * samples) {
    const int axis = 2 * resolution * samples;
    for (int64_t i = 0; i < count; ++i) {
      Region& region = regions_[i];
      region.level = level_of_roi[i];
      if (region.level < 0) continue;
      const int64_t height = heights[region.level], width = widths[region.level];
      const float* roi = rois + 4 * i;
      Tap *y = &taps_[2 * axis * i], *x = y + axis;
      find_taps(roi[1], roi[3], height, resolution, samples, aligned, y);
      find_taps(roi[0], roi[2], width, resolution, samples, aligned, x);
      // Taps without weight do not count: those outside the level would stretch the span to column 0.
      int64_t first = width, last = 0;
      for (int t = 0; t < axis; ++t) {
        if (x[t].weight == 0) continue;
        first = std::min<int64_t>(first, x[t].cell);
        last = std::max<int64_t>(last, x[t].cell);
      }
      first = std::min(first, last);
      // Whole vectors of columns where the level is wide enough, moved to the left where they would leave it.
      region.span = std::min(width, (last - first + kLanes) / kLanes * kLanes);
      region.first = std::min(first, width - region.span);
      for (int t = 0; t < axis; ++t) x[t].cell = x[t].weight == 0 ? 0 : static_cast<int32_t>(x[t].cell - region.first);
      region.y = y;
      region.x = x;
    }
  }

  const Region& operator[](int64_t i) const { return regions_[i]; }

 private:
  std::vector<Region> regions_;
  std::vector<Tap> taps_;
};

// `taps` is the number of taps of an output cell; `plane` one channel of the level, from the region's first column on;
// `line` has room for a row of the level. `out` is resolution x resolution. The usual number of taps is worth a copy of
// the code in which it is known (kTaps): the innermost loops have no other purpose than to count to it.

template <int kTaps>
void pool(const Regions::Region& region, const float* plane, int64_t width, int resolution, int any_taps,
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
void scatter(const Regions::Region& region, const float* dout, int64_t width, int resolution, int any_taps,
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
void for_channels(int64_t images, int64_t channels, const int64_t* widths, int num_levels, const Body& body) {
  const int64_t longest = num_levels > 0 ? *std::max_element(widths, widths + num_levels) : 0;
  // A page between the threads' buffers: side by side, pooling took 2.5 times as long.
  const int64_t items = ceil_div(channels, kChannels), line_size = longest + 1024;
  const int threads = usable_processors();
  std::vector<float> lines(threads * line_size);
  Team::run(threads, [&](Team& team, int thread) {
    float* line = lines.data() + thread * line_size;
    team.share(images * items, [&](int64_t item) {
      const int64_t first = item % items * kChannels;
      body(item / items, first, std::min(first + kChannels, channels), line);
    });
  });
}

}  // namespace

void kernels::roi_align_forward(const float* const* levels, const int64_t* heights, const int64_t* widths, int num_levels,
                                const float* rois, const int32_t* level_of_roi, int64_t B, int64_t R, int64_t C,
                                int resolution, int samples, bool aligned, float* out) {
  const Regions regions(heights, widths, rois, level_of_roi, B * R, resolution, samples, aligned);
  const int64_t cells = static_cast<int64_t>(resolution) * resolution;
  const auto pool_region = samples == 2 ? pool<4> : pool<0>;
  for_channels(B, C, widths, num_levels, [&](int64_t image, int64_t first, int64_t end, float* line) {
    for (int64_t i = image * R; i < (image + 1) * R; ++i) {
      const Regions::Region& region = regions[i];
      for (int64_t c = first; c < end; ++c) {
        float* cell = out + (i * C + c) * cells;
        if (region.level < 0) {
          std::fill_n(cell, cells, 0.f);
          continue;
        }
        const int64_t height = heights[region.level], width = widths[region.level];
        const float* plane = levels[region.level] + (image * C + c) * height * width + region.first;
        pool_region(region, plane, width, resolution, 2 * samples, line, cell);
      }
    }
  });
}

void kernels::roi_align_backward(const float* dout, const int64_t* heights, const int64_t* widths, int num_levels,
                                 const float* rois, const int32_t* level_of_roi, int64_t B, int64_t R, int64_t C,
                                 int resolution, int samples, bool aligned, bool add, float* const* dlevels) {
  const Regions regions(heights, widths, rois, level_of_roi, B * R, resolution, samples, aligned);
  const int64_t cells = static_cast<int64_t>(resolution) * resolution;
  const auto scatter_region = samples == 2 ? scatter<4> : scatter<0>;
  for_channels(B, C, widths, num_levels, [&](int64_t image, int64_t first, int64_t end, float* line) {
    for (int l = 0; l < num_levels && !add; ++l) {
      const int64_t size = heights[l] * widths[l];
      std::fill_n(dlevels[l] + (image * C + first) * size, (end - first) * size, 0.f);
    }
    for (int64_t i = image * R; i < (image + 1) * R; ++i) {
      const Regions::Region& region = regions[i];
      if (region.level < 0) continue;
      const int64_t height = heights[region.level], width = widths[region.level];
      for (int64_t c = first; c < end; ++c) {
        float* dplane = dlevels[region.level] + (image * C + c) * height * width + region.first;
        scatter_region(region, dout + (i * C + c) * cells, width, resolution, 2 * samples, line, dplane);
      }
    }
  });
}
