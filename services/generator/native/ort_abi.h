// The part of ONNX Runtime's C interface that a custom operator needs, declared anew: the wheel has no headers.
//
// The interface is a table of function pointers that only ever grows at its end, so a place in it never changes. The
// places below were counted in the table `ort_api_1_to_25` of onnxruntime_c_api.cc (github.com/microsoft/onnxruntime,
// commit 003d03582b88), and agree with the asserts behind it: version 1 ends at 101 (ReleaseCustomOpDomain), 9 at 191,
// 10 at 203, 14 at 238, 15 at 254, 16 at 265, 17 at 275, 18 at 279. `CustomOp` is the struct OrtCustomOp of version 18;
// later versions add nothing to it, and the runtime reads only what its field `version` allows.
// tests/unit/generator/test_ort_abi.py builds an operator with this file and runs it in the installed ONNX Runtime.
//
// An operator is a class K with
//   static constexpr shammah::Signature signature{"Name", provider, inputs, outputs};
//   explicit K(const shammah::Info& info);          // reads attributes; may throw std::exception
//   void compute(const shammah::Context& context);  // called by several threads at once; may throw std::exception
// and a library has one function (the name is ONNX Runtime's):
//   extern "C" OrtStatus* RegisterCustomOps(OrtSessionOptions* options, const OrtApiBase* base) {
//     return shammah::register_ops<K, ...>(options, base);
//   }
// The domain is "shammah", version 1.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <stdexcept>
#include <string>
#include <vector>

struct OrtStatus;
struct OrtValue;
struct OrtKernelInfo;
struct OrtKernelContext;
struct OrtSessionOptions;
struct OrtCustomOpDomain;
struct OrtTensorTypeAndShapeInfo;
struct OrtShapeInferContext;
using OrtApi = void* const;  // one element of the table

struct OrtApiBase {
  OrtApi* (*GetApi)(uint32_t version);
  const char* (*GetVersionString)();
};

namespace shammah {

constexpr uint32_t kApiVersion = 18;
constexpr const char* kDomain = "shammah";
constexpr const char* kCpu = nullptr;
constexpr const char* kCuda = "CUDAExecutionProvider";

enum class Type : int { any = 0, f32 = 1, u8 = 2, i8 = 3, i32 = 6, i64 = 7, f16 = 10 };

struct CustomOp {
  uint32_t version;
  void* (*CreateKernel)(const CustomOp*, OrtApi*, const OrtKernelInfo*);
  const char* (*GetName)(const CustomOp*);
  const char* (*GetExecutionProviderType)(const CustomOp*);
  Type (*GetInputType)(const CustomOp*, size_t);
  size_t (*GetInputTypeCount)(const CustomOp*);
  Type (*GetOutputType)(const CustomOp*, size_t);
  size_t (*GetOutputTypeCount)(const CustomOp*);
  void (*KernelCompute)(void*, OrtKernelContext*);
  void (*KernelDestroy)(void*);
  int (*GetInputCharacteristic)(const CustomOp*, size_t);  // 0: required, 1: optional, 2: variadic
  int (*GetOutputCharacteristic)(const CustomOp*, size_t);
  int (*GetInputMemoryType)(const CustomOp*, size_t);  // 0: the provider's memory, -2: the host's
  int (*GetVariadicInputMinArity)(const CustomOp*);
  int (*GetVariadicInputHomogeneity)(const CustomOp*);
  int (*GetVariadicOutputMinArity)(const CustomOp*);
  int (*GetVariadicOutputHomogeneity)(const CustomOp*);
  OrtStatus* (*CreateKernelV2)(const CustomOp*, OrtApi*, const OrtKernelInfo*, void**);
  OrtStatus* (*KernelComputeV2)(void*, OrtKernelContext*);
  OrtStatus* (*InferOutputShapeFn)(const CustomOp*, OrtShapeInferContext*);
  int (*GetStartVersion)(const CustomOp*);
  int (*GetEndVersion)(const CustomOp*);
  size_t (*GetMayInplace)(int**, int**);
  void (*ReleaseMayInplace)(int*, int*);
  size_t (*GetAliasMap)(int**, int**);
  void (*ReleaseAliasMap)(int*, int*);
};
static_assert(sizeof(CustomOp) == 26 * sizeof(void*), "OrtCustomOp of version 18 has a version and 25 callbacks");

// The table with names for the places in use.
class Api {
 public:
  explicit Api(OrtApi* table) : table_(table) {}

