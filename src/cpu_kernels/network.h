// A network of convolutions that runs as one operator: its layers pass each other features with channels last, in the type that
// the products are computed in. src/cpu_kernels/network.py writes the program, in the same order.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "bf16.h"
#include "crew.h"
#include "entry_point.h"
#include "layers.h"
#include "onednn.h"

namespace network {

// Inputs are float planes (B, C, H, W), or rows (M, ...) of the type that the products are computed in.
enum Kind : int32_t { kFromPlanes, kFromRows, kConvolution, kMaxPool, kSubsample, kMerge, kBatchNorm };
enum Form : int32_t { kNative, kRows, kPlanes };

// A layer, whose result is the value of the same number.
struct Layer {
  int32_t kind;
  int32_t source;  // a value, or of the first kinds an input
  int32_t addend;  // a value that is added to a convolution's or BatchNorm's result, or the coarse one of a merge; below 0: none
  int32_t weight;  // of a convolution or BatchNorm
  int32_t relu;    // of a convolution or BatchNorm, as its last
  int32_t wide;    // whether the result is float
  int32_t kernel_h, kernel_w, stride, dilation, groups;
  int32_t same;  // padding as TensorFlow's SAME, else:
  int32_t top, bottom, left, right;
  int32_t bilinear;  // of a merge
  int32_t c;         // channels of the result
};

// A layer for inputs of known sizes.
struct Step : Layer {
  int64_t b, h, w, pad_top, pad_left;
};

// The parameters of a convolution: weight (K, C / groups, h, w) and nothing, a bias (K), or a BatchNorm's gamma, beta, mean and
// variance (K), which the convolution takes in. Those of a BatchNorm with the statistics of the batch: gamma, beta, as kind 1.
struct Weight {
  int32_t kind;           // 0, 1, 2
  int32_t trainable;
  int32_t parameters[5];  // their numbers; below 0: none
};

// Of a BatchNorm.
struct Constants {
  float eps, momentum;
};

struct Output {
  int32_t value;
  int32_t form;  // as it is; float rows (B, H, W, C); float planes (B, C, H, W)
  int32_t differentiable;
};

struct Program {
  onednn::DataType type;
  int inputs;
  bool input_gradients;
  std::vector<Step> steps;
  std::vector<Weight> weights;
  std::vector<Output> outputs;
  std::vector<int32_t> saved;  // values that the gradient needs
  int statistics = 0;          // two for each kBatchNorm

  // `sizes` (inputs, 4): shapes of the inputs, filled up with 1.
  Program(const int32_t* data, const int32_t* sizes);
  layers::Size size(int value) const { return {steps[value].b, steps[value].c, steps[value].h, steps[value].w}; }
  size_t bytes(int value) const { return size(value).count() * (type == onednn::kF32 || steps[value].wide ? 4 : 2); }
  bool is_product(const Step& step) const;
  onednn::ConvolutionShape shape(const Step& step) const;
  bool is_winograd(const Step& step) const;
};

inline Buffer borrow(void* data) { return Buffer(data, [](void*) {}); }

// A convolution's parameters as MindSpore holds them, and the factors that a BatchNorm gives the rows of its weight.
struct Parameters {
  const float* weight;
  std::vector<float> scale, bias;  // empty: none

  Parameters(const Weight& weight, int64_t channels, void** parameters, float eps);
  // The weight (rows, columns) times the scale.
  Buffer scaled(Crew& crew, int64_t rows, int64_t columns) const;
};

// The scaled weight from its layout to another, which a primitive wants. With `keep`, for weights that are not trained, the
// result is kept for the next call: it is made anew when the numbers have changed, as between two evaluations of a training.
Buffer pack(Crew& crew, const Parameters& parameters, int64_t rows, int64_t columns, const onednn::Layout& from,
            const onednn::Layout& to, bool keep);

}  // namespace network
