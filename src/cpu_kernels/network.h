// A network of convolutions that runs as one operator. Layers exchange features with channels last, in the type of the products.
// src/cpu_kernels/kernel_graph.py writes the graph with its fields in the same order.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "crew.h"
#include "entry_point.h"
#include "layers.h"
#include "onednn.h"

namespace network {

// Inputs are float planes (B, C, H, W), or rows (M, ...) in the type of the products.
enum Kind : int32_t { kFromPlanes, kFromRows, kConvolution, kMaxPool, kSubsample, kMerge, kBatchNorm };
enum Form : int32_t { kNative, kRows, kPlanes };

// A layer. Its index is also the index of its result among the values.
struct Layer {
  int32_t kind;
  int32_t source;  // index of a value; index of an input for kFromPlanes and kFromRows
  int32_t addend;  // value added to the result of a convolution or BatchNorm, or the coarse input of a merge; below 0: none
  int32_t weight;  // index, for a convolution or BatchNorm
  int32_t relu;    // whether a convolution or BatchNorm ends with ReLU
  int32_t wide;    // whether the result is float
  int32_t kernel_h, kernel_w, stride, dilation, groups;
  int32_t same;  // TensorFlow's SAME padding instead of:
  int32_t top, bottom, left, right;
  int32_t bilinear;  // for a merge
  int32_t c;         // channels of the result
  int32_t needed;    // whether its gradient is needed
};

// A layer with the sizes that belong to known input sizes.
struct Step : Layer {
  int64_t b, h, w, pad_top, pad_left;
};

// The parameters of a convolution: weight (K, C / groups, h, w), alone, with a bias (K), or with gamma, beta, mean and variance
// (K) of a BatchNorm that is fused into the convolution. A BatchNorm with batch statistics has gamma and beta, with kind 1.
struct Weight {
  int32_t kind;           // 0, 1, 2
  int32_t trainable;
  int32_t parameters[5];  // their indices; below 0: none
};

// Constants of a BatchNorm.
struct Constants {
  float eps, momentum;
};

struct Output {
  int32_t value;
  int32_t form;  // as stored; float rows (B, H, W, C); float planes (B, C, H, W)
  int32_t differentiable;
};

struct KernelGraph {
  onednn::DataType type;
  int inputs;
  bool input_gradients;
  std::vector<Step> steps;
  std::vector<Weight> weights;
  std::vector<Output> outputs;
  std::vector<int32_t> saved;  // values that the gradient needs
  int statistics = 0;          // two for each kBatchNorm

  // `sizes` (inputs, 4): shapes of the inputs, padded with 1.
  KernelGraph(const int32_t* data, const int32_t* sizes);
  layers::Size size(int value) const { return {steps[value].b, steps[value].c, steps[value].h, steps[value].w}; }
  size_t bytes(int value) const { return size(value).count() * (type == onednn::kF32 || steps[value].wide ? 4 : 2); }
  bool is_product(const Step& step) const;
  onednn::ConvolutionShape shape(const Step& step) const;
  bool is_winograd(const Step& step) const;
};

inline Buffer borrow(void* data) { return Buffer(data, [](void*) {}); }

// A convolution's parameters in MindSpore's layout, and the factors by which a BatchNorm scales the rows of the weight.
struct Parameters {
  const float* weight;
  std::vector<float> scale, bias;  // empty: none

  Parameters(const Weight& weight, int64_t channels, void** parameters, float eps);
  // The weight (rows, columns) times the scale.
  Buffer scaled(Crew& crew, int64_t rows, int64_t columns) const;
};

// Copies the scaled weight to the layout that a primitive needs. With `keep`, for weights that are not trained, the result is
// kept for the next call. It is computed again if the numbers have changed, for example between two evaluations during training.
Buffer pack(Crew& crew, const Parameters& parameters, int64_t rows, int64_t columns, const onednn::Layout& from,
            const onednn::Layout& to, bool keep);

}  // namespace network
