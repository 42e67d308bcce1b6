// The part of oneDNN's C interface (version 3, https://uxlfoundation.github.io/oneDNN) that the kernels use. MindSpore brings
// the library without its headers; the names below are the library's own without the prefix dnnl_.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <initializer_list>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

namespace onednn {

enum DataType : int { kBf16 = 2, kF32 = 3 };

// What runs the parts of one primitive, laid out as dnnl::threadpool_interop::threadpool_iface.
struct ThreadPool {
  virtual int get_num_threads() const = 0;
  virtual bool get_in_parallel() const = 0;
  virtual void parallel_for(int count, const std::function<void(int, int)>& body) = 0;
  virtual uint64_t get_flags() const = 0;
  virtual void wait() {}  // newer versions have it; older ones never call what stands in its place
  virtual ~ThreadPool() {}
};

// Number of parts that primitives are made for. It depends on the machine, not on the processors that this process may use, so
// that sums are cut alike on any number of them; each part of some primitives takes megabytes of memory.
int parts();

// The shape, type and strides of a tensor, or of one whose layout the library chooses.
class Layout {
 public:
  // Dense, in the order of `dims`, or with the given strides in elements.
  static Layout dense(DataType type, const std::vector<int64_t>& dims);
  static Layout strided(DataType type, const std::vector<int64_t>& dims, const std::vector<int64_t>& strides);
  static Layout any(DataType type, const std::vector<int64_t>& dims);
  // Shape (B, C, H, W) with channels last in memory.
  static Layout channels_last(DataType type, int64_t b, int64_t c, int64_t h, int64_t w);

  Layout() = default;
  explicit Layout(const void* borrowed);  // of a primitive, which outlives it
  bool operator==(const Layout& other) const;
  size_t bytes() const;
  const void* get() const { return desc_.get(); }

 private:
  static Layout own(void* desc);

  std::shared_ptr<const void> desc_;
};

struct Argument {
  int id;
  Layout layout;
  const void* data;
};

enum ArgumentId : int {
  kSource = 1, kDestination = 17, kWeights = 33, kBias = 41, kSourceGradient = 129, kDestinationGradient = 145,
  kWeightsGradient = 161, kAddend = 32768 | 2,
};

// A computation that was prepared for tensors of fixed layouts.
class Primitive {
 public:
  explicit Primitive(void* desc);  // takes the descriptor
  ~Primitive();
  Primitive(const Primitive&) = delete;
  // What the library chose, or was given, for an argument.
  Layout layout(ArgumentId id) const;
  void run(ThreadPool& pool, const std::vector<Argument>& arguments) const;

 private:
  void* desc_;
  void* primitive_ = nullptr;
};
using PrimitivePtr = std::shared_ptr<const Primitive>;

// What is computed after a product: + bias, + a tensor like the result, ReLU.
struct Epilogue {
  bool bias = false, add = false, relu = false;
};

struct ConvolutionShape {
  int64_t b, c, h, w, k, kernel_h, kernel_w, out_h, out_w, stride, pad_top, pad_left, dilation, groups;

  int64_t pad_bottom() const { return (out_h - 1) * stride + (kernel_h - 1) * dilation + 1 - h - pad_top; }
  int64_t pad_right() const { return (out_w - 1) * stride + (kernel_w - 1) * dilation + 1 - w - pad_left; }
  // Of the weights (K, C / groups, h, w), as the library wants them: with a dimension for the groups where there are any.
  std::vector<int64_t> weight_dims() const;
};

// Features are channels-last of type `type`; weights as `layout(kWeights)` says; the result of type `out`.
PrimitivePtr convolution(DataType type, DataType out, const ConvolutionShape& shape, Epilogue epilogue);
PrimitivePtr convolution_input_gradient(DataType type, const ConvolutionShape& shape);
PrimitivePtr convolution_weight_gradient(DataType type, const ConvolutionShape& shape);
// (M, K) times (K, N) = (M, N): dense rows, the left one transposed in memory with `transposed`; the right one in the layout that
// the library chooses, or dense rows with `plain`.
PrimitivePtr product(DataType type, DataType out, int64_t m, int64_t k, int64_t n, Epilogue epilogue, bool transposed = false,
                     bool plain = false);
// Copies between layouts and types.
void reorder(ThreadPool& pool, const Layout& from, const void* source, const Layout& to, void* destination);

}  // namespace onednn
