// The backward pass of a network.
#include "network.h"
#include "winograd.h"

using onednn::kBf16;
using onednn::kF32;
using onednn::Layout;

namespace network {
namespace {

template <class T>
class Backward {
 public:
  Backward(Crew& crew, const KernelGraph& graph, const Constants* constants, void** parameters, void** saved,
           void** weight_gradients)
      : crew_(crew), graph_(graph), constants_(constants), parameters_(parameters), weight_gradients_(weight_gradients),
        parts_(graph.steps.size()), values_(graph.steps.size()) {
    for (size_t i = 0; i < graph.saved.size(); ++i) values_[graph.saved[i]] = static_cast<const T*>(saved[i]);
  }

  // `gradients`: of the differentiable outputs, in order. The gradients of the inputs are written to `input_gradients`.
  void run(void** gradients, void** input_gradients) {
    for (const Output& output : graph_.outputs) {
      if (output.differentiable) receive(output, *gradients++);
    }
    for (int i = static_cast<int>(graph_.steps.size()) - 1; i >= 0; --i) {
      if (needed(i)) backward(i, input_gradients);
      parts_[i].clear();
    }
  }

 private:
  struct Part {
    Buffer data;
    bool wide;
  };

  void receive(const Output& output, void* gradient) {
    if (output.form != kPlanes) return parts_[output.value].push_back({borrow(gradient), output.form == kRows});
    const layers::Size size = graph_.size(output.value);
    const Buffer rows = allocate(size.count() * sizeof(T));
    onednn::reorder(crew_, Layout::dense(kF32, {size.b, size.c, size.h, size.w}), gradient,
                    Layout::channels_last(graph_.type, size.b, size.c, size.h, size.w), rows.get());
    parts_[output.value].push_back({rows, false});
  }

  // Allocates memory for one more term of the gradient of a value. The terms are added later.
  template <class U>
  U* part_of(int value) {
    const Buffer data = allocate(graph_.size(value).count() * sizeof(U));
    parts_[value].push_back({data, std::is_same<U, float>::value});
    return static_cast<U*>(data.get());
  }

  bool needed(int value) const { return graph_.steps[value].needed != 0; }

  const T* saved(int value) const {
    if (values_[value] == nullptr) throw std::logic_error("a value that the gradient needs was not saved");
    return values_[value];
  }

  void backward(int i, void** input_gradients) {
    const Step& step = graph_.steps[i];
    const layers::Size to = graph_.size(i);
    if (step.kind < kConvolution) return write_input(i, input_gradients[step.source]);
    if (parts_[i].empty()) return zero_weights(step);
    const T* gradient = total(i, step.relu ? saved(i) : nullptr);
    const layers::Size from = graph_.size(step.source);
    const bool onwards = needed(step.source);
    switch (step.kind) {
      case kConvolution:
        if (graph_.weights[step.weight].trainable) weight_gradient(step, to, gradient);
        if (onwards) input_gradient(step, to, gradient, part_of<T>(step.source));
        if (step.addend >= 0 && needed(step.addend)) parts_[step.addend].push_back({total_, false});
        break;
      case kMaxPool:
        layers::max_pool_gradient(crew_, from, to, step.pad_top, step.pad_left, saved(step.source), gradient,
                                  part_of<float>(step.source));
        break;
      case kSubsample: layers::subsample_gradient(crew_, from, to, gradient, part_of<T>(step.source)); break;
      case kBatchNorm:
        batch_norm_gradient(step, to, gradient, part_of<T>(step.source));
        if (step.addend >= 0 && needed(step.addend)) parts_[step.addend].push_back({total_, false});
        break;
      default:
        if (onwards) parts_[step.source].push_back({total_, false});
        if (needed(step.addend)) {
          layers::merge_gradient(crew_, graph_.size(step.addend), to, step.bilinear, gradient, part_of<float>(step.addend));
        }
    }
    total_ = nullptr;
  }

