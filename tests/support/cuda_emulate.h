// CUDA kernels on a CPU, one block at a time, each thread a fiber: what they compute is tested where there is no GPU.
//
// It has what the kernels of services/generator/native use and no more. Shuffles want every lane of a warp, barriers
// every thread of a block, as on a GPU.
#pragma once

#include <math.h>
#include <setjmp.h>
#include <ucontext.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <memory>
#include <vector>

#include "ort_abi.h"

#define __device__
#define __global__
#define __host__
#define __forceinline__ inline
#define __shared__ static
#define __launch_bounds__(...)

struct __half {
  _Float16 value;
};
struct __half2 {
  __half x, y;
};
struct float2 {
  float x, y;
};
struct alignas(16) uint4 {
  unsigned x, y, z, w;
};
struct dim3 {
  unsigned x, y, z;
  explicit dim3(unsigned x, unsigned y = 1, unsigned z = 1) : x(x), y(y), z(z) {}
};
using cudaStream_t = void*;

inline float __half2float(__half h) { return float(h.value); }
inline __half __float2half_rn(float f) { return {_Float16(f)}; }
inline float2 __half22float2(__half2 h) { return {float(h.x.value), float(h.y.value)}; }
inline __half2 __floats2half2_rn(float x, float y) { return {__float2half_rn(x), __float2half_rn(y)}; }
inline float __expf(float x) { return std::exp(x); }
inline float rsqrtf(float x) { return 1.f / std::sqrt(x); }
using std::fmaxf;
using std::max;
using std::min;

inline dim3 threadIdx(0), blockIdx(0), blockDim(0), gridDim(0);

namespace emulate {

struct Barrier {
  unsigned waiting = 0, turn = 0;
};

struct Block {
  struct Fiber {
    ucontext_t context;
    jmp_buf place;
    bool begun = false;
    std::unique_ptr<char[]> stack{new char[kStack]};
    bool done = false;
  };
  static constexpr size_t kStack = 1 << 16;
  std::vector<Fiber> fibers;
  std::vector<Barrier> warps;
  std::vector<std::array<std::array<uint64_t, 32>, 2>> slots;
  Barrier all;
  ucontext_t scheduler;
  jmp_buf home;
  unsigned current = 0, size = 0;
  std::function<void()> body;

  static Block& get() {
    static Block block;
    return block;
  }
  void run(unsigned threads, std::function<void()> kernel) {
    size = threads;
    body = std::move(kernel);
    while (fibers.size() < threads) fibers.emplace_back();
    warps.assign((threads + 31) / 32, {});
    slots.resize(warps.size());
    all = {};
    for (unsigned i = 0; i < threads; i++) {
      fibers[i].done = fibers[i].begun = false;
      getcontext(&fibers[i].context);
      fibers[i].context.uc_stack = {fibers[i].stack.get(), 0, kStack};
      fibers[i].context.uc_link = &scheduler;
      makecontext(&fibers[i].context, &Block::begin, 0);
    }
    for (bool left = true; left;) {
      left = false;
      for (current = 0; current < threads; current++) {
        if (fibers[current].done) continue;
        left = true;
        threadIdx.x = current;
        resume(fibers[current]);
      }
    }
  }
  // A context is entered once; from then on jumps will do, which cost no system call.
  void resume(Fiber& fiber) {
    if (_setjmp(home) != 0) return;
    if (fiber.begun) _longjmp(fiber.place, 1);
    fiber.begun = true;
    swapcontext(&scheduler, &fiber.context);
  }
  static void begin() {
    Block& block = get();
    block.body();
    block.fibers[block.current].done = true;
    _longjmp(block.home, 1);
  }
  void wait(Barrier& barrier, unsigned count) {
    const unsigned turn = barrier.turn, self = current;
    if (++barrier.waiting == count) {
      barrier = {0, turn + 1};
      return;
    }
    while (barrier.turn == turn) {
      if (_setjmp(fibers[self].place) == 0) _longjmp(home, 1);
    }
    current = self;
    threadIdx.x = self;
  }
};

}  // namespace emulate

inline void __syncthreads() {
  auto& block = emulate::Block::get();
  block.wait(block.all, block.size);
}

template <class T>
T __shfl_xor_sync(unsigned, T value, int step) {
  auto& block = emulate::Block::get();
  const unsigned warp = block.current / 32, lane = block.current % 32;
  auto& slots = block.slots[warp][block.warps[warp].turn % 2];
  std::memcpy(&slots[lane], &value, sizeof(T));
  block.wait(block.warps[warp], std::min(32u, block.size - warp * 32));
  std::memcpy(&value, &slots[lane ^ unsigned(step)], sizeof(T));
  return value;
}

namespace shammah {

constexpr const char* kProvider = kCpu;

struct Place {
  cudaStream_t stream;
  bool early;
};

template <class... Parameters>
void launch(const Place&, void (*kernel)(Parameters...), dim3 grid, int threads, Parameters... arguments) {
  gridDim = grid;
  blockDim = dim3(unsigned(threads));
  for (unsigned y = 0; y < grid.y; y++) {
    for (unsigned x = 0; x < grid.x; x++) {
      blockIdx = dim3(x, y);
      emulate::Block::get().run(unsigned(threads), [&] { kernel(arguments...); });
    }
  }
}

inline void copy(Place&, void* target, const void* source, size_t bytes) {
  if (target != source) std::memcpy(target, source, bytes);
}

struct Blas {
  template <class Out>
  void multiply(const Context&, const __half* x, const __half* weight, Out* y, int rows, int width, int outputs,
                float onto) const {
    for (int row = 0; row < rows; row++) {
      for (int o = 0; o < outputs; o++) {
        float sum = 0;
        for (int i = 0; i < width; i++) sum += float(x[row * width + i].value) * float(weight[o * width + i].value);
        Out& place = y[int64_t(row) * outputs + o];
        if constexpr (sizeof(Out) == 2) {
          place.value = _Float16(sum + (onto != 0 ? float(place.value) : 0.f));
        } else {
          place = sum + (onto != 0 ? place : 0.f);
        }
      }
    }
  }
  static const Blas& get() {
    static const Blas blas;
    return blas;
  }
};

}  // namespace shammah
