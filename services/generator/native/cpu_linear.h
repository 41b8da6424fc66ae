// Products of int8 activations and packed int8 weights.
//
// Outputs lie in tiles of 16, inputs in groups of 4: [groups][16 outputs][4 inputs] int8. A group row of 64 bytes is what
// a VNNI instruction takes, and eight or sixteen of them are what an AMX tile takes. There are two schemes. "block": a
// scale for each 32 inputs, of weights and activations alike; a unit of 64 inputs is two blocks of eight groups, then
// [2 blocks][16 outputs] float16 scales, 1,088 bytes. "row": one scale for each output and one for each row of
// activations; units are sixteen groups, 1,024 bytes, and the tile ends with 16 float32 scales. A tile is one stream.
// Sums of integers are exact, and blocks are added to a float32 total one after the other: both kinds of instructions
// agree to the bit, and a row's result does not depend on how many rows there are. `cpu_pack.h` writes this form.
#pragma once

#include "cpu_math.h"

namespace shammah {

constexpr int kTile = 16;
constexpr int kUnitWeights = kPair * kTile;
constexpr int kBlockUnit = kUnitWeights + 2 * kTile * 2;
constexpr int kRowTail = kTile * 4;
constexpr int kVnniRows = 8;
constexpr int kAmxRows = 16;
constexpr int kAmxLeast = 9;  // fewer rows are quicker without
constexpr int kUnitsAhead = 8;

struct Packed {
  const uint8_t* data;
  int tiles;
  int units;   // of 64 inputs
  bool whole;  // the scheme "row"
  int unit_bytes() const { return whole ? kUnitWeights : kBlockUnit; }
  size_t tile_bytes() const { return static_cast<size_t>(units) * unit_bytes() + (whole ? kRowTail : 0); }
  const uint8_t* tile(int index) const { return data + index * tile_bytes(); }
};

inline void fetch_line(const char* from) { _mm_prefetch(from, _MM_HINT_T1); }

// Which lines of memory a pass over a tile asks for meanwhile, for each of its units. The hardware alone streams weights
// at half of the bandwidth. A single pass asks some units ahead; of several, each asks for its share of the next tile.
// Asking is spread over the work on a unit where that is short: in a burst, requests wait for each other.
struct Ahead {
  size_t distance;
  int lines;
  Ahead(int pass, int passes, const Packed& w) {
    const int all = w.unit_bytes() / 64, first = all * pass / passes;
    distance = (passes == 1 ? static_cast<size_t>(kUnitsAhead) * w.unit_bytes() : w.tile_bytes()) + 64 * first;
    lines = all * (pass + 1) / passes - first;
  }
  const char* from(const uint8_t* unit) const { return reinterpret_cast<const char*>(unit) + distance; }
  void fetch(const uint8_t* unit) const {
    for (int line = 0; line < lines; ++line) fetch_line(from(unit) + 64 * line);
  }
};

// Asks for a tile that will be the first of a product, while something else is still to be waited for.
inline void fetch_tile(const Packed& w, int index) {
  if (index >= w.tiles) return;
  const char* from = reinterpret_cast<const char*>(w.tile(index));
  for (size_t at = 0; at < w.tile_bytes(); at += 64) _mm_prefetch(from + at, _MM_HINT_T0);
}

inline __m512 block_scales(const uint8_t* unit, int block) {
  return load_half(reinterpret_cast<const uint16_t*>(unit + kUnitWeights + 32 * block));
}

inline __m512 row_scales(const uint8_t* tile, int units) {
  return _mm512_load_ps(reinterpret_cast<const float*>(tile + static_cast<size_t>(units) * kUnitWeights));
}

// Adds eight groups (32 inputs) to the integer sums of `Rows` rows. The instruction multiplies unsigned by signed bytes,
// so activations are shifted by 128, and `off` gathers 128 times the sum of the weights, to be taken off. For one row,
// which streams them as fast as memory gives, a line from `soon` on is asked for with each group.
template <int Rows>
inline void add_groups(const uint8_t* weights, const uint8_t* from, int stride, const char* soon, __m512i* sums,
                       __m512i& off) {
  const __m512i shift = _mm512_set1_epi8(static_cast<char>(0x80));
  for (int group = 0; group < 8; ++group) {
    const __m512i w = _mm512_load_si512(weights + 64 * group);
    if (Rows == 1) fetch_line(soon + 64 * group);
    off = _mm512_dpbusd_epi32(off, shift, w);
    for (int r = 0; r < Rows; ++r) {
      int four;
      std::memcpy(&four, from + static_cast<size_t>(r) * stride + 4 * group, 4);
      sums[r] = _mm512_dpbusd_epi32(sums[r], _mm512_set1_epi32(four), w);
    }
  }
}

template <int Rows>
inline void multiply_blocks(const uint8_t* tile, int units, const Activations& a, int row, const Ahead& ahead,
                            __m512* totals) {
  const uint8_t* from = a.shifted + static_cast<size_t>(row) * a.stride;
  const float* scales = a.scales + row * a.scale_stride;
  for (int r = 0; r < Rows; ++r) totals[r] = _mm512_setzero_ps();
  for (int at = 0; at < 2 * units; ++at) {
    const uint8_t* unit = tile + (at / 2) * kBlockUnit;
    if (Rows > 1 && at % 2 == 0) ahead.fetch(unit);
    if (Rows == 1 && at % 2 == 0) fetch_line(ahead.from(unit) + kUnitWeights);  // the scales
    __m512i sums[Rows], off = _mm512_setzero_si512();
    for (int r = 0; r < Rows; ++r) sums[r] = _mm512_setzero_si512();
    const char* soon = ahead.from(unit) + 512 * (at % 2);
    add_groups<Rows>(unit + 512 * (at % 2), from + at * kBlock, a.stride, soon, sums, off);
    const __m512 scale = block_scales(unit, at % 2);
    for (int r = 0; r < Rows; ++r) {
      const __m512 exact = _mm512_cvtepi32_ps(_mm512_sub_epi32(sums[r], off));
      const __m512 both = _mm512_mul_ps(scale, _mm512_set1_ps(scales[r * a.scale_stride + at]));
      totals[r] = _mm512_fmadd_ps(exact, both, totals[r]);
    }
  }
}

inline __m512 scale_row(__m512i sum, __m512 scale, float other) {
  return _mm512_mul_ps(_mm512_cvtepi32_ps(sum), _mm512_mul_ps(scale, _mm512_set1_ps(other)));
}

template <int Rows>
inline void multiply_whole(const uint8_t* tile, int units, const Activations& a, int row, const Ahead& ahead,
                           __m512* totals) {
  const uint8_t* from = a.shifted + static_cast<size_t>(row) * a.stride;
  // Two sets: each instruction of one would wait for the one before it.
  __m512i even[Rows], odd[Rows], off[2] = {_mm512_setzero_si512(), _mm512_setzero_si512()};
  for (int r = 0; r < Rows; ++r) even[r] = odd[r] = _mm512_setzero_si512();
  for (int u = 0; u < units; ++u) {
    const uint8_t* unit = tile + u * kUnitWeights;
    const char* soon = ahead.from(unit);
    if (Rows > 1) ahead.fetch(unit);
    add_groups<Rows>(unit, from + u * kPair, a.stride, soon, even, off[0]);
    add_groups<Rows>(unit + 512, from + u * kPair + kBlock, a.stride, soon + 512, odd, off[1]);
  }
  const __m512i shift = _mm512_add_epi32(off[0], off[1]);
  for (int r = 0; r < Rows; ++r) {
    const __m512i sum = _mm512_sub_epi32(_mm512_add_epi32(even[r], odd[r]), shift);
    totals[r] = scale_row(sum, row_scales(tile, units), a.scales[(row + r) * a.scale_stride]);
  }
}

template <int Rows>
inline void multiply_vnni(const Packed& w, const uint8_t* tile, const Activations& a, int row, const Ahead& ahead,
                          __m512* totals) {
  if (w.whole) return multiply_whole<Rows>(tile, w.units, a, row, ahead, totals);
  multiply_blocks<Rows>(tile, w.units, a, row, ahead, totals);
}

}  // namespace shammah

