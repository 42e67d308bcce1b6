// Converts 8-bit images to the network's input.

#include "crew.h"
#include "entry_point.h"

// image uint8 (B, H, W, 3), valid_size (B, 2), tables (3, 256), channels (3), the image channel that each table applies to ->
// (B, 3, H, W), zero outside the valid size.
extern "C" int Preprocess(int, void** tensors, int*, int64_t** shapes, const char**, void*, void*) {
  return status_of(__func__, [&] {
    const uint8_t* image = static_cast<uint8_t*>(tensors[0]);
    const float *valid_size = floats(tensors[1]), *tables = floats(tensors[2]);
    const int32_t* channels = ints(tensors[3]);
    float* out = floats(tensors[4]);
    const int64_t B = shapes[0][0], H = shapes[0][1], W = shapes[0][2];
    const auto convert = [&](int64_t row) {
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
    };
    Crew::run([&](Crew& crew) { crew.share(B * H, convert); });
  });
}
