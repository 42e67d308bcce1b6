#include "network.h"

#include <cmath>
#include <map>
#include <mutex>

#include "winograd.h"

using onednn::kBf16;
using onednn::kF32;
using onednn::Layout;

namespace network {

namespace {

// Returns the output size of a convolution or pooling along one axis, and sets the padding before the first cell.
int64_t output_size(const Layer& layer, int64_t side, int64_t kernel, int64_t before, int64_t after, int64_t* pad) {
  const int64_t extent = (kernel - 1) * layer.dilation + 1;
  if (layer.same) {
    const int64_t total = std::max<int64_t>(((side + layer.stride - 1) / layer.stride - 1) * layer.stride + extent - side, 0);
    before = total / 2;
    after = total - before;
  }
  *pad = before;
  return (side + before + after - extent) / layer.stride + 1;
}

}  // namespace

KernelGraph::KernelGraph(const int32_t* data, const int32_t* sizes) {
  const auto take = [&](auto& list) {
    typedef typename std::decay<decltype(list[0])>::type Row;
    list.resize(*data++);
    std::memcpy(list.data(), data, list.size() * sizeof(Row));
    data += list.size() * sizeof(Row) / sizeof(int32_t);
  };
  type = static_cast<onednn::DataType>(*data++);
  inputs = *data++;
  input_gradients = *data++ != 0;
  std::vector<Layer> layers;
  take(layers);
  take(weights);
  take(outputs);
  take(saved);
  for (const Layer& layer : layers) {
    Step step{layer, 0, 0, 0, 0, 0};
    if (layer.kind == kFromPlanes || layer.kind == kFromRows) {
      const int32_t* size = sizes + 4 * layer.source;
      const bool rows = layer.kind == kFromRows;
      step.b = rows ? 1 : size[0];
      step.h = rows ? 1 : size[2];
      step.w = rows ? size[0] : size[3];
    } else {
      const Step& source = steps[layer.source];
      step.b = source.b;
      step.h = output_size(layer, source.h, layer.kernel_h, layer.top, layer.bottom, &step.pad_top);
      step.w = output_size(layer, source.w, layer.kernel_w, layer.left, layer.right, &step.pad_left);
    }
    steps.push_back(step);
    if (layer.kind == kBatchNorm) statistics += 2;
  }
}

bool KernelGraph::is_product(const Step& step) const {
  const Step& source = steps[step.source];
  return step.kernel_h * step.kernel_w == 1 && step.stride == 1 && step.groups == 1 && step.h == source.h && step.w == source.w;
}

onednn::ConvolutionShape KernelGraph::shape(const Step& step) const {
  const Step& source = steps[step.source];
  return {step.b, source.c, source.h, source.w, step.c, step.kernel_h, step.kernel_w, step.h, step.w, step.stride, step.pad_top,
          step.pad_left, step.dilation, step.groups};
}

bool KernelGraph::is_winograd(const Step& step) const { return type == kF32 && winograd::pays(shape(step)); }

Parameters::Parameters(const Weight& w, int64_t channels, void** parameters, float eps)
    : weight(floats(parameters[w.parameters[0]])) {
  if (w.kind == 0) return;
  bias.resize(channels);
  if (w.kind == 1) {
    std::copy_n(floats(parameters[w.parameters[1]]), channels, bias.data());
    return;
  }
  scale.resize(channels);
  const auto of = [&](int i) { return floats(parameters[w.parameters[i]]); };
  const float *gamma = of(1), *beta = of(2), *mean = of(3), *variance = of(4);
  for (int64_t k = 0; k < channels; ++k) {
    scale[k] = gamma[k] / std::sqrt(variance[k] + eps);
    bias[k] = beta[k] - mean[k] * scale[k];
  }
}

Buffer Parameters::scaled(Crew& crew, int64_t rows, int64_t columns) const {
  if (scale.empty()) return borrow(const_cast<float*>(weight));
  const Buffer scaled = allocate(rows * columns * sizeof(float));
  float* out = static_cast<float*>(scaled.get());
  crew.share_range(rows, 16, [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r) {
      for (int64_t c = 0; c < columns; ++c) out[r * columns + c] = weight[r * columns + c] * scale[r];
    }
  });
  return scaled;
}

namespace {

// Returns a hash of the numbers, which almost certainly changes with them: sums, and sums of sums, as in Fletcher's checksum.
uint64_t fingerprint(Crew& crew, const float* data, int64_t count) {
  typedef uint32_t Words __attribute__((vector_size(64)));
  constexpr int64_t kPiece = 1 << 16, kLanes = 16;
  constexpr uint64_t kFactor = 0x9e3779b97f4a7c15;
  std::vector<uint64_t> parts(ceil_div(count, kPiece));
  crew.share_range(count, kPiece, [&](int64_t begin, int64_t end) {
    Words sum = {}, sum_of_sums = {}, words = {};
    int64_t i = begin;
    for (; i + kLanes <= end; i += kLanes) {
      std::memcpy(&words, data + i, sizeof words);
      sum += words;
      sum_of_sums += sum;
    }
    words = Words{};
    std::memcpy(&words, data + i, (end - i) * sizeof(float));
    sum += words;
    uint64_t part = 0;
    for (int j = 0; j < kLanes; ++j) part = (part ^ sum[j] ^ static_cast<uint64_t>(sum_of_sums[j]) << 32) * kFactor;
    parts[begin / kPiece] = part;
  });
  uint64_t all = count;
  for (const uint64_t part : parts) all = (all ^ part ^ all >> 31) * kFactor;
  return all;
}

}  // namespace

