// Attention of new tokens to a buffer of keys and values [batch, kv_heads, room, head_dim] that grows in place.
//
// `qkv` is [batch, tokens, (heads + 2 * kv_heads) * head_dim]; lengths[b] + 1 tokens of row b are in the buffer once
// the new ones are. Rotary embedding as in Llama: the first half of a head with the second. One new token a row is one
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

// What the warps of a block share. LANES lanes hold a head, 8 elements each, so a head has at most 8 * LANES.
template <int LANES, int HEADS, int WARPS>
struct Desk {
  float queries[HEADS][LANES * 8];
  uint4 fresh[2][LANES];  // the new key and value
  float mixed[WARPS][HEADS][LANES * 8];
  float tops[WARPS][HEADS];
  float totals[WARPS][HEADS];
};

// Lays out the queries, rotated and scaled; with FRESH also the row's new key and value, and appends them.
template <bool FRESH, int LANES, int HEADS, int WARPS>
__device__ __forceinline__ void prepare(const Attention& a, Desk<LANES, HEADS, WARPS>& desk, int row, int position) {
  const int head = blockIdx.x * HEADS, group = a.heads / a.kv_heads, kv_head = head / group, half = a.head_dim / 2;
  const __half* packed = a.qkv + int64_t(row) * (a.heads + 2 * a.kv_heads) * a.head_dim;
  const float scale = rsqrtf(float(a.head_dim));
  __half* key = reinterpret_cast<__half*>(desk.fresh[0]);
  __half* value = reinterpret_cast<__half*>(desk.fresh[1]);
  for (int i = threadIdx.x; i < (HEADS + FRESH) * half; i += WARPS * kWarp) {
    const int which = i / half, p = i % half;
    const int source = which < HEADS ? head + which : a.heads + kv_head;
    const float2 made = rotate(a, packed + source * a.head_dim, position, p);
    if (which < HEADS) {
      desk.queries[which][p] = made.x * scale;
      desk.queries[which][p + half] = made.y * scale;
    } else {
      key[p] = __float2half_rn(made.x);
      key[p + half] = __float2half_rn(made.y);
    }
  }
  if (FRESH) {
    const __half* own = packed + (a.heads + a.kv_heads + kv_head) * a.head_dim;
    for (int e = threadIdx.x; e < a.head_dim; e += WARPS * kWarp) value[e] = own[e];
  }
  __syncthreads();
  if (!FRESH || head % group != 0) return;  // one of the blocks of this kv head appends
  const int64_t place = find_place(a, row, kv_head, position);
  for (int e = threadIdx.x; e < a.head_dim; e += WARPS * kWarp) {
    a.keys[place + e] = key[e];
    a.values[place + e] = value[e];
  }
}

// The scores of UNROLL keys a lane, and their values mixed in; `inside` tells which of them are positions of the row.
template <int LANES, int HEADS, int UNROLL>
__device__ __forceinline__ void mix(Running (&running)[HEADS], const float (&query)[HEADS][8],
                                    const uint4 (&key)[UNROLL], const uint4 (&value)[UNROLL],
                                    const bool (&inside)[UNROLL]) {
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

// A warp's share of the positions: 32 / LANES at a time, UNROLL times. Its result lies on the desk.
template <bool FRESH, int LANES, int HEADS, int WARPS>
__device__ __forceinline__ void scan(const Attention& a, Desk<LANES, HEADS, WARPS>& desk, int64_t start, int position) {
  constexpr int UNROLL = 4, BESIDE = kWarp / LANES;
  const int lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp, piece = lane % LANES, apart = a.head_dim / 8;
  const bool live = piece < apart;
  float query[HEADS][8];
#pragma unroll
  for (int h = 0; h < HEADS; h++) {
#pragma unroll
    for (int e = 0; e < 8; e++) query[h][e] = live ? desk.queries[h][piece * 8 + e] : 0.f;
  }
  const uint4* keys = reinterpret_cast<const uint4*>(a.keys + start) + piece;
  const uint4* values = reinterpret_cast<const uint4*>(a.values + start) + piece;
  Running running[HEADS];
  for (int base = warp * BESIDE * UNROLL; base <= position; base += WARPS * BESIDE * UNROLL) {
    uint4 key[UNROLL], value[UNROLL];
    bool inside[UNROLL];
#pragma unroll
    for (int u = 0; u < UNROLL; u++) {
      const int at = base + u * BESIDE + lane / LANES;
      inside[u] = at <= position;
      const bool stored = live && (FRESH ? at < position : inside[u]);
      key[u] = stored ? keys[int64_t(at) * apart] : uint4{0, 0, 0, 0};
      value[u] = stored ? values[int64_t(at) * apart] : uint4{0, 0, 0, 0};
    }
#pragma unroll
    for (int u = 0; u < UNROLL; u++) {
      if (!FRESH || !live || base + u * BESIDE + lane / LANES != position) continue;
      key[u] = desk.fresh[0][piece];
      value[u] = desk.fresh[1][piece];
    }
    mix<LANES>(running, query, key, value, inside);
  }
#pragma unroll
  for (int h = 0; h < HEADS; h++) {
#pragma unroll
    for (int step = LANES; step < kWarp; step *= 2) running[h].merge_lane(step);
    if (lane >= LANES) continue;
#pragma unroll
    for (int e = 0; e < 8; e++) desk.mixed[warp][h][piece * 8 + e] = running[h].mixed[e];
    desk.tops[warp][h] = running[h].top;
    desk.totals[warp][h] = running[h].total;
  }
}

// Grid: heads / HEADS, batch * tokens. The HEADS heads of a block are of one kv head and share what is read. FRESH: one
// token a row, which this kernel appends itself.
template <int LANES, int HEADS, int WARPS, bool FRESH>
__global__ void __launch_bounds__(WARPS* kWarp) attend(Attention a) {
  __shared__ Desk<LANES, HEADS, WARPS> desk;
  const int row = blockIdx.y, head = blockIdx.x * HEADS;
  let_next_begin();
  wait_for_previous();
  const int position = find_position(a, row);
  prepare<FRESH>(a, desk, row, position);
  scan<FRESH>(a, desk, find_place(a, row, head / (a.heads / a.kv_heads), 0), position);
  __syncthreads();
  for (int i = threadIdx.x; i < HEADS * a.head_dim; i += WARPS * kWarp) {
    const int h = i / a.head_dim, e = i % a.head_dim;
    float best = desk.tops[0][h], total = 0, made = 0;
#pragma unroll
    for (int w = 1; w < WARPS; w++) best = fmaxf(best, desk.tops[w][h]);
#pragma unroll
    for (int w = 0; w < WARPS; w++) {
      const float factor = __expf(desk.tops[w][h] - best);
      total += factor * desk.totals[w][h];
      made += factor * desk.mixed[w][h][e];
    }
    a.mixed[(int64_t(row) * a.heads + head + h) * a.head_dim + e] = __float2half_rn(made / total);
  }
}

}  // namespace shammah
