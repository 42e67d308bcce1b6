// Bilinear resizing with half-pixel centres, and its gradient.

#include <algorithm>
#include <vector>

#include "entry_point.h"
#include "team.h"

namespace {

struct Tap {
  int64_t low, high;
  float weight;  // of high
};

std::vector<Tap> find_taps(int64_t from, int64_t to) {
  std::vector<Tap> taps(to);
  const float scale = static_cast<float>(from) / static_cast<float>(to);
  for (int64_t i = 0; i < to; ++i) {
    const float position = std::max((static_cast<float>(i) + 0.5f) * scale - 0.5f, 0.f);
    const int64_t low = std::min(static_cast<int64_t>(position), from - 1);
    taps[i] = {low, std::min(low + 1, from - 1), position - static_cast<float>(low)};
  }
  return taps;
}

}  // namespace

// x (B, C, h, w), a tensor (H, W) of which only the shape counts -> (B, C, H, W).
extern "C" int ResizeBilinear(int, void** tensors, int*, int64_t** shapes, const char**, void*, void*) {
  return status_of(__func__, [&] {
    const int64_t planes = shapes[0][0] * shapes[0][1], h = shapes[0][2], w = shapes[0][3], H = shapes[1][0], W = shapes[1][1];
    const std::vector<Tap> rows = find_taps(h, H), columns = find_taps(w, W);
    const float* x = floats(tensors[0]);
    float* out = floats(tensors[2]);
    share_among_all(planes * H, [&](int64_t row) {
      const Tap& y = rows[row % H];
      const float *low = x + (row / H * h + y.low) * w, *high = x + (row / H * h + y.high) * w;
      float* to = out + row * W;
      for (int64_t i = 0; i < W; ++i) {
        const Tap& tap = columns[i];
        const float above = low[tap.low] + (low[tap.high] - low[tap.low]) * tap.weight;
        const float below = high[tap.low] + (high[tap.high] - high[tap.low]) * tap.weight;
        to[i] = above + (below - above) * y.weight;
      }
    });
  });
}

// The gradient of ResizeBilinear's output (B, C, H, W), a tensor (h, w) of which only the shape counts -> that of x.
extern "C" int ResizeBilinearGrad(int, void** tensors, int*, int64_t** shapes, const char**, void*, void*) {
  return status_of(__func__, [&] {
    const int64_t planes = shapes[0][0] * shapes[0][1], h = shapes[1][0], w = shapes[1][1], H = shapes[0][2], W = shapes[0][3];
    const std::vector<Tap> rows = find_taps(h, H), columns = find_taps(w, W);
    const float* dout = floats(tensors[0]);
    float* dx = floats(tensors[2]);
    share_with_buffers(planes, w, [&](int64_t plane, float* line) {
      float* to = dx + plane * h * w;
      std::fill_n(to, h * w, 0.f);
      for (int64_t y = 0; y < H; ++y) {
        const float* from = dout + (plane * H + y) * W;
        std::fill_n(line, w, 0.f);
        for (int64_t x = 0; x < W; ++x) {
          line[columns[x].low] += from[x] * (1 - columns[x].weight);
          line[columns[x].high] += from[x] * columns[x].weight;
        }
        float *low = to + rows[y].low * w, *high = to + rows[y].high * w;
        for (int64_t x = 0; x < w; ++x) low[x] += line[x] * (1 - rows[y].weight);
        for (int64_t x = 0; x < w; ++x) high[x] += line[x] * rows[y].weight;
      }
    });
  });
}
