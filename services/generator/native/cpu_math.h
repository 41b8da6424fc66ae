// Arithmetic of 16 floats at a time, and the quantisation of activations. NaN in, NaN out, everywhere.
#pragma once

#include <immintrin.h>

#include <cmath>
#include <cstdint>
#include <cstring>

namespace shammah {

constexpr int kBlock = 32;  // neighbouring inputs that share a scale
constexpr int kPair = 2 * kBlock;

inline __mmask16 first_lanes(int count) {
  return count >= 16 ? 0xFFFF : count <= 0 ? 0 : static_cast<__mmask16>((1u << count) - 1);
}

// e^x; relative error below 2e-7 for -87 < x < 88 (Cephes' polynomial of degree 5 on [-ln 2 / 2, ln 2 / 2]).
inline __m512 exp16(__m512 x) {
  // max and min return their second operand where one is NaN.
  x = _mm512_min_ps(_mm512_set1_ps(88.3f), _mm512_max_ps(_mm512_set1_ps(-87.3f), x));
  const __m512 n = _mm512_roundscale_ps(_mm512_mul_ps(x, _mm512_set1_ps(1.44269504f)), _MM_FROUND_TO_NEAREST_INT);
  __m512 r = _mm512_fnmadd_ps(n, _mm512_set1_ps(0.693359375f), x);
  r = _mm512_fnmadd_ps(n, _mm512_set1_ps(-2.12194440e-4f), r);
  __m512 p = _mm512_set1_ps(1.9875691500e-4f);
  p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.3981999507e-3f));
  p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(8.3334519073e-3f));
  p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(4.1665795894e-2f));
  p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.6666665459e-1f));
  p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(5.0000001201e-1f));
  p = _mm512_fmadd_ps(p, _mm512_mul_ps(r, r), _mm512_add_ps(r, _mm512_set1_ps(1.0f)));
  return _mm512_scalef_ps(p, n);
}

// x * sigmoid(x)
inline __m512 silu16(__m512 x) {
  const __m512 one = _mm512_set1_ps(1.0f);
  return _mm512_div_ps(x, _mm512_add_ps(one, exp16(_mm512_sub_ps(_mm512_setzero_ps(), x))));
}

// Rows of activations as integers: a scale for each row and block of 32 (or for each row, the first of its scales), and
// the values both signed and shifted by 128, as the two kinds of products want them. `stride` bytes and `scale_stride` floats lie between two rows.
struct Activations {
  int8_t* values;
  uint8_t* shifted;
  float* scales;
  int stride;
  int scale_stride;
};

// Writes 32 floats (two vectors) as integers of -127..127, `largest` being 127.
inline void store_block(__m512 low, __m512 high, float largest, const Activations& to, int row, int block) {
  const __m512 inverse = _mm512_set1_ps(largest > 0.0f ? 127.0f / largest : 0.0f);
  const __m128i a = _mm512_cvtepi32_epi8(_mm512_cvtps_epi32(_mm512_mul_ps(low, inverse)));
  const __m128i b = _mm512_cvtepi32_epi8(_mm512_cvtps_epi32(_mm512_mul_ps(high, inverse)));
  const __m256i both = _mm256_set_m128i(b, a);
  const size_t at = static_cast<size_t>(row) * to.stride + block * kBlock;
  _mm256_store_si256(reinterpret_cast<__m256i*>(to.values + at), both);
  _mm256_store_si256(reinterpret_cast<__m256i*>(to.shifted + at),
                     _mm256_xor_si256(both, _mm256_set1_epi8(static_cast<char>(0x80))));
}

// Quantises 32 floats (what is behind a row's end is 0) with a scale of their own.
inline void quantise_block(__m512 low, __m512 high, const Activations& to, int row, int block) {
  const float largest = _mm512_reduce_max_ps(_mm512_max_ps(_mm512_abs_ps(low), _mm512_abs_ps(high)));
  const __mmask16 odd = _mm512_cmp_ps_mask(low, low, _CMP_UNORD_Q) | _mm512_cmp_ps_mask(high, high, _CMP_UNORD_Q);
  to.scales[row * to.scale_stride + block] = odd ? NAN : largest / 127.0f;
  store_block(low, high, largest, to, row, block);
}

// RMS normalisation of a row of `width` floats, times `gain`.
inline void normalise_row(const float* x, const float* gain, int width, float epsilon, float* to) {
  __m512 squares = _mm512_setzero_ps();
  for (int i = 0; i < width; i += 16) {
    const __m512 v = _mm512_maskz_loadu_ps(first_lanes(width - i), x + i);
    squares = _mm512_fmadd_ps(v, v, squares);
  }
  const float mean = _mm512_reduce_add_ps(squares) / static_cast<float>(width);
  const __m512 factor = _mm512_set1_ps(1.0f / std::sqrt(mean + epsilon));
  for (int i = 0; i < width; i += 16) {
    const __mmask16 lanes = first_lanes(width - i);
    const __m512 v = _mm512_mul_ps(_mm512_maskz_loadu_ps(lanes, x + i), factor);
    _mm512_mask_storeu_ps(to + i, lanes, _mm512_mul_ps(v, _mm512_maskz_loadu_ps(lanes, gain + i)));
  }
}

// Quantises a row of `width` floats with one scale for each block, or with one scale for all.
inline void quantise_row(const float* from, int width, bool whole, const Activations& to, int row) {
  const auto load = [&](int at) { return _mm512_maskz_loadu_ps(first_lanes(width - at), from + at); };
  if (!whole) {
    for (int at = 0; at < to.stride; at += kBlock) quantise_block(load(at), load(at + 16), to, row, at / kBlock);
    return;
  }
  __m512 peak = _mm512_setzero_ps();
  __mmask16 odd = 0;
  for (int at = 0; at < width; at += 16) {
    odd |= _mm512_cmp_ps_mask(load(at), load(at), _CMP_UNORD_Q);
    peak = _mm512_max_ps(peak, _mm512_abs_ps(load(at)));
  }
  const float largest = _mm512_reduce_max_ps(peak);
  for (int at = 0; at < to.stride; at += kBlock) store_block(load(at), load(at + 16), largest, to, row, at / kBlock);
  to.scales[row * to.scale_stride] = odd ? NAN : largest / 127.0f;
}

inline __m512 load_half(const uint16_t* from) {
  return _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(from)));
}

inline void store_half(uint16_t* to, __m512 value) {
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(to),
                      _mm512_cvtps_ph(value, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
}

}  // namespace shammah
