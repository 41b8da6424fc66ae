// The last norm, the head, and what the engine wants to know of each row of logits, found while they are in the cache.
#pragma once

#include <algorithm>
#include <limits>

#include "cpu_run.h"

namespace shammah {

// What a member has found of a row's logits: the two largest with their places, and sums of exp(x - best) and of
// x * exp(x - best).
struct Found {
  float best = -std::numeric_limits<float>::infinity(), second = best;
  int64_t best_at = 0, second_at = 0;
  float total = 0.0f, weighted = 0.0f;

  void offer(float value, int64_t at) {
    if (value > best) {
      rescale(value);
      second = best, second_at = best_at;
      best = value, best_at = at;
    } else if (value > second) {
      second = value, second_at = at;
    }
  }
  void rescale(float now) {
    if (total == 0.0f) return;
    const float factor = std::exp(best - now);
    total *= factor, weighted *= factor;
  }
  void add(const float* logits, int count, int64_t first) {
    __m512 peak = _mm512_set1_ps(-std::numeric_limits<float>::infinity());
    for (int i = 0; i < count; i += 16) {
      const __mmask16 lanes = first_lanes(count - i);
      peak = _mm512_mask_max_ps(peak, lanes, peak, _mm512_maskz_loadu_ps(lanes, logits + i));
    }
    if (!(_mm512_reduce_max_ps(peak) <= second)) {
      for (int i = 0; i < count; ++i) {
        if (logits[i] > second) offer(logits[i], first + i);
      }
    }
    const __m512 top = _mm512_set1_ps(best);
    __m512 sum = _mm512_setzero_ps(), mean = sum;
    for (int i = 0; i < count; i += 16) {
      const __mmask16 lanes = first_lanes(count - i);
      const __m512 x = _mm512_maskz_loadu_ps(lanes, logits + i);
      const __m512 e = _mm512_maskz_mov_ps(lanes, exp16(_mm512_sub_ps(x, top)));
      sum = _mm512_add_ps(sum, e);
      mean = _mm512_fmadd_ps(e, x, mean);
    }
    total += _mm512_reduce_add_ps(sum);
    weighted += _mm512_reduce_add_ps(mean);
  }
  void join(const Found& other) {
    const float top = std::max(best, other.best), mine = std::exp(best - top), theirs = std::exp(other.best - top);
    total = total * mine + other.total * theirs;
    weighted = weighted * mine + other.weighted * theirs;
    // Members hold rising ranges of places, so at a tie the earlier one stays ahead.
    if (other.best > best) {
      const bool keep = best >= other.second;
      second = keep ? best : other.second, second_at = keep ? best_at : other.second_at;
      best = other.best, best_at = other.best_at;
    } else if (other.best > second) {
      second = other.best, second_at = other.best_at;
    }
  }
};

struct Readout {
  static constexpr Signature signature{"Readout",
                                       kCpu,
                                       3,
                                       {Type::f32, Type::f32, Type::u8},
                                       5,
                                       {Type::f32, Type::i64, Type::f32, Type::f32, Type::f32}};
  explicit Readout(const Info& info)
      : vocab(static_cast<int>(info.integer("vocab"))),
        at(info.integer("at")),
        whole(info.integer("whole") != 0),
        every(info.integer("every_position") != 0),
        epsilon(info.real("epsilon")),
        team(find_team(info.integer("team"), static_cast<int>(info.integer("threads")))) {}

  void compute(const Context& context) const;
  void write(const Found& found, int row, int64_t* ids, float* values, float* totals, float* entropies) const {
    ids[2 * row] = found.best_at, ids[2 * row + 1] = found.second_at;
    // A logit that is no number is never the largest, but it is in the total.
    const bool sound = found.total == found.total;
    values[2 * row] = sound ? found.best : NAN, values[2 * row + 1] = sound ? found.second : NAN;
    totals[row] = found.best + std::log(found.total);
    // H = -sum p log p with log p = x - log_total.
    entropies[row] = totals[row] - found.weighted / found.total;
  }

  int vocab;
  int64_t at;
  bool whole, every;
  float epsilon;
  std::shared_ptr<Team> team;
};

constexpr int kStrip = 32;  // tiles of logits that are summed up while they are in the cache

inline void Readout::compute(const Context& context) const {
  const auto dims = context.dims(0);
  const int steps = static_cast<int>(dims[1]), hidden = static_cast<int>(dims[2]);
  const Packed head = find_packed(context.data<uint8_t>(2), at, vocab, hidden, whole);
  const int rows = static_cast<int>(dims[0]) * (every ? steps : 1);
  const float* in = context.data<float>(0);
  const float* gain = context.data<float>(1);
  float* logits = context.output<float>(0, {rows, vocab});
  int64_t* ids = context.output<int64_t>(1, {rows, 2});
  float* values = context.output<float>(2, {rows, 2});
  float* totals = context.output<float>(3, {rows});
  float* entropies = context.output<float>(4, {rows});
  const Activations normed = make_activations(*team, kNormed, rows, head.units);
  Found* found = team->scratch<Found>(kPartial, static_cast<size_t>(rows) * team->size());
  float* memory = team->scratch<float>(kOwn, static_cast<size_t>(round_up(hidden, 16)) * team->size());
  const auto source = [&](int row) { return in + static_cast<size_t>(every ? row : row * steps + steps - 1) * hidden; };
  team->run([&](int rank) {
    const Tiles tiles(rows >= kAmxLeast, head.whole);
    const Part own(rows, rank, team->size());
    float* made = memory + rank * round_up(hidden, 16);
    for (int row = own.begin; row < own.end; ++row) {
      normalise_row(source(row), gain, hidden, epsilon, made);
      quantise_row(made, hidden, head.whole, normed, row);
    }
    Found* mine = found + static_cast<size_t>(rank) * rows;
    std::fill_n(mine, rows, Found());
    team->barrier();
    const Part part(head.tiles, rank, team->size());
    for (int strip = part.begin; strip < part.end; strip += kStrip) {
      const int end = std::min(strip + kStrip, part.end);
      for (int tile = strip; tile < end; ++tile) {
        const __mmask16 lanes = first_lanes(vocab - tile * kTile);
        float* to = logits + tile * kTile;
        multiply_tile(head, tile, normed, rows, tiles.used, to, vocab, [&](int row, __m512 total) {
          _mm512_mask_storeu_ps(to + static_cast<size_t>(row) * vocab, lanes, total);
        });
      }
      const int first = strip * kTile, count = std::min(end * kTile, vocab) - first;
      for (int row = 0; row < rows && count > 0; ++row) {
        mine[row].add(logits + static_cast<size_t>(row) * vocab + first, count, first);
      }
    }
  });
  for (int row = 0; row < rows; ++row) {
    for (int rank = 1; rank < team->size(); ++rank) found[row].join(found[static_cast<size_t>(rank) * rows + row]);
    write(found[row], row, ids, values, totals, entropies);
  }
}

}  // namespace shammah
