// Attention of one query position over the float16 keys and values of its slot, and the rotation before it.
//
// Scores of a head are computed 16 positions at a time, all of them kept, then one softmax, then the mix of the values;
// the order of every sum depends on the number of positions alone. It knows one row, no threads.
#pragma once

#include "cpu_math.h"

namespace shammah {

struct Heads {
  int queries;  // heads of queries
  int stored;   // heads of keys and values
  int size;     // elements of a head, a multiple of 16
  int group() const { return queries / stored; }
};

// Rotates a head in halves (x1, x2) -> (x1 cos - x2 sin, x2 cos + x1 sin), as Hugging Face's Llama does, times `scale`.
inline void rotate(const float* from, const float* cos, const float* sin, int size, float scale, float* to) {
  const int half = size / 2;
  const __m512 factor = _mm512_set1_ps(scale);
  for (int i = 0; i < half; i += 16) {
    const __mmask16 lanes = first_lanes(half - i);
    const __m512 a = _mm512_maskz_loadu_ps(lanes, from + i), b = _mm512_maskz_loadu_ps(lanes, from + half + i);
    const __m512 c = _mm512_maskz_loadu_ps(lanes, cos + i), s = _mm512_maskz_loadu_ps(lanes, sin + i);
    const __m512 first = _mm512_fnmadd_ps(b, s, _mm512_mul_ps(a, c)), second = _mm512_fmadd_ps(a, s, _mm512_mul_ps(b, c));
    _mm512_mask_storeu_ps(to + i, lanes, _mm512_mul_ps(first, factor));
    _mm512_mask_storeu_ps(to + half + i, lanes, _mm512_mul_ps(second, factor));
  }
}

inline void store_halves(const float* from, int count, uint16_t* to) {
  for (int i = 0; i < count; i += 16) store_half(to + i, _mm512_loadu_ps(from + i));
}

// The sums of 16 vectors as one vector.
inline __m512 sum_each(const __m512* v) {
  __m512 a[8], b[4], c[2];
  for (int i = 0; i < 8; ++i) {
    a[i] = _mm512_add_ps(_mm512_unpacklo_ps(v[2 * i], v[2 * i + 1]), _mm512_unpackhi_ps(v[2 * i], v[2 * i + 1]));
  }
  for (int i = 0; i < 4; ++i) {
    const __m512d x = _mm512_castps_pd(a[2 * i]), y = _mm512_castps_pd(a[2 * i + 1]);
    b[i] = _mm512_add_ps(_mm512_castpd_ps(_mm512_unpacklo_pd(x, y)), _mm512_castpd_ps(_mm512_unpackhi_pd(x, y)));
  }
  for (int i = 0; i < 2; ++i) {
    c[i] = _mm512_add_ps(_mm512_shuffle_f32x4(b[2 * i], b[2 * i + 1], 0x88),
                         _mm512_shuffle_f32x4(b[2 * i], b[2 * i + 1], 0xDD));
  }
  return _mm512_add_ps(_mm512_shuffle_f32x4(c[0], c[1], 0x88), _mm512_shuffle_f32x4(c[0], c[1], 0xDD));
}

// Converts 16 positions (the last of `count` repeated) of `Vectors` * 16 halves.
template <int Vectors>
inline void widen(const uint16_t* from, int count, float* to) {
  for (int p = 0; p < 16; ++p) {
    const uint16_t* row = from + static_cast<size_t>(p < count ? p : count - 1) * Vectors * 16;
    for (int i = 0; i < Vectors; ++i) _mm512_store_ps(to + (p * Vectors + i) * 16, load_half(row + 16 * i));
  }
}

// Softmax in place over `count` scores (rounded up to 16 with minus infinity); returns 1 / total.
inline float soften(float* scores, int count) {
  __m512 peak = _mm512_set1_ps(-INFINITY);
  for (int i = 0; i < count; i += 16) peak = _mm512_max_ps(peak, _mm512_load_ps(scores + i));
  const __m512 largest = _mm512_set1_ps(_mm512_reduce_max_ps(peak));
  __m512 total = _mm512_setzero_ps();
  for (int i = 0; i < count; i += 16) {
    const __m512 e = _mm512_maskz_mov_ps(first_lanes(count - i), exp16(_mm512_sub_ps(_mm512_load_ps(scores + i), largest)));
    _mm512_store_ps(scores + i, e);
    total = _mm512_add_ps(total, e);
  }
  return 1.0f / _mm512_reduce_add_ps(total);
}

// Asks for 16 positions of halves that are read later.
template <int Vectors>
inline void fetch(const uint16_t* from) {
  for (int line = 0; line < Vectors * 8; ++line) _mm_prefetch(reinterpret_cast<const char*>(from) + 64 * line, _MM_HINT_T1);
}

// Mixes the values of one group of query heads. `queries` [group, size] rotated and scaled, `keys` and `values`
// [count, size] halves, `scores` room for group * (count rounded up to 16), `out` [group, size]; all 64-byte aligned.
// `next`: the keys that will be wanted after these values, or nullptr.
template <int Vectors>
inline void attend_group(const float* queries, int group, const uint16_t* keys, const uint16_t* values, int count,
                         const uint16_t* next, float* scores, float* out) {
  constexpr int kSize = Vectors * 16;
  const int room = (count + 15) / 16 * 16;
  alignas(64) float wide[16 * kSize];
  for (int p = 0; p < count; p += 16) {
    widen<Vectors>(keys + static_cast<size_t>(p) * kSize, count - p, wide);
    fetch<Vectors>(values + static_cast<size_t>(p) * kSize);
    for (int g = 0; g < group; ++g) {
      __m512 products[16];
      for (int i = 0; i < Vectors; ++i) {
        const __m512 q = _mm512_load_ps(queries + g * kSize + 16 * i);
        for (int j = 0; j < 16; ++j) {
          const __m512 k = _mm512_load_ps(wide + j * kSize + 16 * i);
          products[j] = i == 0 ? _mm512_mul_ps(q, k) : _mm512_fmadd_ps(q, k, products[j]);
        }
      }
      const __m512 found = sum_each(products);
      _mm512_store_ps(scores + g * room + p, _mm512_mask_mov_ps(_mm512_set1_ps(-INFINITY), first_lanes(count - p), found));
    }
  }
  for (int g = 0; g < group; ++g) {
    const __m512 share = _mm512_set1_ps(soften(scores + g * room, count));
    for (int i = 0; i < room; i += 16) {
      _mm512_store_ps(scores + g * room + i, _mm512_mul_ps(_mm512_load_ps(scores + g * room + i), share));
    }
  }
  for (int i = 0; i < group * Vectors; ++i) _mm512_store_ps(out + 16 * i, _mm512_setzero_ps());
  for (int p = 0; p < count; p += 16) {
    const int here = count - p < 16 ? count - p : 16;
    widen<Vectors>(values + static_cast<size_t>(p) * kSize, count - p, wide);
    if (next != nullptr) fetch<Vectors>(next + static_cast<size_t>(p) * kSize);
    for (int g = 0; g < group; ++g) {
      __m512 mixed[Vectors];
      for (int i = 0; i < Vectors; ++i) mixed[i] = _mm512_load_ps(out + g * kSize + 16 * i);
      for (int j = 0; j < here; ++j) {
        const __m512 share = _mm512_set1_ps(scores[g * room + p + j]);
        for (int i = 0; i < Vectors; ++i) {
          mixed[i] = _mm512_fmadd_ps(share, _mm512_load_ps(wide + j * kSize + 16 * i), mixed[i]);
        }
      }
      for (int i = 0; i < Vectors; ++i) _mm512_store_ps(out + g * kSize + 16 * i, mixed[i]);
    }
  }
}

// The sizes of heads that `attend` has.
inline bool can_attend(int size) { return size % 16 == 0 && (size <= 96 || size == 128) && size > 0; }

inline void attend(const float* queries, int group, int size, const uint16_t* keys, const uint16_t* values, int count,
                   const uint16_t* next, float* scores, float* out) {
  switch (size / 16) {
    case 1: attend_group<1>(queries, group, keys, values, count, next, scores, out); break;
    case 2: attend_group<2>(queries, group, keys, values, count, next, scores, out); break;
    case 3: attend_group<3>(queries, group, keys, values, count, next, scores, out); break;
    case 4: attend_group<4>(queries, group, keys, values, count, next, scores, out); break;
    case 5: attend_group<5>(queries, group, keys, values, count, next, scores, out); break;
    case 6: attend_group<6>(queries, group, keys, values, count, next, scores, out); break;
    case 8: attend_group<8>(queries, group, keys, values, count, next, scores, out); break;
  }
}

}  // namespace shammah
