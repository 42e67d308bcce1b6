// RoIAlign over a feature pyramid, forward and backward. Levels have channels last. Levels and results are float or Bf16.
//
// Bilinear sampling on a regular grid is separable. A region is first pooled along y, over all columns that it touches: each
// pooled row is a weighted sum of a few rows of the level. It is then pooled along x in the same way. The gradient does the
// reverse. Channels are processed in groups of kGroup.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <memory>
#include <vector>

#include "entry_point.h"
#include "layers.h"
#include "vectors.h"

namespace {

// Channels processed together. In the gradient, each thread works on one group.
constexpr int kGroup = 64;
typedef float Group[kGroup];

struct Tap {
  int32_t cell;
  float weight;
};

// The taps of one axis: 2 * samples per output cell. Their weights include the averaging over the samples.
void find_taps(float from, float to, int64_t limit, int resolution, int samples, bool aligned, Tap* taps) {
  const float start = from - (aligned ? 0.5f : 0.f), length = std::max(to - from, aligned ? 0.f : 1.f);
  const int count = resolution * samples;
  for (int i = 0; i < count; ++i) {
    float position = start + length * (i + 0.5f) / count;
    Tap &low = taps[2 * i], &high = taps[2 * i + 1];
    low = high = {0, 0.f};
    if (position != position) low.weight = high.weight = position;  // NaN coordinates give NaN features
    if (!(position >= -1 && position <= limit)) continue;
    position = std::clamp<float>(position, 0, limit - 1);
    low.cell = static_cast<int32_t>(position);
    high.cell = std::min<int32_t>(low.cell + 1, limit - 1);
    high.weight = (position - low.cell) / samples;
    low.weight = (1 - (position - low.cell)) / samples;
  }
}

// The pyramid or its gradient: memory, height and width of each level.
struct Levels {
  std::vector<void*> data;
  std::vector<int64_t> heights, widths;

  Levels(void** tensors, int64_t** shapes, int count) {
    for (int i = 0; i < count; ++i) {
      data.push_back(tensors[i]);
      heights.push_back(shapes[i][2]);
      widths.push_back(shapes[i][3]);
    }
  }
};

struct Region {
  int level;  // below 0: the box is NaN
  int64_t first, span;  // columns that are read; the taps of x are relative to the first column
  const Tap *y, *x;
};

// All regions and their taps, computed once for all channels.
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
      const float* box = floats(tensors[0]) + 4 * i;
      Tap *y = &taps[2 * axis * i], *x = y + axis;
      find_taps(box[1], box[3], levels.heights[level], resolution, samples, aligned, y);
      find_taps(box[0], box[2], levels.widths[level], resolution, samples, aligned, x);
      // Taps with weight 0 are ignored: taps outside the level would extend the span to column 0.
      int64_t first = levels.widths[level], last = 0;
      for (int t = 0; t < axis; ++t) {
        if (x[t].weight == 0) continue;
        first = std::min<int64_t>(first, x[t].cell);
        last = std::max<int64_t>(last, x[t].cell);
      }
      first = std::min(first, last);
      for (int t = 0; t < axis; ++t) x[t].cell = x[t].weight == 0 ? 0 : static_cast<int32_t>(x[t].cell - first);
      all[i] = {level, first, last - first + 1, y, x};
    }
  }
};

// Adds weight * from to `lanes` <= kGroup channels. The compiler unrolls the loop over a whole group.
template <class T>
inline void add(float weight, const T* from, int lanes, float* to) {
  if (lanes == kGroup) {
    for (int c = 0; c < kGroup; ++c) to[c] += weight * to_float(from[c]);
  } else {
    for (int c = 0; c < lanes; ++c) to[c] += weight * to_float(from[c]);
  }
}