  OrtStatus* fail(const char* message) const { return at<OrtStatus*(int, const char*)>(0)(1, message); }
  void check(OrtStatus* status) const {
    if (status == nullptr) return;
    std::string message = at<const char*(const OrtStatus*)>(2)(status);
    at<void(OrtStatus*)>(93)(status);
    throw std::runtime_error(message);
  }
  OrtCustomOpDomain* create_domain(const char* name) const {
    OrtCustomOpDomain* domain = nullptr;
    check(at<OrtStatus*(const char*, OrtCustomOpDomain**)>(26)(name, &domain));
    return domain;
  }
  void add_op(OrtCustomOpDomain* domain, const CustomOp* op) const {
    check(at<OrtStatus*(OrtCustomOpDomain*, const CustomOp*)>(27)(domain, op));
  }
  void add_domain(OrtSessionOptions* options, OrtCustomOpDomain* domain) const {
    check(at<OrtStatus*(OrtSessionOptions*, OrtCustomOpDomain*)>(28)(options, domain));
  }
  void* data(const OrtValue* value) const {
    void* found = nullptr;
    check(at<OrtStatus*(OrtValue*, void**)>(51)(const_cast<OrtValue*>(value), &found));
    return found;
  }
  std::vector<int64_t> dims(const OrtValue* value) const {
    OrtTensorTypeAndShapeInfo* info = nullptr;
    check(at<OrtStatus*(const OrtValue*, OrtTensorTypeAndShapeInfo**)>(65)(value, &info));
    size_t count = 0;
    OrtStatus* status = at<OrtStatus*(const OrtTensorTypeAndShapeInfo*, size_t*)>(61)(info, &count);
    std::vector<int64_t> found(count);
    if (status == nullptr) {
      status = at<OrtStatus*(const OrtTensorTypeAndShapeInfo*, int64_t*, size_t)>(62)(info, found.data(), count);
    }
    at<void(OrtTensorTypeAndShapeInfo*)>(99)(info);
    check(status);
    return found;
  }
  // The function in one place of the table, as a pointer to a function of type F.
  template <class F>
  F* at(size_t place) const {
    return reinterpret_cast<F*>(const_cast<void*>(table_[place]));
  }

 private:
  OrtApi* table_;
};

// What a kernel may ask when it is made.
class Info {
 public:
  Info(Api api, const OrtKernelInfo* info) : api_(api), info_(info) {}

  // Throws where the node has no such attribute.
  int64_t integer(const char* name) const {
    int64_t value = 0;
    api_.check(api_.at<OrtStatus*(const OrtKernelInfo*, const char*, int64_t*)>(86)(info_, name, &value));
    return value;
  }
  float real(const char* name) const {
    float value = 0;
    api_.check(api_.at<OrtStatus*(const OrtKernelInfo*, const char*, float*)>(85)(info_, name, &value));
    return value;
  }
  // The value of an input that is an initializer, else nullptr; it belongs to the caller and lives as long as the
  // kernel may want it (it is never released).
  const OrtValue* constant(size_t input) const {
    int known = 0;
    const OrtValue* value = nullptr;
    api_.check(api_.at<OrtStatus*(const OrtKernelInfo*, size_t, int*, const OrtValue**)>(249)(info_, input, &known,
                                                                                              &value));
    return known ? value : nullptr;
  }
  Api api() const { return api_; }

 private:
  Api api_;
  const OrtKernelInfo* info_;
};

// What a kernel may ask while it computes.
class Context {
 public:
  Context(Api api, OrtKernelContext* context) : api_(api), context_(context) {}

  // nullptr for an optional input that is absent.
  const OrtValue* input(size_t index) const {
    const OrtValue* value = nullptr;
    api_.check(api_.at<OrtStatus*(const OrtKernelContext*, size_t, const OrtValue**)>(90)(context_, index, &value));
    return value;
  }
  template <class T>
  const T* data(size_t index) const {
    return static_cast<const T*>(api_.data(input(index)));
  }
  std::vector<int64_t> dims(size_t index) const { return api_.dims(input(index)); }
  // Allocates the output, or finds the memory that is bound to it.
  template <class T>
  T* output(size_t index, const std::vector<int64_t>& dims) const {
    OrtValue* value = nullptr;
    api_.check(api_.at<OrtStatus*(OrtKernelContext*, size_t, const int64_t*, size_t, OrtValue**)>(91)(
        context_, index, dims.data(), dims.size(), &value));
    return value == nullptr ? nullptr : static_cast<T*>(api_.data(value));
  }
  // The CUDA stream of the session (a cudaStream_t); nullptr on a CPU.
  void* stream() const {
    void* found = nullptr;
    api_.check(api_.at<OrtStatus*(const OrtKernelContext*, void**)>(193)(context_, &found));
    return found;
  }
  // What the provider has for this stream: of CUDA, 10002 is its cuBLAS handle (onnxruntime's cuda_resource.h).
  void* resource(int id) const {
    void* found = nullptr;
    api_.check(api_.at<OrtStatus*(const OrtKernelContext*, int, int, void**)>(265)(context_, 3, id, &found));
    if (found == nullptr) throw std::runtime_error("the provider has no resource " + std::to_string(id));
    return found;
  }
  // Calls work(0) to work(total - 1) in the session's thread pool; `batches` 0 lets the runtime choose.
  template <class Work>
  void parallel_for(size_t total, const Work& work, size_t batches = 0) const {
    auto call = [](void* data, size_t index) { (*static_cast<const Work*>(data))(index); };
    using Call = OrtStatus*(const OrtKernelContext*, void (*)(void*, size_t), size_t, size_t, void*);
    api_.check(api_.at<Call>(274)(context_, call, total, batches, const_cast<Work*>(&work)));
  }

