// Bilinear resizing with half-pixel centres, and its gradient.

#include <algorithm>
#include <vector>

#include "kernels.h"
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

void kernels::resize_bilinear(const float* x, int64_t planes, int64_t h, int64_t w, int64_t H, int64_t W, float* out) {
  const std::vector<Tap> rows = find_taps(h, H), columns = find_taps(w, W);
  Team::run(usable_processors(), [&](Team& team, int) {
    team.share(planes * H, [&](int64_t row) {
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

void kernels::resize_bilinear_backward(const float* dout, int64_t planes, int64_t h, int64_t w, int64_t H, int64_t W,
                                       float* dx) {
  const std::vector<Tap> rows = find_taps(h, H), columns = find_taps(w, W);
  const int threads = usable_processors();
  // A page between the threads' buffers: side by side they slow each other down.
  const int64_t line_size = w + 1024;
  std::vector<float> lines(threads * line_size);
  Team::run(threads, [&](Team& team, int thread) {
    float* line = lines.data() + thread * line_size;
    team.share(planes, [&](int64_t plane) {
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