// `image` points to the first column of the region in the level of its image, at the first of `lanes` <= kGroup channels. `line`
// has room for a group per column. `out` (cells) has a group per output cell.
template <class T>
void pool(const Region& region, const T* image, int64_t width, int64_t channels, int lanes, int resolution, int taps, Group* line,
          Group* out) {
  for (int i = 0; i < resolution; ++i) {
    std::memset(line, 0, region.span * sizeof(Group));
    for (const Tap* y = region.y + i * taps; y != region.y + (i + 1) * taps; ++y) {
      if (y->weight == 0) continue;
      const T* row = image + y->cell * width * channels;
      for (int64_t x = 0; x < region.span; ++x, row += channels) add(y->weight, row, lanes, line[x]);
    }
    const Tap* x = region.x;
    for (int j = 0; j < resolution; ++j) {
      Group sum = {};
      for (int t = 0; t < taps; ++t, ++x) add(x->weight, line[x->cell], kGroup, sum);
      std::memcpy(out[i * resolution + j], sum, sizeof sum);
    }
  }
}

void scatter(const Region& region, const Group* dout, int64_t width, int64_t channels, int lanes, int resolution, int taps,
             Group* line, float* image) {
  for (int i = 0; i < resolution; ++i) {
    std::memset(line, 0, region.span * sizeof(Group));
    const Tap* x = region.x;
    for (int j = 0; j < resolution; ++j) {
      for (int t = 0; t < taps; ++t, ++x) add(x->weight, dout[i * resolution + j], kGroup, line[x->cell]);
    }
    for (const Tap* y = region.y + i * taps; y != region.y + (i + 1) * taps; ++y) {
      if (y->weight == 0) continue;
      float* row = image + y->cell * width * channels;
      for (int64_t x = 0; x < region.span; ++x, row += channels) add(y->weight, line[x], lanes, row);
    }
  }
}

// Calls body(item, line, cells). Each thread has buffers for a line of the widest level and for `cells` output cells.
template <class Body>
void share_items(int64_t count, const Levels& levels, int cells, const Body& body) {
  const int64_t columns = *std::max_element(levels.widths.begin(), levels.widths.end());
  Crew::run([&](Crew& crew) {
    crew.share(count, [&](int64_t item) {
      // One buffer per thread. If two threads had buffers on one page, they would run at half the speed.
      static thread_local std::vector<float> buffer;
      buffer.resize((columns + cells) * kGroup);
      Group* line = reinterpret_cast<Group*>(buffer.data());
      body(item, line, line + columns);
    });
  });
}

template <class T>
void pool_all(const Levels& levels, const Regions& regions, int64_t batch, int64_t channels, T* out) {
  const int resolution = regions.resolution, cells = resolution * resolution;
  const int64_t count = regions.all.size();
  share_items(count, levels, cells, [&](int64_t i, Group* line, Group* pooled) {
    const Region& region = regions.all[i];
    T* target = out + i * channels * cells;
    if (region.level < 0) {
      std::fill_n(target, channels * cells, from_float<T>(NAN));
      return;
    }
    const int64_t height = levels.heights[region.level], width = levels.widths[region.level];
    const T* image = static_cast<const T*>(levels.data[region.level]) +
                     (i / (count / batch) * height * width + region.first) * channels;
    for (int64_t c = 0; c < channels; c += kGroup) {
      const int lanes = static_cast<int>(std::min<int64_t>(kGroup, channels - c));
      pool(region, image + c, width, channels, lanes, resolution, 2 * regions.samples, line, pooled);
      // Rounding comes first, because the compiler vectorises it; the transposition follows.
      static thread_local std::vector<T> narrow;
      narrow.resize(cells * kGroup);
      const float* wide = pooled[0];
      for (int j = 0; j < cells * kGroup; ++j) narrow[j] = from_float<T>(wide[j]);
      for (int lane = 0; lane < lanes; ++lane) {
        for (int cell = 0; cell < cells; ++cell) target[(c + lane) * cells + cell] = narrow[cell * kGroup + lane];
      }
    }
  });
}

