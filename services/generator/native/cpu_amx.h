// The products of `cpu_linear.h` by AMX, 16 rows at a time. Included by it, where the compiler knows AMX.
//
// Tiles 0-3 hold sums (16 x 16 int32), 4-5 activations (16 rows), 6-7 weights. In the scheme "block" a product takes 32
// inputs (rows of 32 bytes, 8 groups), in "row" 64.
#pragma once

namespace shammah {

inline void configure_amx(bool whole) {
  alignas(64) uint8_t config[64] = {1};  // palette 1
  auto* bytes = reinterpret_cast<uint16_t*>(config + 16);
  for (int i = 0; i < 8; ++i) {
    bytes[i] = !whole && (i == 4 || i == 5) ? 32 : 64;
    config[48 + i] = !whole && i >= 6 ? 8 : 16;
  }
  _tile_loadconfig(config);
}

inline void add_unit(const uint8_t* unit, const int32_t* sums, const float* scales, int scale_stride,
                     const Ahead& ahead, __m512* totals) {
  const char* soon = ahead.from(unit);
  if (ahead.lines > kAmxRows) fetch_line(soon + 64 * kAmxRows);
  for (int block = 0; block < 2; ++block) {
    const __m512 scale = block_scales(unit, block);
    for (int r = 0; r < kAmxRows; ++r) {
      if (block == 0 && r < ahead.lines) fetch_line(soon + 64 * r);
      const __m512 exact = _mm512_cvtepi32_ps(_mm512_load_si512(sums + (block * kAmxRows + r) * kTile));
      const __m512 both = _mm512_mul_ps(scale, _mm512_set1_ps(scales[r * scale_stride + block]));
      totals[r] = _mm512_fmadd_ps(exact, both, totals[r]);
    }
  }
}

// Two units are under way at a time, so that the matrix unit works on one while the sums of the other are scaled.
inline void multiply_amx_blocks(const uint8_t* tile, int units, const Activations& a, int row, const Ahead& ahead,
                                __m512* totals) {
  alignas(64) int32_t sums[2][2 * kAmxRows * kTile];
  const int8_t* from = a.values + static_cast<size_t>(row) * a.stride;
  const float* scales = a.scales + row * a.scale_stride;
  __m512 t[kAmxRows];
  for (int r = 0; r < kAmxRows; ++r) t[r] = _mm512_setzero_ps();
  for (int u = 0; u <= units; ++u) {
    if (u < units) {
      const uint8_t* unit = tile + u * kBlockUnit;
      _tile_loadd(4, from + u * kPair, a.stride);
      _tile_loadd(6, unit, 64);
      _tile_loadd(5, from + u * kPair + kBlock, a.stride);
      _tile_loadd(7, unit + 512, 64);
      if (u % 2 == 0) {
        _tile_zero(0);
        _tile_zero(1);
        _tile_dpbssd(0, 4, 6);
        _tile_dpbssd(1, 5, 7);
        _tile_stored(0, sums[0], 64);
        _tile_stored(1, sums[0] + kAmxRows * kTile, 64);
      } else {
        _tile_zero(2);
        _tile_zero(3);
        _tile_dpbssd(2, 4, 6);
        _tile_dpbssd(3, 5, 7);
        _tile_stored(2, sums[1], 64);
        _tile_stored(3, sums[1] + kAmxRows * kTile, 64);
      }
    }
    if (u > 0) {
      add_unit(tile + (u - 1) * kBlockUnit, sums[(u - 1) % 2], scales + 2 * (u - 1), a.scale_stride, ahead, t);
    }
  }
  for (int r = 0; r < kAmxRows; ++r) totals[r] = t[r];
}

inline void multiply_amx_whole(const uint8_t* tile, int units, const Activations& a, int row, const Ahead& ahead,
                               __m512* totals) {
  alignas(64) int32_t sums[2][kAmxRows * kTile];
  const int8_t* from = a.values + static_cast<size_t>(row) * a.stride;
  _tile_zero(0);
  _tile_zero(1);
  for (int u = 0; u < units; u += 2) {
    ahead.fetch(tile + u * kUnitWeights);
    _tile_loadd(4, from + u * kPair, a.stride);
    _tile_loadd(6, tile + u * kUnitWeights, 64);
    _tile_dpbssd(0, 4, 6);
    if (u + 1 < units) {
      ahead.fetch(tile + (u + 1) * kUnitWeights);
      _tile_loadd(5, from + (u + 1) * kPair, a.stride);
      _tile_loadd(7, tile + (u + 1) * kUnitWeights, 64);
      _tile_dpbssd(1, 5, 7);
    }
  }
  _tile_stored(0, sums[0], 64);
  _tile_stored(1, sums[1], 64);
  const __m512 scale = row_scales(tile, units);
  for (int r = 0; r < kAmxRows; ++r) {
    const __m512i sum = _mm512_add_epi32(_mm512_load_si512(sums[0] + r * kTile), _mm512_load_si512(sums[1] + r * kTile));
    totals[r] = scale_row(sum, scale, a.scales[(row + r) * a.scale_stride]);
  }
}

// Totals of 16 rows with one tile of outputs; the tiles must be configured for the scheme.
inline void multiply_amx(const Packed& w, const uint8_t* tile, const Activations& a, int row, const Ahead& ahead,
                         __m512* totals) {
  if (w.whole) return multiply_amx_whole(tile, w.units, a, row, ahead, totals);
  multiply_amx_blocks(tile, w.units, a, row, ahead, totals);
}

}  // namespace shammah
