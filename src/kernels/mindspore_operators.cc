// The entry points that MindSpore calls: inputs, then outputs, each with its shape. Each returns 0, or 1 after an error.

#include <cstdint>
#include <cstdio>
#include <exception>
#include <vector>

#include "kernels.h"

namespace {

float* floats(void* tensor) { return static_cast<float*>(tensor); }
int32_t* ints(void* tensor) { return static_cast<int32_t*>(tensor); }

// The pyramid among the tensors; boxes come in cells of it.
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

// The status of an entry point that runs `body`: MindSpore, which is not to see an exception, reports any but 0 as an error.
template <class Body>
int status_of(const char* name, const Body& body) {
  try {
    body();
    return 0;
  } catch (const std::exception& error) {
    std::fprintf(stderr, "the CPU kernel %s failed: %s\n", name, error.what());
    return 1;
  }
}

}  // namespace

extern "C" {

// candidates (B or 1, N, 4), boxes (B, G, 4), mask (B, G) -> overlap, index, is_best (B, N).
int Match(int, void** tensors, int*, int64_t** shapes, const char**, void*, void*) {
  return status_of(__func__, [&] {
    kernels::match(floats(tensors[0]), shapes[0][0], floats(tensors[1]), static_cast<bool*>(tensors[2]), shapes[1][0],
                   shapes[0][1], shapes[1][1], floats(tensors[3]), ints(tensors[4]), static_cast<bool*>(tensors[5]));
  });
}

// boxes (B, R, 4) in cells, level (B * R), geometry {resolution, samples, aligned}, levels (B, C, H_i, W_i) ->
// pooled (B * R, C, resolution, resolution).
int RoIAlign(int count, void** tensors, int*, int64_t** shapes, const char**, void*, void*) {
  return status_of(__func__, [&] {
    const Levels levels(tensors + 3, shapes + 3, count - 4);
    const int32_t* geometry = ints(tensors[2]);
    kernels::roi_align_forward(levels.data.data(), levels.heights.data(), levels.widths.data(), count - 4,
                               floats(tensors[0]), ints(tensors[1]), shapes[0][0], shapes[0][1], shapes[3][1],
                               geometry[0], geometry[1], geometry[2] != 0, floats(tensors[count - 1]));
  });
}

// boxes, level and geometry as in RoIAlign, the gradient of what it gave, then for each level a tensor (H_i, W_i) of which
// only the shape counts -> gradients of the levels (B, C, H_i, W_i).
int RoIAlignGrad(int count, void** tensors, int*, int64_t** shapes, const char**, void*, void*) {
  return status_of(__func__, [&] {
    const int num_levels = (count - 4) / 2;
    const Levels gradients(tensors + 4 + num_levels, shapes + 4 + num_levels, num_levels);
    const int32_t* geometry = ints(tensors[2]);
    kernels::roi_align_backward(floats(tensors[3]), gradients.heights.data(), gradients.widths.data(), num_levels,
                                floats(tensors[0]), ints(tensors[1]), shapes[0][0], shapes[0][1], shapes[3][1],
                                geometry[0], geometry[1], geometry[2] != 0, gradients.data.data());
  });
}

// x (B, C, H, W), weight (K, C, 3, 3), bias (K) -> (B, K, H, W).
int Convolution(int, void** tensors, int*, int64_t** shapes, const char**, void*, void*) {
  return status_of(__func__, [&] {
    kernels::winograd_conv3x3(floats(tensors[0]), floats(tensors[1]), floats(tensors[2]), floats(tensors[3]),
                              shapes[0][0], shapes[0][1], shapes[1][0], shapes[0][2], shapes[0][3], false);
  });
}

// The gradient of Convolution's output (B, K, H, W), weight (K, C, 3, 3) -> the gradient of x (B, C, H, W).
int ConvolutionInputGrad(int, void** tensors, int*, int64_t** shapes, const char**, void*, void*) {
  return status_of(__func__, [&] {
    kernels::winograd_conv3x3(floats(tensors[0]), floats(tensors[1]), nullptr, floats(tensors[2]), shapes[0][0],
                              shapes[1][1], shapes[1][0], shapes[0][2], shapes[0][3], true);
  });
}

// x (B, C, H, W), the gradient of Convolution's output (B, K, H, W) -> the gradient of the weight (K, C, 3, 3).
int ConvolutionWeightGrad(int, void** tensors, int*, int64_t** shapes, const char**, void*, void*) {
  return status_of(__func__, [&] {
    kernels::winograd_conv3x3_weight_gradient(floats(tensors[0]), floats(tensors[1]), floats(tensors[2]), shapes[0][0],
                                              shapes[0][1], shapes[1][1], shapes[0][2], shapes[0][3]);
  });
}

// weight (K, ...), scale (K) -> as weight.
int ScaleRows(int, void** tensors, int* ranks, int64_t** shapes, const char**, void*, void*) {
  return status_of(__func__, [&] {
    int64_t columns = 1;
    for (int i = 1; i < ranks[0]; ++i) columns *= shapes[0][i];
    kernels::scale_rows(floats(tensors[0]), floats(tensors[1]), shapes[0][0], columns, floats(tensors[2]));
  });
}

}  // extern "C"
