// Weights into the packed form of `cpu_linear.h`, and rows of it back to floats.
#pragma once

#include "cpu_linear.h"

namespace shammah {

// Puts 32 integers of one output, two vectors, into its lane of eight groups.
inline void put_groups(__m512 low, __m512 high, float scale, uint8_t* groups, int lane) {
  const __m512 inverse = _mm512_set1_ps(scale > 0.0f && !std::isinf(scale) ? 1.0f / scale : 0.0f);
  const auto integers = [&](__m512 v) {
    const __m512i i = _mm512_cvtps_epi32(_mm512_mul_ps(v, inverse));
    // A scale that was rounded to float16 may be a little small.
    return _mm512_cvtepi32_epi8(_mm512_min_epi32(_mm512_set1_epi32(127), _mm512_max_epi32(_mm512_set1_epi32(-127), i)));
  };
  alignas(32) int8_t bytes[kBlock];
  _mm_store_si128(reinterpret_cast<__m128i*>(bytes), integers(low));
  _mm_store_si128(reinterpret_cast<__m128i*>(bytes + 16), integers(high));
  for (int group = 0; group < 8; ++group) std::memcpy(groups + 64 * group + 4 * lane, bytes + 4 * group, 4);
}

// The largest size among `width` floats; NaN where one of them is.
inline float find_largest(const float* x, int width) {
  __m512 peak = _mm512_setzero_ps();
  __mmask16 odd = 0;
  for (int i = 0; i < width; i += 16) {
    const __m512 v = _mm512_maskz_loadu_ps(first_lanes(width - i), x + i);
    odd |= _mm512_cmp_ps_mask(v, v, _CMP_UNORD_Q);
    peak = _mm512_max_ps(peak, _mm512_abs_ps(v));
  }
  return odd ? NAN : _mm512_reduce_max_ps(peak);
}

// Quantises outputs `first` to `last` of a float32 weight [outputs, columns]; those behind its end become 0. A scale is
// rounded to float16 before the weights are divided by it, so that what is stored is what was meant.
inline void pack_outputs(const float* weight, int outputs, int columns, const Packed& form, int first, int last,
                         uint8_t* packed) {
  for (int output = first; output < last; ++output) {
    uint8_t* tile = packed + static_cast<size_t>(output / kTile) * form.tile_bytes();
    const int lane = output % kTile;
    const float* row = weight + static_cast<size_t>(output) * columns;
    const int width = output < outputs ? columns : 0;
    const auto load = [&](int at) { return _mm512_maskz_loadu_ps(first_lanes(width - at), row + at); };
    float scale = form.whole ? find_largest(row, width) / 127.0f : 0.0f;
    if (form.whole) {
      std::memcpy(tile + static_cast<size_t>(form.units) * kUnitWeights + 4 * lane, &scale, 4);
    }
    for (int at = 0; at < form.units * kPair; at += kBlock) {
      uint8_t* unit = tile + at / kPair * form.unit_bytes();
      const int block = at / kBlock % 2;
      if (!form.whole) {
        const int inside = width - at < 0 ? 0 : width - at < kBlock ? width - at : kBlock;
        const uint16_t half = _cvtss_sh(find_largest(row + at, inside) / 127.0f, _MM_FROUND_TO_NEAREST_INT);
        scale = _cvtsh_ss(half);
        std::memcpy(unit + kUnitWeights + 32 * block + 2 * lane, &half, 2);
      }
      put_groups(load(at), load(at + 16), scale, unit + 512 * block, lane);
    }
  }
}

// Writes one output's weights as floats.
inline void unpack_output(const Packed& w, int output, int columns, float* to) {
  const uint8_t* tile = w.tile(output / kTile);
  const int lane = output % kTile;
  for (int i = 0; i < columns; ++i) {
    const uint8_t* unit = tile + i / kPair * w.unit_bytes();
    const int inside = i % kPair;
    float scale;
    if (w.whole) {
      std::memcpy(&scale, tile + static_cast<size_t>(w.units) * kUnitWeights + 4 * lane, 4);
    } else {
      uint16_t half;
      std::memcpy(&half, unit + kUnitWeights + 32 * (inside / kBlock) + 2 * lane, 2);
      scale = _cvtsh_ss(half);
    }
    to[i] = static_cast<float>(static_cast<int8_t>(unit[64 * (inside / 4) + 4 * lane + inside % 4])) * scale;
  }
}

}  // namespace shammah