Buffer pack(Crew& crew, const Parameters& parameters, int64_t rows, int64_t columns, const Layout& from,
            const Layout& to, bool keep) {
  struct Kept {
    Layout layout;
    uint64_t weight, scale;
    Buffer packed;
  };
  // One entry per weight, whatever the image sizes, so that memory does not grow with the number of sizes.
  static auto& all = *new std::map<const void*, Kept>;  // never destroyed, see onednn.cc
  static auto& mutex = *new std::mutex;
  constexpr size_t kMost = 1000;  // more than the weights of one network, and a limit for programs that build many networks

  const auto make = [&] {
    const Buffer packed = allocate(to.bytes());
    onednn::reorder(crew, from, parameters.scaled(crew, rows, columns).get(), to, packed.get());
    return packed;
  };
  if (!keep) return make();
  const uint64_t weight = fingerprint(crew, parameters.weight, rows * columns);
  const uint64_t scale = fingerprint(crew, parameters.scale.data(), parameters.scale.size());
  const std::lock_guard<std::mutex> lock(mutex);
  if (all.size() > kMost) all.clear();
  Kept& kept = all[parameters.weight];
  if (kept.packed == nullptr || !(kept.layout == to) || kept.weight != weight || kept.scale != scale) {
    kept = {to, weight, scale, make()};
  }
  return kept.packed;
}

namespace {

// The forward pass. It computes the values in order and frees each value after its last use.
template <class T>
class Forward {
 public:
  Forward(Crew& crew, const KernelGraph& graph, const Constants* constants, void** inputs, void** parameters, void** outputs)
      : crew_(crew), graph_(graph), constants_(constants), inputs_(inputs), parameters_(parameters),
        statistics_(outputs - graph.statistics), new_statistics_(outputs + graph.outputs.size()),
        values_(graph.steps.size()) {
    for (size_t i = 0; i < graph.outputs.size(); ++i) {
      const Output& output = graph.outputs[i];
      if (is_plain(output)) values_[output.value] = borrow(outputs[i]);
    }
    for (size_t i = 0; i < graph.saved.size(); ++i) {
      values_[graph.saved[i]] = borrow(new_statistics_[graph.statistics + i]);
    }
  }

  void run(void** outputs) {
    std::vector<int> last(values_.size(), 0);
    for (size_t i = 0; i < values_.size(); ++i) {
      const Step& step = graph_.steps[i];
      if (step.kind >= kConvolution) last[step.source] = i;
      if (step.addend >= 0) last[step.addend] = i;
    }
    for (const Output& output : graph_.outputs) last[output.value] = values_.size();
    for (size_t i = 0; i < values_.size(); ++i) {
      if (values_[i] == nullptr && graph_.steps[i].kind == kFromRows) {
        values_[i] = borrow(inputs_[graph_.steps[i].source]);
      } else {
        if (values_[i] == nullptr) values_[i] = allocate(graph_.bytes(i));
        compute(i);
      }
      for (size_t j = 0; j <= i; ++j) {
        if (last[j] <= static_cast<int>(i)) values_[j] = nullptr;
      }
    }
    for (size_t i = 0; i < graph_.outputs.size(); ++i) write(graph_.outputs[i], outputs[i]);
  }

 private:
  // Whether an output is the stored value itself.
  bool is_plain(const Output& output) const {
    return output.form == kNative || (output.form == kRows && (graph_.steps[output.value].wide || graph_.type == kF32));
  }

  const T* value(int i) const { return static_cast<const T*>(values_[i].get()); }

  void compute(int i) {
    const Step& step = graph_.steps[i];
    T* out = static_cast<T*>(values_[i].get());
    const layers::Size to = graph_.size(i);
    switch (step.kind) {
      case kFromPlanes:
        return onednn::reorder(crew_, Layout::dense(kF32, {to.b, to.c, to.h, to.w}), inputs_[step.source],
                               Layout::channels_last(graph_.type, to.b, to.c, to.h, to.w), out);
      case kFromRows: return layers::copy(crew_, to.count(), static_cast<const T*>(inputs_[step.source]), out);
      case kConvolution: return convolve(step, to, out);
      case kMaxPool:
        return layers::max_pool(crew_, graph_.size(step.source), to, step.pad_top, step.pad_left, value(step.source), out);
      case kSubsample: return layers::subsample(crew_, graph_.size(step.source), to, value(step.source), out);
      case kBatchNorm: return batch_norm(step, to, out);
      default:
        return layers::merge(crew_, graph_.size(step.addend), to, step.bilinear, value(step.addend), value(step.source), out);
    }
  }