  // Returns the sum of the terms of a gradient, after the gradient of the value's ReLU.
  const T* total(int i, const T* value) {
    const int64_t count = graph_.size(i).count();
    if (parts_[i].size() == 1 && value == nullptr && (sizeof(T) == sizeof(float) || !parts_[i][0].wide)) {
      total_ = parts_[i][0].data;
    } else {
      total_ = allocate(count * sizeof(T));
      std::vector<layers::Part> parts;
      for (const Part& part : parts_[i]) parts.push_back({part.data.get(), part.wide});
      layers::sum_parts(crew_, count, parts, value, static_cast<T*>(total_.get()));
    }
    return static_cast<const T*>(total_.get());
  }

  static const float* as_floats(const void* data) { return static_cast<const float*>(data); }

  // Returns the output for the gradient of a weight (0) or its bias (1). Trainable parameters have the first indices.
  float* gradient_of(const Weight& weight, int i) const { return floats(weight_gradients_[weight.parameters[i]]); }

  // Sets the gradients of a layer's parameters to 0, because no output depends on the layer.
  void zero_weights(const Step& step) {
    if (step.weight < 0 || !graph_.weights[step.weight].trainable) return;
    const Weight& weight = graph_.weights[step.weight];
    std::fill_n(gradient_of(weight, 0), step.kind == kBatchNorm ? step.c : step.c * graph_.shape(step).columns(), 0.f);
    if (weight.kind == 1) std::fill_n(gradient_of(weight, 1), step.c, 0.f);
  }

  void batch_norm_gradient(const Step& step, const layers::Size& to, const T* gradient, T* out) {
    const Weight& weight = graph_.weights[step.weight];
    const T* x = saved(step.source);
    const layers::Moments moments(crew_, to.rows(), to.c, x);
    std::vector<float> dgamma(to.c), dbeta(to.c);
    layers::batch_norm_gradient(crew_, to.rows(), to.c, x, moments, constants_[step.weight].eps,
                                floats(parameters_[weight.parameters[0]]), gradient, dgamma.data(), dbeta.data(), out);
    if (!weight.trainable) return;
    std::copy(dgamma.begin(), dgamma.end(), gradient_of(weight, 0));
    std::copy(dbeta.begin(), dbeta.end(), gradient_of(weight, 1));
  }

  void weight_gradient(const Step& step, const layers::Size& to, const T* gradient) {
    const Weight& weight = graph_.weights[step.weight];
    const onednn::ConvolutionShape shape = graph_.shape(step);
    float* out = gradient_of(weight, 0);
    if (graph_.is_product(step)) {
      const onednn::PrimitivePtr primitive =
          onednn::product(graph_.type, kF32, to.c, to.rows(), shape.c, {}, /*transposed=*/true, /*plain=*/true);
      primitive->run(crew_, {{onednn::kSource, gradient}, {onednn::kWeights, saved(step.source)}, {onednn::kDestination, out}});
    } else if (graph_.is_winograd(step)) {
      winograd::weight_gradient(crew_, shape, as_floats(saved(step.source)), as_floats(gradient), out);
    } else {
      const onednn::PrimitivePtr primitive = onednn::convolution_weight_gradient(graph_.type, shape);
      const Layout layout = primitive->layout(onednn::kWeightsGradient);
      const Buffer packed = allocate(layout.bytes());
      primitive->run(crew_, {{onednn::kSource, saved(step.source)}, {onednn::kDestinationGradient, gradient},
                             {onednn::kWeightsGradient, packed.get()}});
      onednn::reorder(crew_, layout, packed.get(), Layout::dense(kF32, shape.weight_dims()), out);
    }
    const Parameters parameters(weight, to.c, parameters_, constants_[step.weight].eps);
    if (!parameters.scale.empty()) {
      const int64_t width = shape.columns();
      for (int64_t k = 0; k < to.c; ++k) {
        for (int64_t c = 0; c < width; ++c) out[k * width + c] *= parameters.scale[k];
      }
    }
    if (weight.kind == 1) layers::column_sums(crew_, to.rows(), to.c, gradient, gradient_of(weight, 1));
  }