 private:
  Api api_;
  OrtKernelContext* context_;
};

// Name, provider and the types of inputs and outputs; up to 16 of each. `alias` is an input whose memory output 0
// takes over, -1 for none: nothing else may read that input later.
struct Signature {
  const char* name;
  const char* provider;
  size_t inputs;
  std::array<Type, 16> input_types;
  size_t outputs;
  std::array<Type, 16> output_types;
  int alias = -1;
};

template <class K>
struct Op : CustomOp {
  struct Made {
    Api api;
    K kernel;
  };

  Op() : CustomOp{} {
    version = kApiVersion;
    GetName = [](const CustomOp*) { return K::signature.name; };
    GetExecutionProviderType = [](const CustomOp*) { return K::signature.provider; };
    GetInputType = [](const CustomOp*, size_t i) { return K::signature.input_types[i]; };
    GetInputTypeCount = [](const CustomOp*) { return K::signature.inputs; };
    GetOutputType = [](const CustomOp*, size_t i) { return K::signature.output_types[i]; };
    GetOutputTypeCount = [](const CustomOp*) { return K::signature.outputs; };
    GetInputCharacteristic = GetOutputCharacteristic = [](const CustomOp*, size_t) { return 0; };
    GetInputMemoryType = [](const CustomOp*, size_t) { return 0; };
    GetVariadicInputMinArity = GetVariadicOutputMinArity = [](const CustomOp*) { return 1; };
    GetVariadicInputHomogeneity = GetVariadicOutputHomogeneity = [](const CustomOp*) { return 0; };
    GetStartVersion = [](const CustomOp*) { return 1; };
    GetEndVersion = [](const CustomOp*) { return 1 << 20; };
    GetAliasMap = list_aliases;
    ReleaseAliasMap = [](int* input, int* output) {
      delete input;
      delete output;
    };
    CreateKernelV2 = create;
    KernelComputeV2 = compute;
    KernelDestroy = [](void* made) { delete static_cast<Made*>(made); };
  }

  static size_t list_aliases(int** input, int** output) {
    if (K::signature.alias < 0) return 0;
    *input = new int(K::signature.alias);
    *output = new int(0);
    return 1;
  }

  static OrtStatus* create(const CustomOp*, OrtApi* table, const OrtKernelInfo* info, void** made) {
    Api api(table);
    try {
      *made = new Made{api, K(Info(api, info))};
    } catch (const std::exception& error) {
      return api.fail(error.what());
    }
    return nullptr;
  }

  static OrtStatus* compute(void* made, OrtKernelContext* context) {
    auto* self = static_cast<Made*>(made);
    try {
      self->kernel.compute(Context(self->api, context));
    } catch (const std::exception& error) {
      return self->api.fail(error.what());
    }
    return nullptr;
  }
};

// Adds the operators to the options of a session. What is made here lives as long as the library.
template <class... Ks>
OrtStatus* register_ops(OrtSessionOptions* options, const OrtApiBase* base) {
  OrtApi* table = base->GetApi(kApiVersion);
  if (table == nullptr) return nullptr;  // an older runtime: its sessions will miss the operators by name
  Api api(table);
  try {
    static OrtCustomOpDomain* domain = [&] {
      OrtCustomOpDomain* made = api.create_domain(kDomain);
      (api.add_op(made, new Op<Ks>()), ...);
      return made;
    }();
    api.add_domain(options, domain);
  } catch (const std::exception& error) {
    return api.fail(error.what());
  }
  return nullptr;
}

}  // namespace shammah
