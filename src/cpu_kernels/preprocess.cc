// 8-bit images to the network's input.

#include "kernels.h"
#include "team.h"

namespace kernels {

void preprocess(const uint8_t* image, const float* valid_size, const float* tables, const int32_t* channels, int64_t B,
                int64_t H, int64_t W, float* out) {
  Team::run(usable_processors(), [&](Team& team, int) {
    team.share(B * H, [&](int64_t row) {
      const int64_t b = row / H, y = row % H;
      const uint8_t* pixels = image + row * W * 3;
      for (int64_t c = 0; c < 3; ++c) {
        const float* table = tables + c * 256;
        float* line = out + ((b * 3 + c) * H + y) * W;
        for (int64_t x = 0; x < W; ++x) {
          const bool inside = y < valid_size[2 * b] && x < valid_size[2 * b + 1];
          line[x] = inside ? table[pixels[3 * x + channels[c]]] : 0.f;
        }
      }
    });
  });
}

}  // namespace kernels
