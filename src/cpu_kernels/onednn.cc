#include "onednn.h"

#include <dlfcn.h>
#include <unistd.h>

#include <algorithm>
#include <cfloat>
#include <cstdio>
#include <map>
#include <mutex>

#include "vectors.h"

namespace onednn {
namespace {

typedef int64_t Dims[12];
struct Version {
  int major, minor, patch;
};

// The library's functions, by their names without dnnl_.
struct Library {
  void* handle;
  void* engine = nullptr;

#define FUNCTION(type, name, ...) type (*name)(__VA_ARGS__) = reinterpret_cast<type (*)(__VA_ARGS__)>(find("dnnl_" #name))
  FUNCTION(const Version*, version);
  FUNCTION(int, set_max_cpu_isa, int);
  FUNCTION(int, get_effective_cpu_isa);
  FUNCTION(int, engine_create, void**, int, size_t);
  FUNCTION(int, threadpool_interop_set_max_concurrency, int);
  FUNCTION(int, threadpool_interop_stream_create, void**, void*, void*);
  FUNCTION(int, stream_wait, void*);
  FUNCTION(int, stream_destroy, void*);
  FUNCTION(int, memory_desc_create_with_strides, void**, int, const Dims, int, const Dims);
  FUNCTION(int, memory_desc_create_with_tag, void**, int, const Dims, int, int);
  FUNCTION(size_t, memory_desc_get_size, const void*);
  FUNCTION(int, memory_desc_equal, const void*, const void*);
  FUNCTION(int, memory_desc_destroy, void*);
  FUNCTION(int, memory_create, void**, const void*, void*, void*);
  FUNCTION(int, memory_destroy, void*);
  FUNCTION(int, primitive_attr_create, void**);
  FUNCTION(int, primitive_attr_destroy, void*);
  FUNCTION(int, primitive_attr_set_scratchpad_mode, void*, int);
  FUNCTION(int, primitive_attr_set_post_ops, void*, const void*);
  FUNCTION(int, post_ops_create, void**);
  FUNCTION(int, post_ops_destroy, void*);
  FUNCTION(int, post_ops_append_eltwise, void*, int, float, float);
  FUNCTION(int, post_ops_append_binary, void*, int, const void*);
  FUNCTION(int, convolution_forward_primitive_desc_create, void**, void*, int, int, const void*, const void*, const void*,
           const void*, const Dims, const Dims, const Dims, const Dims, const void*);
  FUNCTION(int, convolution_backward_data_primitive_desc_create, void**, void*, int, const void*, const void*, const void*,
           const Dims, const Dims, const Dims, const Dims, const void*, const void*);
  FUNCTION(int, convolution_backward_weights_primitive_desc_create, void**, void*, int, const void*, const void*, const void*,
           const void*, const Dims, const Dims, const Dims, const Dims, const void*, const void*);
  FUNCTION(int, matmul_primitive_desc_create, void**, void*, const void*, const void*, const void*, const void*, const void*);
  FUNCTION(int, reorder_primitive_desc_create, void**, const void*, void*, const void*, void*, const void*);
  FUNCTION(const void*, primitive_desc_query_md, const void*, int, int);
  FUNCTION(int, primitive_desc_destroy, void*);
  FUNCTION(int, primitive_create, void**, const void*);
  FUNCTION(int, primitive_execute, const void*, void*, int, const void*);
  FUNCTION(int, primitive_destroy, void*);
#undef FUNCTION

