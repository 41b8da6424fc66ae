// Attention of new tokens to a buffer of keys and values [batch, kv_heads, room, head_dim] that grows in place.
//
// `qkv` is [batch, tokens, (heads + 2 * kv_heads) * head_dim]; lengths[b] + 1 tokens of row b are in the buffer once the
// new ones are. Rotary embedding as in Llama: the first half of a head with the second. One new token a row is one
// kernel; several are stored by `append` first, and each then attends as if it were alone.
#pragma once

#include "cuda_base.cuh"

namespace shammah {

struct Attention {
  const __half* qkv;
  const int32_t* lengths;
  const __half* cos;  // [positions, head_dim / 2]
  const __half* sin;
  __half* keys;
  __half* values;
  __half* mixed;  // [batch, tokens, heads * head_dim]
  int tokens;
  int heads;
  int kv_heads;
  int head_dim;
  int room;
};

// Where a row's token stands; what is nobody's may have any length, and must not write outside the buffer.
__device__ __forceinline__ int find_position(const Attention& a, int row) {
  const int position = a.lengths[row / a.tokens] + 1 - a.tokens + row % a.tokens;
  return max(0, min(position, a.room - 1));
}

// The rotated elements p and p + head_dim / 2 of a head.
__device__ __forceinline__ float2 rotate(const Attention& a, const __half* head, int position, int p) {
  const int half = a.head_dim / 2;
  const float x = __half2float(head[p]), y = __half2float(head[p + half]);
  const float cos = __half2float(a.cos[int64_t(position) * half + p]);
  const float sin = __half2float(a.sin[int64_t(position) * half + p]);
  return {x * cos - y * sin, y * cos + x * sin};
}

__device__ __forceinline__ int64_t find_place(const Attention& a, int row, int kv_head, int position) {
  return ((int64_t(row / a.tokens) * a.kv_heads + kv_head) * a.room + position) * a.head_dim;
}

// Grid: kv_heads, batch * tokens.
__global__ void __launch_bounds__(128) append(Attention a) {
  let_next_begin();
  wait_for_previous();
  const int row = blockIdx.y, half = a.head_dim / 2, position = find_position(a, row);
  const __half* key =
      a.qkv + (int64_t(row) * (a.heads + 2 * a.kv_heads) + a.heads + blockIdx.x) * a.head_dim;
  const int64_t place = find_place(a, row, blockIdx.x, position);
  for (int p = threadIdx.x; p < half; p += blockDim.x) {
    const float2 made = rotate(a, key, position, p);
    a.keys[place + p] = __float2half_rn(made.x);
    a.keys[place + p + half] = __float2half_rn(made.y);
  }
  for (int e = threadIdx.x; e < a.head_dim; e += blockDim.x) {
    a.values[place + e] = key[int64_t(a.kv_heads) * a.head_dim + e];
  }
}

// A running softmax: the largest score, the sum of shares against it, and the sum of values by those shares.
struct Running {
  float top = -FLT_MAX;
  float total = 0;
  float mixed[8] = {};