// Adds the gradients of the levels. With `fresh`, the levels are set to 0 before.
template <class T>
void scatter_all(const Levels& gradients, const Regions& regions, int64_t batch, int64_t channels, const T* dout, bool fresh) {
  const int resolution = regions.resolution, cells = resolution * resolution;
  const int64_t groups = ceil_div(channels, kGroup), count = regions.all.size() / batch;
  // Only one item writes to these channels of its image, so there are no races and the order of additions is fixed.
  share_items(batch * groups, gradients, cells, [&](int64_t item, Group* line, Group* pooled) {
    const int64_t image = item / groups, first = item % groups * kGroup;
    const int lanes = static_cast<int>(std::min<int64_t>(kGroup, channels - first));
    const auto at = [&](int level, int64_t cell) {
      const int64_t size = gradients.heights[level] * gradients.widths[level];
      return static_cast<float*>(gradients.data[level]) + (image * size + cell) * channels + first;
    };
    for (size_t l = 0; fresh && l < gradients.data.size(); ++l) {
      for (int64_t cell = 0; cell < gradients.heights[l] * gradients.widths[l]; ++cell) {
        std::memset(at(l, cell), 0, lanes * sizeof(float));
      }
    }
    std::memset(pooled, 0, cells * sizeof(Group));
    for (int64_t i = image * count; i < (image + 1) * count; ++i) {
      const Region& region = regions.all[i];
      if (region.level < 0) continue;
      for (int lane = 0; lane < lanes; ++lane) {
        const T* plane = dout + (i * channels + first + lane) * cells;
        for (int cell = 0; cell < cells; ++cell) pooled[cell][lane] = to_float(plane[cell]);
      }
      scatter(region, pooled, gradients.widths[region.level], channels, lanes, resolution, 2 * regions.samples, line,
              at(region.level, region.first));
    }
  });
}

}  // namespace

// boxes (B, R, 4) in cells, level (B * R), geometry {resolution, samples, aligned}, levels (B, C, H_i, W_i) with channels last in
// memory -> pooled (B * R, C, resolution, resolution) in the type of the levels.
extern "C" int RoIAlign(int count, void** tensors, int*, int64_t** shapes, const char** dtypes, void*, void*) {
  return status_of(__func__, [&] {
    const int64_t B = shapes[0][0], R = shapes[0][1], C = shapes[3][1];
    const Levels levels(tensors + 3, shapes + 3, count - 4);
    const Regions regions(tensors, B * R, levels);
    void* out = tensors[count - 1];
    if (std::strcmp(dtypes[3], "float32") == 0) pool_all(levels, regions, B, C, static_cast<float*>(out));
    else pool_all(levels, regions, B, C, static_cast<Bf16*>(out));
  });
}

// Inputs: boxes, level and geometry as in RoIAlign and the gradient of its output, repeated for each call on the same levels;
// then a tensor (H_i, W_i) per level, used only for its shape. Outputs: gradients of the levels (B, C, H_i, W_i), in the type of
// the levels, with channels last in memory.
extern "C" int RoIAlignGrad(int count, void** tensors, int* ranks, int64_t** shapes, const char** dtypes, void*, void*) {
  return status_of(__func__, [&] {
    int inputs = 0;
    while (ranks[inputs] == 3) inputs += 4;
    const int num_levels = (count - inputs) / 2;
    Levels gradients(tensors + count - num_levels, shapes + count - num_levels, num_levels);
    const bool narrow = std::strcmp(dtypes[count - 1], "float32") != 0;
    const auto size_of = [&](int l) {
      const int64_t* shape = shapes[count - num_levels + l];
      return shape[0] * shape[1] * shape[2] * shape[3];
    };
    std::vector<std::unique_ptr<float[]>> sums;
    for (int l = 0; narrow && l < num_levels; ++l) {
      sums.emplace_back(new float[size_of(l)]);
      gradients.data[l] = sums[l].get();
    }
    for (int call = 0; call < inputs; call += 4) {
      const Regions regions(tensors + call, shapes[call][0] * shapes[call][1], gradients);
      const auto scatter_type = [&](auto* dout) {
        scatter_all(gradients, regions, shapes[call][0], shapes[call + 3][1], dout, /*fresh=*/call == 0);
      };
      if (narrow) scatter_type(static_cast<const Bf16*>(tensors[call + 3]));
      else scatter_type(static_cast<const float*>(tensors[call + 3]));
    }
    for (size_t l = 0; l < sums.size(); ++l) {
      Bf16* out = static_cast<Bf16*>(tensors[count - num_levels + l]);
      Crew::run([&](Crew& crew) { layers::cast(crew, size_of(l), sums[l].get(), out); });
    }
  });
}
