// Products of a few rows with a weight [outputs, width], each with what stands before and behind it in a decoder layer;
// and, for many rows, what stands beside a product of cuBLAS. Weights and activations are halves, sums are floats.
#pragma once

#include "cuda_base.cuh"

namespace shammah {

enum class End { plain, add, swiglu };

// A row of `x` stands at x + row * stride; `width` is a multiple of 8, `rows` at most ROWS. Results are
// [rows, outputs].
template <class Out>
struct Product {
  const __half* weight;
  const __half* x;
  const __half* gain;      // RMS normalisation of x before the product
  const __half* residual;  // what End::add adds, [rows, outputs]; may be y itself
  Out* y;
  int64_t stride;
  int rows;
  int width;
  int outputs;
  float epsilon;
};

__device__ __forceinline__ void store(__half* place, float value) { *place = __float2half_rn(value); }
__device__ __forceinline__ void store(float* place, float value) { *place = value; }

// DEPTH pieces of 16 bytes of each of a warp's weights: what is loaded ahead. Beyond the last piece all is zero.
template <int OUTS, int DEPTH>
struct Ahead {
  const uint4* weights[OUTS];
  uint4 held[OUTS][DEPTH];

  __device__ __forceinline__ void load(int base, int chunks) {
#pragma unroll
    for (int d = 0; d < DEPTH; d++) {
      const int chunk = base + d * kWarp;
#pragma unroll
      for (int o = 0; o < OUTS; o++) held[o][d] = chunk < chunks ? weights[o][chunk] : uint4{0, 0, 0, 0};
    }
  }
};

// Adds up the products of what is held with all rows, and the rows' squares. What lies beyond the last row is computed
// in vain: without branches, all loads are under way at once.
template <bool NORM, int ROWS, int OUTS, int DEPTH, class Out>
__device__ __forceinline__ void add_products(const Product<Out>& p, const Ahead<OUTS, DEPTH>& ahead, int base,
                                             float (&sums)[OUTS][ROWS], float (&squares)[ROWS]) {
#pragma unroll
  for (int d = 0; d < DEPTH; d++) {
    const int chunk = base + d * kWarp;
    const bool inside = chunk < p.width / 8;
    float gains[8], factors[OUTS][8];
    if (NORM) unpack(inside ? reinterpret_cast<const uint4*>(p.gain)[chunk] : uint4{0, 0, 0, 0}, gains);
#pragma unroll
    for (int o = 0; o < OUTS; o++) unpack(ahead.held[o][d], factors[o]);
#pragma unroll
    for (int r = 0; r < ROWS; r++) {
      const __half* row = p.x + (ROWS > 1 ? min(r, p.rows - 1) : 0) * p.stride;
      float x[8];
      unpack(inside ? reinterpret_cast<const uint4*>(row)[chunk] : uint4{0, 0, 0, 0}, x);
#pragma unroll
      for (int e = 0; e < 8; e++) {
        if (NORM) {
          squares[r] += x[e] * x[e];
          x[e] *= gains[e];
        }
#pragma unroll
        for (int o = 0; o < OUTS; o++) sums[o][r] += x[e] * factors[o][e];
      }
    }
  }
}

// A warp makes OUTS results of every row: its lanes share a weight's row in pieces of 16 bytes. With End::swiglu the
// weight is gates and then ups, and two products make one result. The gain is multiplied in and the norm divided out
// behind the sum, so no block waits for a norm. DEPTH pieces of each weight are loaded before the wait.
template <int ROWS, int OUTS, int DEPTH, bool NORM, End END, class Out>
__global__ void __launch_bounds__(256) multiply_few(Product<Out> p) {
  constexpr bool GATED = END == End::swiglu;
  const int lane = threadIdx.x % kWarp, warp = blockIdx.x * (blockDim.x / kWarp) + threadIdx.x / kWarp;
  const int first = GATED ? warp : warp * OUTS, chunks = p.width / 8;
  Ahead<OUTS, DEPTH> ahead;
#pragma unroll
  for (int o = 0; o < OUTS; o++) {
    const int64_t inside = min(GATED ? first : first + o, p.outputs - 1) + (GATED ? o * p.outputs : 0);
    ahead.weights[o] = reinterpret_cast<const uint4*>(p.weight) + inside * chunks;
  }
  ahead.load(lane, chunks);
  let_next_begin();
  wait_for_previous();
  float sums[OUTS][ROWS] = {}, squares[ROWS] = {};
  for (int base = lane; base < chunks; base += DEPTH * kWarp) {
    if (base > lane) ahead.load(base, chunks);
    add_products<NORM>(p, ahead, base, sums, squares);
  }
#pragma unroll
  for (int r = 0; r < ROWS; r++) {
    if (r >= p.rows) break;
    const float scale = NORM ? rsqrtf(sum_warp(squares[r]) / p.width + p.epsilon) : 1.f;
#pragma unroll
    for (int o = 0; o < OUTS; o++) sums[o][r] = sum_warp(sums[o][r]) * scale;
    if (lane > 0) continue;
#pragma unroll
    for (int o = 0; o < (GATED ? 1 : OUTS); o++) {
      if (first + o >= p.outputs) break;
      const int64_t place = int64_t(r) * p.outputs + first + o;
      float made = sums[o][r];
      if (END == End::add) made += __half2float(p.residual[place]);
      if (GATED) made = silu(made) * sums[OUTS - 1][r];
      store(p.y + place, made);
    }
  }
}

// One block a row: y [rows, width] is the RMS normalisation of x times the gain.
__global__ void __launch_bounds__(128) normalise(const __half* x, int64_t stride, const __half* gain, __half* y,
                                                 int width, float epsilon) {
  __shared__ float parts[4];
  let_next_begin();
  wait_for_previous();
  const int chunks = width / 8;
  const uint4* row = reinterpret_cast<const uint4*>(x + blockIdx.x * stride);
  float squares = 0;
  for (int chunk = threadIdx.x; chunk < chunks; chunk += blockDim.x) {
    float values[8];
    unpack(row[chunk], values);
#pragma unroll
    for (int e = 0; e < 8; e++) squares += values[e] * values[e];
  }
  squares = sum_warp(squares);
  if (threadIdx.x % kWarp == 0) parts[threadIdx.x / kWarp] = squares;
  __syncthreads();
  const float scale = rsqrtf((parts[0] + parts[1] + parts[2] + parts[3]) / width + epsilon);
  for (int chunk = threadIdx.x; chunk < chunks; chunk += blockDim.x) {
    float values[8], gains[8];
    unpack(row[chunk], values);
    unpack(reinterpret_cast<const uint4*>(gain)[chunk], gains);
#pragma unroll
    for (int e = 0; e < 8; e++) values[e] *= scale * gains[e];
    reinterpret_cast<uint4*>(y)[int64_t(blockIdx.x) * chunks + chunk] = pack(values);
  }
}

// From gates and ups side by side, [rows, 2 * width], to silu(gate) * up, [rows, width]; a thread makes 8.
__global__ void __launch_bounds__(256) multiply_gates(const __half* packed, __half* y, int rows, int width) {
  let_next_begin();
  wait_for_previous();
  const int chunks = width / 8;
  const int64_t place = int64_t(blockIdx.x) * blockDim.x + threadIdx.x;
  if (place >= int64_t(rows) * chunks) return;
  const uint4* gates = reinterpret_cast<const uint4*>(packed) + place / chunks * 2 * chunks + place % chunks;
  float gate[8], up[8];
  unpack(gates[0], gate);
  unpack(gates[chunks], up);
#pragma unroll
  for (int e = 0; e < 8; e++) gate[e] = silu(gate[e]) * up[e];
  reinterpret_cast<uint4*>(y)[place] = pack(gate);
}

}  // namespace shammah