  __device__ __forceinline__ void raise(float best) {
    const float factor = __expf(top - best);
    top = best;
    total *= factor;
#pragma unroll
    for (int e = 0; e < 8; e++) mixed[e] *= factor;
  }
  __device__ __forceinline__ void merge_lane(int step) {
    const float other = __shfl_xor_sync(kAll, top, step);
    raise(fmaxf(top, other));  // both sides now stand against the same score
    total += __shfl_xor_sync(kAll, total, step);
#pragma unroll
    for (int e = 0; e < 8; e++) mixed[e] += __shfl_xor_sync(kAll, mixed[e], step);
  }
};

// Grid: heads / HEADS, batch * tokens. LANES lanes hold a head (8 elements each, at most 8 * LANES), so a warp reads
// 32 / LANES positions at a time, UNROLL times; HEADS heads of one kv head share what is read. FRESH: one token a row,
// which this kernel appends itself.
template <int LANES, int HEADS, int WARPS, bool FRESH>
__global__ void __launch_bounds__(WARPS* kWarp) attend(Attention a) {
  constexpr int UNROLL = 4, WIDTH = LANES * 8, BESIDE = kWarp / LANES;
  __shared__ float queries[HEADS][WIDTH];
  __shared__ uint4 fresh[2][LANES];
  __shared__ float mixed[WARPS][HEADS][WIDTH], tops[WARPS][HEADS], totals[WARPS][HEADS];
  const int row = blockIdx.y, head = blockIdx.x * HEADS, kv_head = head / (a.heads / a.kv_heads);
  const int half = a.head_dim / 2, thread = threadIdx.x;
  let_next_begin();
  wait_for_previous();
  const int position = find_position(a, row);
  const __half* packed = a.qkv + int64_t(row) * (a.heads + 2 * a.kv_heads) * a.head_dim;
  const float scale = rsqrtf(float(a.head_dim));
  __half* fresh_key = reinterpret_cast<__half*>(fresh[0]);
  __half* fresh_value = reinterpret_cast<__half*>(fresh[1]);
  for (int i = thread; i < (HEADS + FRESH) * half; i += WARPS * kWarp) {
    const int which = i / half, p = i % half;
    const float2 made = rotate(a, packed + (which < HEADS ? head + which : a.heads + kv_head) * a.head_dim, position, p);
    if (which < HEADS) {
      queries[which][p] = made.x * scale;
      queries[which][p + half] = made.y * scale;
    } else {
      fresh_key[p] = __float2half_rn(made.x);
      fresh_key[p + half] = __float2half_rn(made.y);
    }
  }
  const int64_t start = find_place(a, row, kv_head, 0);
  if (FRESH) {
    const __half* value = packed + (a.heads + a.kv_heads + kv_head) * a.head_dim;
    for (int e = thread; e < a.head_dim; e += WARPS * kWarp) fresh_value[e] = value[e];
  }
  __syncthreads();
  if (FRESH && head % (a.heads / a.kv_heads) == 0) {  // one of the blocks of this kv head
    const int64_t place = start + int64_t(position) * a.head_dim;
    for (int e = thread; e < a.head_dim; e += WARPS * kWarp) {
      a.keys[place + e] = fresh_key[e];
      a.values[place + e] = fresh_value[e];
    }
  }
  const int lane = thread % kWarp, warp = thread / kWarp, piece = lane % LANES;
  const bool live = piece * 8 < a.head_dim;
  float query[HEADS][8];
#pragma unroll
  for (int h = 0; h < HEADS; h++) {
#pragma unroll
    for (int e = 0; e < 8; e++) query[h][e] = live ? queries[h][piece * 8 + e] : 0.f;
  }
  const uint4* keys = reinterpret_cast<const uint4*>(a.keys + start) + piece;
  const uint4* values = reinterpret_cast<const uint4*>(a.values + start) + piece;
  const int apart = a.head_dim / 8;
  Running running[HEADS];
  for (int base = warp * BESIDE * UNROLL; base <= position; base += WARPS * BESIDE * UNROLL) {
    uint4 key[UNROLL], value[UNROLL];
    bool inside[UNROLL];
#pragma unroll
    for (int u = 0; u < UNROLL; u++) {
      const int at = base + u * BESIDE + lane / LANES;
      inside[u] = at <= position;
      const bool own = FRESH && at == position;
      const bool load = inside[u] && live;
      key[u] = load ? (own ? fresh[0][piece] : keys[int64_t(at) * apart]) : uint4{0, 0, 0, 0};
      value[u] = load ? (own ? fresh[1][piece] : values[int64_t(at) * apart]) : uint4{0, 0, 0, 0};
    }
    float scores[HEADS][UNROLL] = {};
#pragma unroll
    for (int u = 0; u < UNROLL; u++) {
      float k[8];
      unpack(key[u], k);
#pragma unroll
      for (int h = 0; h < HEADS; h++) {
#pragma unroll
        for (int e = 0; e < 8; e++) scores[h][u] += query[h][e] * k[e];
#pragma unroll
        for (int step = LANES / 2; step > 0; step /= 2) scores[h][u] += __shfl_xor_sync(kAll, scores[h][u], step);
      }
    }
#pragma unroll
    for (int h = 0; h < HEADS; h++) {
      float best = running[h].top;
#pragma unroll
      for (int u = 0; u < UNROLL; u++) best = inside[u] ? fmaxf(best, scores[h][u]) : best;
      running[h].raise(best);
#pragma unroll
      for (int u = 0; u < UNROLL; u++) {
        scores[h][u] = inside[u] ? __expf(scores[h][u] - best) : 0.f;
        running[h].total += scores[h][u];
      }
    }
#pragma unroll
    for (int u = 0; u < UNROLL; u++) {
      float v[8];
      unpack(value[u], v);
#pragma unroll
      for (int h = 0; h < HEADS; h++) {
#pragma unroll
        for (int e = 0; e < 8; e++) running[h].mixed[e] += scores[h][u] * v[e];
      }
    }
  }
#pragma unroll
  for (int h = 0; h < HEADS; h++) {
#pragma unroll
    for (int step = LANES; step < kWarp; step *= 2) running[h].merge_lane(step);
    if (lane < LANES) {
#pragma unroll
      for (int e = 0; e < 8; e++) mixed[warp][h][piece * 8 + e] = running[h].mixed[e];
      tops[warp][h] = running[h].top;
      totals[warp][h] = running[h].total;
    }
  }
  __syncthreads();
  for (int i = thread; i < HEADS * a.head_dim; i += WARPS * kWarp) {
    const int h = i / a.head_dim, e = i % a.head_dim;
    float best = tops[0][h], total = 0, made = 0;
#pragma unroll
    for (int w = 1; w < WARPS; w++) best = fmaxf(best, tops[w][h]);
#pragma unroll
    for (int w = 0; w < WARPS; w++) {
      const float factor = __expf(tops[w][h] - best);
      total += factor * totals[w][h];
      made += factor * mixed[w][h][e];
    }
    a.mixed[(int64_t(row) * a.heads + head + h) * a.head_dim + e] = __float2half_rn(made / total);
  }
}

}  // namespace shammah
