// Launches and cuBLAS, for the operators of cuda_ops.cu. `SHAMMAH_EMULATE` has its own (tests/support/cuda_emulate.h).
#pragma once

#include "cuda_base.cuh"
#include "ort_abi.h"

#ifndef SHAMMAH_EMULATE

#include <dlfcn.h>

namespace shammah {

constexpr const char* kProvider = kCuda;

inline void check_cuda(cudaError_t error) {
  if (error != cudaSuccess) throw std::runtime_error(std::string("CUDA: ") + cudaGetErrorString(error));
}

// Where a kernel goes, and whether it may be launched before the one in front of it has ended.
struct Place {
  cudaStream_t stream;
  bool early;
};

template <class... Parameters>
void launch(const Place& place, void (*kernel)(Parameters...), dim3 grid, int threads, Parameters... arguments) {
  cudaLaunchAttribute attribute{};
  attribute.id = cudaLaunchAttributeProgrammaticStreamSerialization;
  attribute.val.programmaticStreamSerializationAllowed = 1;
  cudaLaunchConfig_t config{};
  config.gridDim = grid;
  config.blockDim = dim3(threads);
  config.stream = place.stream;
  config.attrs = &attribute;
  config.numAttrs = place.early ? 1 : 0;
  check_cuda(cudaLaunchKernelEx(&config, kernel, arguments...));
}

// Where an output is not bound to the memory of its input; a kernel behind a copy must not be early.
inline void copy(Place& place, void* target, const void* source, size_t bytes) {
  if (target == source) return;
  place.early = false;
  check_cuda(cudaMemcpyAsync(target, source, bytes, cudaMemcpyDeviceToDevice, place.stream));
}

// cuBLAS as ONNX Runtime has loaded it: the handle is its stream's own, so graphs are captured as with its operators.
class Blas {
 public:
  // y [rows, outputs] = x [rows, width] times weight [outputs, width] transposed, added to y where `onto` is 1.
  template <class Out>
  void multiply(const Context& context, const __half* x, const __half* weight, Out* y, int rows, int width,
                int outputs, float onto) const {
    const float one = 1.f;
    const int kind = sizeof(Out) == 2 ? kHalf : kFloat;
    const int failed =
        gemm_(context.resource(kOrtCublas), kTranspose, kPlain, outputs, rows, width, &one, weight, kHalf, width, x,
              kHalf, width, &onto, y, kind, outputs, kComputeFloat, kDefault);
    if (failed != 0) throw std::runtime_error("cuBLAS: a product failed with status " + std::to_string(failed));
  }

  static const Blas& get() {
    static const Blas blas;
    return blas;
  }

 private:
  // cublas_api.h and library_types.h; 10002 is onnxruntime's cuda_resource.h.
  static constexpr int kHalf = 2, kFloat = 0, kPlain = 0, kTranspose = 1, kComputeFloat = 68, kDefault = -1;
  static constexpr int kOrtCublas = 10002;
  using Gemm = int(void*, int, int, int, int, int, const void*, const void*, int, int, const void*, int, int,
                   const void*, void*, int, int, int, int);

  Blas() {
    void* library = dlopen("libcublas.so.13", RTLD_NOW);
    if (library == nullptr) library = dlopen("libcublas.so.12", RTLD_NOW);
    gemm_ = library == nullptr ? nullptr : reinterpret_cast<Gemm*>(dlsym(library, "cublasGemmEx"));
    if (gemm_ == nullptr) throw std::runtime_error("cuBLAS 12 or 13 can't be loaded");
  }

  Gemm* gemm_ = nullptr;
};

}  // namespace shammah

#endif