  void input_gradient(const Step& step, const layers::Size& to, const T* gradient, T* out) {
    const Parameters parameters(graph_.weights[step.weight], to.c, parameters_, constants_[step.weight].eps);
    const onednn::ConvolutionShape shape = graph_.shape(step);
    if (graph_.is_winograd(step)) {
      const Buffer weight = parameters.scaled(crew_, to.c, shape.columns());
      return winograd::input_gradient(crew_, shape, as_floats(gradient), floats(weight.get()), floats(out));
    }
    const bool is_product = graph_.is_product(step);
    const onednn::PrimitivePtr primitive =
        is_product ? onednn::product(graph_.type, graph_.type, to.rows(), to.c, shape.c, {})
                   : onednn::convolution_input_gradient(graph_.type, shape);
    const Layout plain = Layout::dense(kF32, is_product ? std::vector<int64_t>{to.c, shape.c} : shape.weight_dims());
    const Buffer packed = pack(crew_, parameters, to.c, shape.columns(), plain, primitive->layout(onednn::kWeights),
                               /*keep=*/false);
    const auto result = is_product ? onednn::kDestination : onednn::kSourceGradient;
    const auto source = is_product ? onednn::kSource : onednn::kDestinationGradient;
    primitive->run(crew_, {{source, gradient}, {onednn::kWeights, packed.get()}, {result, out}});
  }

  void write_input(int i, void* out) {
    const layers::Size size = graph_.size(i);
    if (parts_[i].empty()) {
      std::memset(out, 0, size.count() * (graph_.steps[i].kind == kFromRows ? sizeof(T) : sizeof(float)));
      return;
    }
    const T* gradient = total(i, nullptr);
    if (graph_.steps[i].kind == kFromRows) {
      layers::copy(crew_, size.count(), gradient, static_cast<T*>(out));
    } else {
      onednn::reorder(crew_, Layout::channels_last(graph_.type, size.b, size.c, size.h, size.w), gradient,
                      Layout::dense(kF32, {size.b, size.c, size.h, size.w}), out);
    }
    total_ = nullptr;
  }

  Crew& crew_;
  const KernelGraph& graph_;
  const Constants* constants_;
  void **parameters_, **weight_gradients_;
  std::vector<std::vector<Part>> parts_;
  std::vector<const T*> values_;
  Buffer total_;
};

}  // namespace
}  // namespace network

// Inputs: graph, sizes of the inputs, constants of each weight, a tensor with the shape of each input that has a gradient,
// gradients of the differentiable outputs, parameters, saved values. Outputs: gradients of the inputs, if the graph asks for
// them, and of the trainable parameters.
extern "C" int NetworkGradient(int count, void** tensors, int*, int64_t**, const char**, void*, void*) {
  return status_of(__func__, [&] {
    const network::KernelGraph graph(ints(tensors[0]), ints(tensors[1]));
    int differentiable = 0, parameters = 0, gradients = graph.input_gradients ? graph.inputs : 0;
    for (const network::Output& output : graph.outputs) differentiable += output.differentiable;
    for (const network::Weight& weight : graph.weights) {
      for (const int32_t number : weight.parameters) parameters = std::max(parameters, number + 1);
      if (weight.trainable) gradients += weight.kind == 1 ? 2 : 1;
    }
    void** douts = tensors + 3 + (graph.input_gradients ? graph.inputs : 0);
    void** outputs = tensors + count - gradients;
    Crew::run([&](Crew& crew) {
      const auto run = [&](auto example) {
        network::Backward<decltype(example)> backward(crew, graph, static_cast<const network::Constants*>(tensors[2]),
                                                      douts + differentiable, douts + differentiable + parameters,
                                                      outputs + (graph.input_gradients ? graph.inputs : 0));
        backward.run(douts, outputs);
      };
      if (graph.type == kBf16) run(Bf16{});
      else run(0.f);
    });
  });
}
