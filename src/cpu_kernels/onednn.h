// The part of oneDNN's C interface (version 3, https://uxlfoundation.github.io/oneDNN) that the kernels use. MindSpore contains
// the library without its headers. The names below are the library's names without the prefix dnnl_.
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

// Runs the parts of a primitive. Its memory layout is that of dnnl::threadpool_interop::threadpool_iface.
struct ThreadPool {
  virtual int get_num_threads() const = 0;
  virtual bool get_in_parallel() const = 0;
  virtual void parallel_for(int count, const std::function<void(int, int)>& body) = 0;
  virtual uint64_t get_flags() const = 0;
  virtual void wait() {}  // only newer versions have it; older ones never call this entry of the table
  virtual ~ThreadPool() {}
};

// Number of parts into which primitives are divided. It depends on the machine, not on the processors available to this process,
// so that sums are split equally on any number of processors. Each part of some primitives takes megabytes of memory.
int parts();

// The shape, type and strides of a tensor. The library may choose the strides.
class Layout {
 public:
  // Dense in the order of `dims`, or with the given strides in elements.
  static Layout dense(DataType type, const std::vector<int64_t>& dims);
  static Layout strided(DataType type, const std::vector<int64_t>& dims, const std::vector<int64_t>& strides);
  static Layout any(DataType type, const std::vector<int64_t>& dims);
  // Shape (B, C, H, W), channels last in memory.
  static Layout channels_last(DataType type, int64_t b, int64_t c, int64_t h, int64_t w);

  Layout() = default;
  explicit Layout(const void* borrowed);  // belongs to a primitive that outlives this layout
  bool operator==(const Layout& other) const;
  size_t bytes() const;
  const void* get() const { return desc_.get(); }

 private:
  static Layout own(void* desc);

  std::shared_ptr<const void> desc_;
};

enum ArgumentId : int {
  kSource = 1, kDestination = 17, kWeights = 33, kBias = 41, kSourceGradient = 129, kDestinationGradient = 145,
  kWeightsGradient = 161, kAddend = 32768 | 2,
};

struct Argument {
  ArgumentId id;
  const void* data;
  Layout layout = {};  // default: the primitive's
};

// A computation prepared for tensors with fixed layouts.
class Primitive {
 public:
  explicit Primitive(void* desc);  // takes ownership of the descriptor
  ~Primitive();
  Primitive(const Primitive&) = delete;
  // The layout of an argument, chosen by the library or given by the caller.
  Layout layout(ArgumentId id) const;
  void run(ThreadPool& pool, const std::vector<Argument>& arguments) const;

 private:
  void* desc_;
  void* primitive_ = nullptr;
};
using PrimitivePtr = std::shared_ptr<const Primitive>;

// Operations after a product: + bias, + a tensor of the result's shape, ReLU.
struct Epilogue {
  bool bias = false, add = false, relu = false;
};

struct ConvolutionShape {
  int64_t b, c, h, w, k, kernel_h, kernel_w, out_h, out_w, stride, pad_top, pad_left, dilation, groups;

  int64_t pad_bottom() const { return (out_h - 1) * stride + (kernel_h - 1) * dilation + 1 - h - pad_top; }
  int64_t pad_right() const { return (out_w - 1) * stride + (kernel_w - 1) * dilation + 1 - w - pad_left; }
  // Shape of the weights (K, C / groups, h, w) for the library, which needs an additional dimension if there are several groups.
  std::vector<int64_t> weight_dims() const;
  int64_t columns() const { return c / groups * kernel_h * kernel_w; }  // of the weights as a matrix of K rows
};

// Features have channels last and type `type`, weights the layout `layout(kWeights)`, the result type `out`.
PrimitivePtr convolution(DataType type, DataType out, const ConvolutionShape& shape, Epilogue epilogue);
PrimitivePtr convolution_input_gradient(DataType type, const ConvolutionShape& shape);
PrimitivePtr convolution_weight_gradient(DataType type, const ConvolutionShape& shape);
// (M, K) times (K, N) = (M, N). The left matrix has dense rows; with `transposed` it is transposed in memory. The right matrix
// has the layout that the library chooses; with `plain` it has dense rows.
PrimitivePtr product(DataType type, DataType out, int64_t m, int64_t k, int64_t n, Epilogue epilogue, bool transposed = false,
                     bool plain = false);
// Copies between layouts and between types.
void reorder(ThreadPool& pool, const Layout& from, const void* source, const Layout& to, void* destination);

}  // namespace onednn