  void convolve(const Step& step, const layers::Size& to, void* out) {
    const Parameters parameters(graph_.weights[step.weight], to.c, parameters_, constants_[step.weight].eps);
    const onednn::Epilogue epilogue{!parameters.bias.empty(), step.addend >= 0, step.relu != 0};
    const onednn::DataType type = graph_.type, out_type = step.wide ? kF32 : type;
    const onednn::ConvolutionShape shape = graph_.shape(step);
    if (graph_.is_winograd(step)) {
      const Buffer weight = parameters.scaled(crew_, to.c, shape.columns());
      const void* addend = epilogue.add ? values_[step.addend].get() : nullptr;
      const float* bias = epilogue.bias ? parameters.bias.data() : nullptr;
      return winograd::convolve(crew_, shape, floats(values_[step.source].get()), floats(weight.get()), bias,
                                static_cast<const float*>(addend), epilogue.relu, floats(out));
    }
    const bool is_product = graph_.is_product(step);
    const onednn::PrimitivePtr primitive = is_product ? onednn::product(type, out_type, to.rows(), shape.c, to.c, epilogue)
                                                      : onednn::convolution(type, out_type, shape, epilogue);
    const Layout plain = is_product ? Layout::strided(kF32, {shape.c, to.c}, {1, shape.c})
                                    : Layout::dense(kF32, shape.weight_dims());
    const bool keep = !graph_.weights[step.weight].trainable;
    const Buffer packed = pack(crew_, parameters, to.c, shape.columns(), plain, primitive->layout(onednn::kWeights), keep);
    std::vector<onednn::Argument> arguments = {
        {onednn::kSource, value(step.source)}, {onednn::kWeights, packed.get()}, {onednn::kDestination, out}};
    if (epilogue.bias) {
      const Layout row = is_product ? Layout::dense(kF32, {1, to.c}) : Layout::dense(kF32, {to.c});
      arguments.push_back({onednn::kBias, parameters.bias.data(), row});
    }
    if (epilogue.add) arguments.push_back({onednn::kAddend, value(step.addend), primitive->layout(onednn::kDestination)});
    primitive->run(crew_, arguments);
  }

  // The BatchNorms are computed in the order of their statistics.
  void batch_norm(const Step& step, const layers::Size& to, T* out) {
    const int32_t* parameters = graph_.weights[step.weight].parameters;
    const Constants constants = constants_[step.weight];
    const T* addend = step.addend >= 0 ? value(step.addend) : nullptr;
    const layers::Moments moments(crew_, to.rows(), to.c, value(step.source));
    layers::batch_norm(crew_, to.rows(), to.c, value(step.source), moments, constants.eps, floats(parameters_[parameters[0]]),
                       floats(parameters_[parameters[1]]), addend, step.relu != 0, out);
    const auto move = [&](const std::vector<float>& batch, float factor) {
      const float* moving = floats(*statistics_++);
      float* moved = floats(*new_statistics_++);
      for (int64_t c = 0; c < to.c; ++c) moved[c] = moving[c] + constants.momentum * (batch[c] * factor - moving[c]);
    };
    move(moments.mean, 1);
    move(moments.variance, static_cast<float>(to.rows()) / std::max<int64_t>(to.rows() - 1, 1));  // unbiased, as in MindSpore
  }

  void write(const Output& output, void* out) {
    const auto* computed = static_cast<const char*>(values_[output.value].get());
    if (computed == out) return;
    // The value is already stored in another output or saved value: copy it.
    if (is_plain(output)) return layers::copy(crew_, graph_.bytes(output.value), computed, static_cast<char*>(out));
    const layers::Size size = graph_.size(output.value);
    if (output.form == kRows) return layers::cast(crew_, size.count(), value(output.value), floats(out));
    onednn::reorder(crew_, Layout::channels_last(graph_.type, size.b, size.c, size.h, size.w), value(output.value),
                    Layout::dense(kF32, {size.b, size.c, size.h, size.w}), out);
  }

  Crew& crew_;
  const KernelGraph& graph_;
  const Constants* constants_;
  void **inputs_, **parameters_, **statistics_, **new_statistics_;
  std::vector<Buffer> values_;
};

}  // namespace
}  // namespace network

// Inputs: graph, sizes of the inputs, constants of each weight, inputs, parameters, moving statistics. Outputs: outputs of the
// graph, new statistics, saved values.
extern "C" int Network(int count, void** tensors, int*, int64_t**, const char**, void*, void*) {
  return status_of(__func__, [&] {
    const network::KernelGraph graph(ints(tensors[0]), ints(tensors[1]));
    void** inputs = tensors + 3;
    void** outputs = tensors + count - graph.outputs.size() - graph.statistics - graph.saved.size();
    Crew::run([&](Crew& crew) {
      const auto run = [&](auto example) {
        network::Forward<decltype(example)> forward(crew, graph, static_cast<const network::Constants*>(tensors[2]), inputs,
                                                    inputs + graph.inputs, outputs);
        forward.run(outputs);
      };
      if (graph.type == kBf16) run(Bf16{});
      else run(0.f);
    });
  });
}
