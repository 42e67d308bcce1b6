// The entry points that MindSpore calls: inputs, then outputs, each with its shape. Each returns 0, or 1 after an error.

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <exception>
#include <memory>
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

// What a convolution of stride 2 has to do with that of stride 1: it is every second row and column of it. With stride 1
// nothing happens here.
class EverySecond {
 public:
  // planes of height x width at stride 1; `shape` (B, K, height, width) is the one at the stride wanted.
  EverySecond(int64_t planes, int64_t height, int64_t width, const int64_t* shape)
      : planes_(planes), height_(height), width_(width), rows_(shape[2]), columns_(shape[3]) {
    if (rows_ != height || columns_ != width) full_.reset(new float[planes * height * width]);
  }

  // Where the result at stride 1 goes; pick() then takes what is wanted of it.
  float* room(float* output) const { return full_ ? full_.get() : output; }

  void pick(float* output) const {
    if (!full_) return;
    for (int64_t row = 0; row < planes_ * rows_; ++row) {
      const float* from = full_.get() + (row / rows_ * height_ + row % rows_ * 2) * width_;
      for (int64_t i = 0; i < columns_; ++i) output[row * columns_ + i] = from[2 * i];
    }
  }

  // The gradient of the result at stride 1: zero in between.
  const float* spread(const float* gradient) const {
    if (!full_) return gradient;
    std::fill_n(full_.get(), planes_ * height_ * width_, 0.f);
    for (int64_t row = 0; row < planes_ * rows_; ++row) {
      float* to = full_.get() + (row / rows_ * height_ + row % rows_ * 2) * width_;
      for (int64_t i = 0; i < columns_; ++i) to[2 * i] = gradient[row * columns_ + i];
    }
    return full_.get();
  }

 private:
  int64_t planes_, height_, width_, rows_, columns_;
  std::unique_ptr<float[]> full_;
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

// boxes, level and geometry as in RoIAlign and the gradient of what it gave, once for each of its calls on the same levels;
// then for each level a tensor (H_i, W_i) of which only the shape counts -> gradients of the levels (B, C, H_i, W_i).
int RoIAlignGrad(int count, void** tensors, int* ranks, int64_t** shapes, const char**, void*, void*) {
  return status_of(__func__, [&] {
    int inputs = 0;
    while (ranks[inputs] == 3) inputs += 4;
    const int num_levels = (count - inputs) / 2;
    const Levels gradients(tensors + count - num_levels, shapes + count - num_levels, num_levels);
    for (int i = 0; i < inputs; i += 4) {
      const int32_t* geometry = ints(tensors[i + 2]);
      kernels::roi_align_backward(floats(tensors[i + 3]), gradients.heights.data(), gradients.widths.data(), num_levels,
                                  floats(tensors[i]), ints(tensors[i + 1]), shapes[i][0], shapes[i][1], shapes[i + 3][1],
                                  geometry[0], geometry[1], geometry[2] != 0, i > 0, gradients.data.data());
    }
  });
}

// x (B, C, H, W), weight (K, C, 3, 3), bias (K) -> (B, K, H, W), or of stride 2 where the output has half the size.
int Convolution(int, void** tensors, int*, int64_t** shapes, const char**, void*, void*) {
  return status_of(__func__, [&] {
    const int64_t B = shapes[0][0], C = shapes[0][1], K = shapes[1][0], H = shapes[0][2], W = shapes[0][3];
    const EverySecond grid(B * K, H, W, shapes[3]);
    kernels::winograd_conv3x3(floats(tensors[0]), floats(tensors[1]), floats(tensors[2]), grid.room(floats(tensors[3])), B, C,
                              K, H, W, false);
    grid.pick(floats(tensors[3]));
  });
}

// The gradient of Convolution's output, weight (K, C, 3, 3), a tensor (H, W) of which only the shape counts -> the gradient of
// x (B, C, H, W).
int ConvolutionInputGrad(int, void** tensors, int*, int64_t** shapes, const char**, void*, void*) {
  return status_of(__func__, [&] {
    const int64_t B = shapes[0][0], C = shapes[1][1], K = shapes[1][0], H = shapes[2][0], W = shapes[2][1];
    const EverySecond grid(B * K, H, W, shapes[0]);
    kernels::winograd_conv3x3(grid.spread(floats(tensors[0])), floats(tensors[1]), nullptr, floats(tensors[3]), B, C, K, H, W,
                              true);
  });
}

// x (B, C, H, W), the gradient of Convolution's output -> the gradient of the weight (K, C, 3, 3).
int ConvolutionWeightGrad(int, void** tensors, int*, int64_t** shapes, const char**, void*, void*) {
  return status_of(__func__, [&] {
    const int64_t B = shapes[0][0], C = shapes[0][1], K = shapes[1][1], H = shapes[0][2], W = shapes[0][3];
    const EverySecond grid(B * K, H, W, shapes[1]);
    kernels::winograd_conv3x3_weight_gradient(floats(tensors[0]), grid.spread(floats(tensors[1])), floats(tensors[2]), B, C, K,
                                              H, W);
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

// image uint8 (B, H, W, 3), valid_size (B, 2), tables (3, 256), channels (3) -> (B, 3, H, W).
int Preprocess(int, void** tensors, int*, int64_t** shapes, const char**, void*, void*) {
  return status_of(__func__, [&] {
    kernels::preprocess(static_cast<uint8_t*>(tensors[0]), floats(tensors[1]), floats(tensors[2]), ints(tensors[3]),
                        shapes[0][0], shapes[0][1], shapes[0][2], floats(tensors[4]));
  });
}

// boxes (B, N, 4), ends of the groups (groups), threshold (1) -> keep (B, N).
int NMS(int, void** tensors, int*, int64_t** shapes, const char**, void*, void*) {
  return status_of(__func__, [&] {
    kernels::nms(floats(tensors[0]), ints(tensors[1]), shapes[0][0], shapes[0][1], shapes[1][0], floats(tensors[2])[0],
                 static_cast<bool*>(tensors[3]));
  });
}

// x (B, C, h, w), a tensor (H, W) of which only the shape counts -> (B, C, H, W).
int ResizeBilinear(int, void** tensors, int*, int64_t** shapes, const char**, void*, void*) {
  return status_of(__func__, [&] {
    kernels::resize_bilinear(floats(tensors[0]), shapes[0][0] * shapes[0][1], shapes[0][2], shapes[0][3], shapes[1][0],
                             shapes[1][1], floats(tensors[2]));
  });
}

// The gradient of ResizeBilinear's output (B, C, H, W), a tensor (h, w) of which only the shape counts -> that of x.
int ResizeBilinearGrad(int, void** tensors, int*, int64_t** shapes, const char**, void*, void*) {
  return status_of(__func__, [&] {
    kernels::resize_bilinear_backward(floats(tensors[0]), shapes[0][0] * shapes[0][1], shapes[1][0], shapes[1][1],
                                      shapes[0][2], shapes[0][3], floats(tensors[2]));
  });
}

}  // extern "C"