#ifdef SHAMMAH_AMX
#include "cpu_amx.h"
#endif

namespace shammah {

// How many of `left` rows the next pass over a tile takes.
inline int choose_pass(int left, bool amx) {
  if (amx && left >= kAmxLeast) return kAmxRows;
  return left >= kVnniRows ? kVnniRows : left >= 4 ? 4 : left >= 2 ? 2 : 1;
}

inline int count_passes(int rows, bool amx) {
  int passes = 0;
  for (int left = rows; left > 0; left -= choose_pass(left, amx)) ++passes;
  return passes;
}

// Calls take(row, total) for each of `rows` rows with one tile. Activations must be there up to a multiple of 16 rows.
// `to` and `step` say where results will be written, a line for each row: another core may have them.
template <class Take>
inline void multiply_tile(const Packed& w, int index, const Activations& a, int rows, bool amx, const float* to,
                          size_t step, const Take& take) {
  const uint8_t* tile = w.tile(index);
  __m512 totals[kAmxRows];
  const int passes = count_passes(rows, amx);
  for (int row = 0, pass = 0; row < rows; ++pass) {
    const int count = choose_pass(rows - row, amx);
    const Ahead ahead(pass, passes, w);
    const int real = rows - row < count ? rows - row : count;
    for (int r = 0; r < real; ++r) __builtin_prefetch(to + (row + r) * step, 1);
    switch (count) {
#ifdef SHAMMAH_AMX
      case kAmxRows: multiply_amx(w, tile, a, row, ahead, totals); break;
#endif
      case kVnniRows: multiply_vnni<kVnniRows>(w, tile, a, row, ahead, totals); break;
      case 4: multiply_vnni<4>(w, tile, a, row, ahead, totals); break;
      case 2: multiply_vnni<2>(w, tile, a, row, ahead, totals); break;
      default: multiply_vnni<1>(w, tile, a, row, ahead, totals);
    }
    for (int r = 0; r < real; ++r) take(row + r, totals[r]);
    row += count;
  }
}

}  // namespace shammah
