// What the operators share: the memory of their team, AMX for as long as a thread works, packed weights as inputs.
#pragma once

#include <sys/syscall.h>
#include <unistd.h>

#include "cpu_linear.h"
#include "cpu_team.h"
#include "ort_abi.h"

namespace shammah {

// Places of a team's shared memory.
enum Place { kNormed, kQueries, kMixed, kMiddle, kActive, kProducts, kPartial, kOwn };

inline bool has_amx() {
#ifdef SHAMMAH_AMX
  static const bool allowed = [] {
    constexpr int kRequest = 0x1023, kTileData = 18;  // ARCH_REQ_XCOMP_PERM: Linux gives tile memory on demand
    return __builtin_cpu_supports("amx-int8") && syscall(SYS_arch_prctl, kRequest, kTileData) == 0;
  }();
  return allowed;
#else
  return false;
#endif
}

// Tiles of this thread for as long as it lives.
class Tiles {
 public:
  Tiles(bool wanted, bool whole) : used(wanted && has_amx()) {
#ifdef SHAMMAH_AMX
    if (used) configure_amx(whole);
#else
    static_cast<void>(whole);
#endif
  }
  ~Tiles() {
#ifdef SHAMMAH_AMX
    if (used) _tile_release();
#endif
  }
  const bool used;
};

inline int round_up(int value, int step) { return (value + step - 1) / step * step; }

// Room for `rows` rows (and 16 more, as products read whole tiles) of `units` pairs of blocks.
inline Activations make_activations(Team& team, int place, int rows, int units) {
  const int stride = units * kPair, room = round_up(rows, kAmxRows);
  auto* memory = team.scratch<uint8_t>(place, static_cast<size_t>(room) * (2 * stride + 2 * units * sizeof(float)));
  const size_t plane = static_cast<size_t>(room) * stride;
  return {reinterpret_cast<int8_t*>(memory), memory + plane, reinterpret_cast<float*>(memory + 2 * plane), stride,
          2 * units};
}

// A weight of `outputs` by `columns` that begins at byte `at` of all packed weights.
inline Packed find_packed(const uint8_t* weights, int64_t at, int outputs, int columns, bool whole) {
  if (reinterpret_cast<uintptr_t>(weights) % 64) throw std::runtime_error("packed weights must be aligned to 64 bytes");
  return {weights + at, round_up(outputs, kTile) / kTile, round_up(columns, kPair) / kPair, whole};
}

}  // namespace shammah