  void* find(const char* name) const {
    void* function = dlsym(handle, name);
    if (function == nullptr) throw std::runtime_error(std::string("oneDNN has no function ") + name);
    return function;
  }
};

Library* library = nullptr;

// Values of the library's enumerations.
constexpr int kCpu = 1, kAnyFormat = 1, kUserScratchpad = 1, kForwardTraining = 64, kDirect = 1, kHardSwish = 0x34;
constexpr int kAdd = 0x1fff0, kScratchpad = 80, kQueryScratchpad = 136;
// Queries for the layout of each argument.
constexpr int kQueries[][2] = {{kSource, 129}, {kSourceGradient, 130}, {kWeights, 131}, {kWeightsGradient, 132},
                               {kDestination, 133}, {kDestinationGradient, 134}};
constexpr int kBf16Instructions = 0x80;

void check(int status, const char* what) {
  if (status != 0) throw std::runtime_error("oneDNN: " + std::string(what) + " gave status " + std::to_string(status));
}

void copy(const std::vector<int64_t>& values, Dims out) {
  for (size_t i = 0; i < values.size(); ++i) out[i] = values[i];
}

// Attributes of a primitive: the operations after the product, and that we provide the scratchpad memory.
class Attributes {
 public:
  explicit Attributes(Epilogue epilogue = {}, const Layout& result = {}) {
    check(library->primitive_attr_create(&attr_), "attributes");
    check(library->primitive_attr_set_scratchpad_mode(attr_, kUserScratchpad), "scratchpad");
    if (!epilogue.add && !epilogue.relu) return;
    void* post = nullptr;
    check(library->post_ops_create(&post), "post-operations");
    if (epilogue.add) check(library->post_ops_append_binary(post, kAdd, result.get()), "addition");
    // The library's ReLU maps NaN to 0. x * clip(x * FLT_MAX, 0, 1) has the same values but keeps NaN; -inf becomes NaN.
    if (epilogue.relu) check(library->post_ops_append_eltwise(post, kHardSwish, FLT_MAX, 0.f), "ReLU");
    check(library->primitive_attr_set_post_ops(attr_, post), "post-operations");
    library->post_ops_destroy(post);
  }
  ~Attributes() { library->primitive_attr_destroy(attr_); }
  Attributes(const Attributes&) = delete;
  const void* get() const { return attr_; }

 private:
  void* attr_ = nullptr;
};

// Creating a primitive takes a millisecond or more, so each primitive is created once per key and kept.
template <class Make>
PrimitivePtr cached(const std::vector<int64_t>& key, const Make& make) {
  // Never destroyed: threads may compute while the process exits.
  static auto& cache = *new std::map<std::vector<int64_t>, PrimitivePtr>;
  static auto& mutex = *new std::mutex;
  const std::lock_guard<std::mutex> lock(mutex);
  PrimitivePtr& entry = cache[key];
  if (entry == nullptr) {
    check(library->threadpool_interop_set_max_concurrency(parts()), "number of parts");
    entry = std::make_shared<const Primitive>(make());
  }
  return entry;
}

std::vector<int64_t> key_of(int kind, DataType type, DataType out, const ConvolutionShape& s, Epilogue e) {
  return {kind, type, out, s.b, s.c, s.h, s.w, s.k, s.kernel_h, s.kernel_w, s.out_h, s.out_w, s.stride, s.pad_top, s.pad_left,
          s.dilation, s.groups, e.bias, e.add, e.relu};
}

// Arguments of the library's convolution functions.
struct ConvolutionArguments {
  Layout source, weights, bias, destination;
  Dims strides, dilations, before, after;

