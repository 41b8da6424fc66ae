// What all kernels share: eight halves as floats, sums over a warp, and waiting for the kernel before.
//
// A kernel may be launched before the one in front of it has ended ("early"): it then loads what nothing writes
// (weights), calls `wait_for_previous`, and only after that touches what other kernels write or read. Every kernel
// calls it, so the end of one means the end of all before it. `SHAMMAH_EMULATE` compiles the same code for a CPU,
// where tests run it (tests/support/cuda_emulate.h).
#pragma once

#include <cfloat>
#include <cstdint>
#include <cstring>

#ifdef SHAMMAH_EMULATE
#include "cuda_emulate.h"
#else
#include <cuda_fp16.h>
#include <cuda_runtime.h>
#endif

namespace shammah {

constexpr int kWarp = 32;
constexpr unsigned kAll = 0xffffffffu;

__device__ __forceinline__ void wait_for_previous() {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}

__device__ __forceinline__ void let_next_begin() {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.launch_dependents;");
#endif
}

__device__ __forceinline__ void unpack(const uint4& raw, float (&out)[8]) {
  __half2 pairs[4];
  memcpy(pairs, &raw, sizeof(raw));
#pragma unroll
  for (int i = 0; i < 4; i++) {
    float2 pair = __half22float2(pairs[i]);
    out[2 * i] = pair.x;
    out[2 * i + 1] = pair.y;
  }
}

__device__ __forceinline__ uint4 pack(const float (&values)[8]) {
  __half2 pairs[4];
#pragma unroll
  for (int i = 0; i < 4; i++) pairs[i] = __floats2half2_rn(values[2 * i], values[2 * i + 1]);
  uint4 raw;
  memcpy(&raw, pairs, sizeof(raw));
  return raw;
}

// The sum over the lanes of a warp, in all lanes.
__device__ __forceinline__ float sum_warp(float value) {
#pragma unroll
  for (int step = kWarp / 2; step > 0; step /= 2) value += __shfl_xor_sync(kAll, value, step);
  return value;
}

__device__ __forceinline__ float silu(float x) { return x / (1.f + __expf(-x)); }

}  // namespace shammah
