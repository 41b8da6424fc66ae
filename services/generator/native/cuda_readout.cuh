// From logits [rows, vocab] to the likeliest token of each row and how sure the model was, and on to the next step.
//
// The ring [steps, rows, 4] takes token, log-probability, entropy and margin in nats, in the place that the length of
// the first row gives. A logit that is no number makes log-probability and entropy no numbers; the token is then still
// one of the vocabulary.
#pragma once

#include "cuda_base.cuh"

namespace shammah {

// Of some logits: the two largest, the first's id, the sum of exp(x - first) and of (x - first) exp(x - first).
struct Extract {
  float first;
  float second;
  int id;
  float total;
  float weighted;
  int place;  // in the ring

  static __device__ __forceinline__ Extract none() { return {-FLT_MAX, -FLT_MAX, 0, 0.f, 0.f, 0}; }

  __device__ __forceinline__ void lower(float by) {
    const float factor = __expf(by);
    weighted = total > 0 ? factor * (weighted + by * total) : 0.f;
    total *= factor;
  }
  __device__ __forceinline__ void take(float x, int index) {
    if (x > first) {
      lower(first - x);
      second = first;
      first = x;
      id = index;
      total += 1;
      return;
    }
    const float share = __expf(x - first);
    second = fmaxf(second, x);
    total += share;
    weighted += (x - first) * share;
  }
  __device__ __forceinline__ void merge(Extract other) {
    if (other.first > first || (other.first == first && other.id < id)) {
      const Extract mine = *this;
      *this = other;
      other = mine;
    }
    second = fmaxf(second, other.first);
    other.lower(other.first - first);
    total += other.total;
    weighted += other.weighted;
  }
  __device__ __forceinline__ void merge_warp() {
#pragma unroll
    for (int step = kWarp / 2; step > 0; step /= 2) {
      Extract other;
      other.first = __shfl_xor_sync(kAll, first, step);
      other.second = __shfl_xor_sync(kAll, second, step);
      other.id = __shfl_xor_sync(kAll, id, step);
      other.total = __shfl_xor_sync(kAll, total, step);
      other.weighted = __shfl_xor_sync(kAll, weighted, step);
      other.place = place;
      merge(other);
    }
  }
};

struct Readout {
  const float* logits;
  const int32_t* lengths;
  Extract* extracts;  // [rows, parts]
  float* ring;
  int64_t* next_ids;
  int32_t* next_lengths;  // may be `lengths`
  int rows;
  int vocab;
  int parts;
  int steps;
};

// Grid: parts, rows.
__global__ void __launch_bounds__(256) scan_logits(Readout r) {
  __shared__ Extract warps[8];
  let_next_begin();
  wait_for_previous();
  const float* row = r.logits + int64_t(blockIdx.y) * r.vocab;
  const int piece = (r.vocab + r.parts - 1) / r.parts, begin = blockIdx.x * piece, end = min(begin + piece, r.vocab);
  Extract found = Extract::none();
  constexpr int kAhead = 4;
  for (int base = begin + threadIdx.x; base < end; base += blockDim.x * kAhead) {
    float x[kAhead];
#pragma unroll
    for (int u = 0; u < kAhead; u++) {
      const int at = base + u * blockDim.x;
      x[u] = at < end ? row[at] : 0.f;
    }
#pragma unroll
    for (int u = 0; u < kAhead; u++) {
      const int at = base + u * blockDim.x;
      if (at < end) found.take(x[u], at);
    }
  }
  found.merge_warp();
  if (threadIdx.x % kWarp == 0) warps[threadIdx.x / kWarp] = found;
  __syncthreads();
  if (threadIdx.x > 0) return;
  for (int w = 1; w < 8; w++) found.merge(warps[w]);
  // Here, since the lengths are counted up while other rows are still written.
  found.place = int(uint32_t(r.lengths[0]) % uint32_t(r.steps));
  r.extracts[blockIdx.y * r.parts + blockIdx.x] = found;
}

// Grid: rows; one warp.
__global__ void __launch_bounds__(32) finish_step(Readout r) {
  let_next_begin();
  wait_for_previous();
  const int row = blockIdx.x;
  Extract found = Extract::none();
  for (int part = threadIdx.x; part < r.parts; part += kWarp) {
    const Extract other = r.extracts[row * r.parts + part];
    found.merge(other);
    found.place = other.place;
  }
  found.merge_warp();
  if (threadIdx.x > 0) return;
  float* made = r.ring + (int64_t(found.place) * r.rows + row) * 4;
  made[0] = float(found.id);
  made[1] = -logf(found.total);
  made[2] = logf(found.total) - found.weighted / found.total;
  made[3] = found.first - found.second;
  r.next_ids[row] = found.id;
  r.next_lengths[row] = r.lengths[row] + 1;
}

}  // namespace shammah
