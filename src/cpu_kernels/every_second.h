// Convolutions of stride 2 by those of stride 1.
#pragma once

#include <algorithm>
#include <cstdint>
#include <memory>

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