  ConvolutionArguments(DataType type, DataType out, DataType weight_type, const ConvolutionShape& s)
      : source(Layout::channels_last(type, s.b, s.c, s.h, s.w)),
        weights(Layout::any(weight_type, s.weight_dims())),
        bias(Layout::dense(kF32, {s.k})),
        destination(Layout::channels_last(out, s.b, s.k, s.out_h, s.out_w)) {
    copy({s.stride, s.stride}, strides);
    copy({s.dilation - 1, s.dilation - 1}, dilations);
    copy({s.pad_top, s.pad_left}, before);
    copy({s.pad_bottom(), s.pad_right()}, after);
  }
};

// Creates the descriptor of a convolution's forward pass.
void* convolution_desc(DataType type, DataType out, const ConvolutionShape& shape, Epilogue epilogue) {
  const ConvolutionArguments a(type, out, type, shape);
  const Attributes attributes(epilogue, a.destination);
  void* desc = nullptr;
  check(library->convolution_forward_primitive_desc_create(
            &desc, library->engine, kForwardTraining, kDirect, a.source.get(), a.weights.get(),
            epilogue.bias ? a.bias.get() : nullptr, a.destination.get(), a.strides, a.dilations, a.before, a.after,
            attributes.get()), "convolution");
  return desc;
}

// Creates a gradient of a convolution. create(descriptor, arguments, forward pass, attributes) is the library's function for it.
// The library requires the forward pass, with weights in the type of its products.
template <class Create>
PrimitivePtr convolution_gradient(int kind, DataType type, DataType weight_type, const ConvolutionShape& shape,
                                  const Create& create) {
  return cached(key_of(kind, type, weight_type, shape, {}), [&] {
    const ConvolutionArguments a(type, type, weight_type, shape);
    const Attributes attributes;
    const std::shared_ptr<void> forward(convolution_desc(type, type, shape, {}), library->primitive_desc_destroy);
    void* desc = nullptr;
    check(create(&desc, a, forward.get(), attributes.get()), "gradient of a convolution");
    return desc;
  });
}

}  // namespace

int parts() {
  static const int number = static_cast<int>(std::clamp<long>(sysconf(_SC_NPROCESSORS_CONF), 8, 32));
  return number;
}

Layout Layout::own(void* desc) {
  Layout layout;
  layout.desc_ = std::shared_ptr<const void>(desc, [](const void* p) { library->memory_desc_destroy(const_cast<void*>(p)); });
  return layout;
}

Layout Layout::strided(DataType type, const std::vector<int64_t>& dims, const std::vector<int64_t>& strides) {
  Dims d, s;
  copy(dims, d);
  copy(strides, s);
  void* desc = nullptr;
  check(library->memory_desc_create_with_strides(&desc, static_cast<int>(dims.size()), d, type, s), "layout");
  return own(desc);
}

Layout Layout::dense(DataType type, const std::vector<int64_t>& dims) {
  std::vector<int64_t> strides(dims.size(), 1);
  for (int i = static_cast<int>(dims.size()) - 2; i >= 0; --i) strides[i] = strides[i + 1] * dims[i + 1];
  return strided(type, dims, strides);
}

Layout Layout::any(DataType type, const std::vector<int64_t>& dims) {
  Dims d;
  copy(dims, d);
  void* desc = nullptr;
  check(library->memory_desc_create_with_tag(&desc, static_cast<int>(dims.size()), d, type, kAnyFormat), "layout");
  return own(desc);
}

Layout Layout::channels_last(DataType type, int64_t b, int64_t c, int64_t h, int64_t w) {
  return strided(type, {b, c, h, w}, {h * w * c, 1, w * c, c});
}

Layout::Layout(const void* borrowed) : desc_(borrowed, [](const void*) {}) {}

bool Layout::operator==(const Layout& other) const { return library->memory_desc_equal(desc_.get(), other.desc_.get()) != 0; }

size_t Layout::bytes() const { return library->memory_desc_get_size(desc_.get()); }

std::vector<int64_t> ConvolutionShape::weight_dims() const {
  if (groups == 1) return {k, c, kernel_h, kernel_w};
  return {groups, k / groups, c / groups, kernel_h, kernel_w};
}

Primitive::Primitive(void* desc) : desc_(desc) {
  check(library->primitive_create(&primitive_, desc), "primitive");
}

Primitive::~Primitive() {
  library->primitive_destroy(primitive_);
  library->primitive_desc_destroy(desc_);
}

Layout Primitive::layout(ArgumentId id) const {
  for (const auto& [argument, query] : kQueries) {
    if (argument == id) return Layout(library->primitive_desc_query_md(desc_, query, 0));
  }
  throw std::logic_error("no layout of this argument");
}

void Primitive::run(ThreadPool& pool, const std::vector<Argument>& arguments) const {
  struct Pair { int id; void* memory; };
  std::vector<Pair> pairs;
  std::vector<std::shared_ptr<void>> owned;
  const auto add = [&](int id, const void* layout, const void* data) {
    void* memory = nullptr;
    check(library->memory_create(&memory, layout, library->engine, const_cast<void*>(data)), "memory");
    owned.emplace_back(memory, library->memory_destroy);
    pairs.push_back({id, memory});
  };
  for (const Argument& argument : arguments) {
    add(argument.id, (argument.layout.get() ? argument.layout : layout(argument.id)).get(), argument.data);
  }
  const void* scratch = library->primitive_desc_query_md(desc_, kQueryScratchpad, 0);
  const size_t size = library->memory_desc_get_size(scratch);
  const Buffer work = size ? allocate(size) : nullptr;
  add(kScratchpad, scratch, work.get());
  void* stream = nullptr;
  check(library->threadpool_interop_stream_create(&stream, library->engine, &pool), "stream");
  owned.emplace_back(stream, library->stream_destroy);
  const int status = library->primitive_execute(primitive_, stream, static_cast<int>(pairs.size()), pairs.data());
  library->stream_wait(stream);
  check(status, "execution");
}

PrimitivePtr convolution(DataType type, DataType out, const ConvolutionShape& shape, Epilogue epilogue) {
  return cached(key_of(0, type, out, shape, epilogue), [&] { return convolution_desc(type, out, shape, epilogue); });
}

PrimitivePtr convolution_input_gradient(DataType type, const ConvolutionShape& shape) {
  return convolution_gradient(1, type, type, shape, [](void** desc, const auto& a, const void* hint, const void* attributes) {
    return library->convolution_backward_data_primitive_desc_create(
        desc, library->engine, kDirect, a.source.get(), a.weights.get(), a.destination.get(), a.strides, a.dilations, a.before,
        a.after, hint, attributes);
  });
}

PrimitivePtr convolution_weight_gradient(DataType type, const ConvolutionShape& shape) {
  return convolution_gradient(2, type, kF32, shape, [](void** desc, const auto& a, const void* hint, const void* attributes) {
    return library->convolution_backward_weights_primitive_desc_create(
        desc, library->engine, kDirect, a.source.get(), a.weights.get(), nullptr, a.destination.get(), a.strides, a.dilations,
        a.before, a.after, hint, attributes);
  });
}

PrimitivePtr product(DataType type, DataType out, int64_t m, int64_t k, int64_t n, Epilogue epilogue, bool transposed,
                     bool plain) {
  return cached({3, type, out, m, k, n, epilogue.bias, epilogue.add, epilogue.relu, transposed, plain}, [&] {
    const Layout left = transposed ? Layout::strided(type, {m, k}, {1, m}) : Layout::dense(type, {m, k});
    const Layout right = plain ? Layout::dense(type, {k, n}) : Layout::any(type, {k, n});
    const Layout bias = Layout::dense(kF32, {1, n}), result = Layout::dense(out, {m, n});
    const Attributes attributes(epilogue, result);
    void* desc = nullptr;
    check(library->matmul_primitive_desc_create(&desc, library->engine, left.get(), right.get(),
                                                epilogue.bias ? bias.get() : nullptr, result.get(), attributes.get()), "product");
    return desc;
  });
}

void reorder(ThreadPool& pool, const Layout& from, const void* source, const Layout& to, void* destination) {
  const Attributes attributes;
  check(library->threadpool_interop_set_max_concurrency(parts()), "number of parts");
  void* desc = nullptr;
  check(library->reorder_primitive_desc_create(&desc, from.get(), library->engine, to.get(), library->engine, attributes.get()),
        "reorder");
  Primitive(desc).run(pool, {{kSource, source, from}, {kDestination, destination, to}});
}

}  // namespace onednn

// Opens the library at `path`. With `all_instructions` it may use every instruction of the processor, whatever ONEDNN_MAX_CPU_ISA
// says. Returns 0; after an error, returns 1 and writes the reason to `reason`, a buffer of `size` characters.
extern "C" int OpenOneDNN(const char* path, int all_instructions, char* reason, int size) {
  using namespace onednn;
  try {
    void* handle = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    if (handle == nullptr) throw std::runtime_error(dlerror());
    const auto opened = std::make_unique<Library>(Library{handle});
    const Version* version = opened->version();
    if (version->major != 3) throw std::runtime_error("version " + std::to_string(version->major) + " instead of 3");
    if (all_instructions) opened->set_max_cpu_isa(0);
    check(opened->engine_create(&opened->engine, kCpu, 0), "engine");
    // Existing primitives belong to the engine of the first call, so later calls keep that library.
    if (library == nullptr) library = new Library(*opened);
    return 0;
  } catch (const std::exception& error) {
    std::snprintf(reason, size, "%s", error.what());
    return 1;
  }
}

// Call this after OpenOneDNN. Returns whether the processor has bf16 products.
extern "C" int HasBf16Products() { return (onednn::library->get_effective_cpu_isa() & onednn::kBf16Instructions) != 0; }
