// One decoder layer with its key/value cache: norm, queries and keys, attention, mixing, norm, feed-forward.
//
// The members of a team share the outputs of a product, or the rows of what is done row by row, with a barrier between.
#pragma once

#include "cpu_attention.h"
#include "cpu_run.h"

namespace shammah {

struct DecoderLayer {
  enum Input { kHidden, kLengths, kFirst, kCos, kSin, kGain, kGain2, kWeights, kCache };
  static constexpr Signature signature{"DecoderLayer",
                                       kCpu,
                                       9,
                                       {Type::f32, Type::i32, Type::i32, Type::f32, Type::f32, Type::f32, Type::f32,
                                        Type::u8, Type::f16},
                                       1,
                                       {Type::f32}};

  explicit DecoderLayer(const Info& info)
      : heads{static_cast<int>(info.integer("heads")), static_cast<int>(info.integer("kv_heads")),
              static_cast<int>(info.integer("head_dim"))},
        intermediate(static_cast<int>(info.integer("intermediate"))),
        layer(static_cast<int>(info.integer("layer"))),
        whole(info.integer("whole") != 0),
        epsilon(info.real("epsilon")),
        team(find_team(info.integer("team"), static_cast<int>(info.integer("threads")))) {
    const char* names[] = {"qkv", "attention", "gate", "up", "down"};
    for (int i = 0; i < 5; ++i) places[i] = info.integer(names[i]);
    if (!can_attend(heads.size)) throw std::runtime_error("heads of " + std::to_string(heads.size) + " elements");
  }

  void compute(const Context& context) const;

  Heads heads;
  int intermediate, layer;
  bool whole;
  float epsilon;
  std::shared_ptr<Team> team;
  int64_t places[5];  // of the five weights among all packed ones, in bytes
};

// One call of a layer: its tensors and the memory between its phases.
struct LayerRun {
  LayerRun(const DecoderLayer& layer, const Context& context);
  void work(int rank) const;
  void normalise(const float* from, const float* gain, const Activations& to, int rank) const;
  void store_keys(int row) const;
  void attend_row(int row, int head, float* own) const;
  void feed_forward(int rank, bool amx) const;
  void add_product(const Packed& w, const Activations& a, const float* to, float* out, int rank, bool amx) const;
  uint16_t* slot(uint16_t* cache, int row, int head) const {
    return cache + ((static_cast<size_t>(row / steps) * heads.stored + head) * context_length) * heads.size;
  }
  int position(int row) const { return lengths[row / steps] + 1 - steps + row % steps; }

  const Heads& heads;
  Team& team;
  const float epsilon;
  int rows, steps, hidden, context_length;
  const int32_t* lengths;
  const float *in, *cos, *sin, *gain, *gain2;
  Packed qkv, mixer, gate, up, down;
  uint16_t *keys, *values;
  float *out, *queries, *middle, *products, *own;
  size_t own_floats;
  Activations normed, mixed, active;
};

inline LayerRun::LayerRun(const DecoderLayer& layer, const Context& context)
    : heads(layer.heads), team(*layer.team), epsilon(layer.epsilon) {
  using L = DecoderLayer;
  const auto dims = context.dims(L::kHidden);
  const auto cache = context.dims(L::kCache);
  steps = static_cast<int>(dims[1]);
  rows = static_cast<int>(dims[0]) * steps;
  hidden = static_cast<int>(dims[2]);
  context_length = static_cast<int>(cache[3]);
  in = context.data<float>(L::kHidden);
  lengths = context.data<int32_t>(L::kLengths);
  cos = context.data<float>(L::kCos);
  sin = context.data<float>(L::kSin);
  gain = context.data<float>(L::kGain);
  gain2 = context.data<float>(L::kGain2);
  const auto* weights = context.data<uint8_t>(L::kWeights);
  const auto find = [&](int i, int outputs, int columns) {
    return find_packed(weights, layer.places[i], outputs, columns, layer.whole);
  };
  qkv = find(0, (heads.queries + 2 * heads.stored) * heads.size, hidden);
  mixer = find(1, hidden, heads.queries * heads.size);
  gate = find(2, layer.intermediate, hidden);
  up = find(3, layer.intermediate, hidden);
  down = find(4, hidden, layer.intermediate);
  out = context.output<float>(0, dims);
  const int first = *context.data<int32_t>(L::kFirst);
  if (first < 0 || first + dims[0] > cache[1]) throw std::runtime_error("no such slot");
  // The cache is the one input that is written to: it belongs to the caller, who gave it for that.
  auto* memory = const_cast<uint16_t*>(context.data<uint16_t>(L::kCache));
  const size_t slot_size = static_cast<size_t>(cache[2] * cache[3] * cache[4]);
  keys = memory + (2 * layer.layer * cache[1] + first) * slot_size;
  values = keys + cache[1] * slot_size;
  for (int row = 0; row < rows; row += steps) {
    if (lengths[row / steps] + 1 < steps || lengths[row / steps] >= context_length) {
      throw std::runtime_error("a row is longer than its slot");
    }
  }
  // One row is normalised by every member for itself: a barrier would cost more.
  normed = make_activations(team, kNormed, rows == 1 ? kAmxRows * team.size() : rows, qkv.units);
  mixed = make_activations(team, kMixed, rows, mixer.units);
  active = make_activations(team, kActive, rows, down.units);
  queries = team.scratch<float>(kQueries, static_cast<size_t>(rows) * qkv.tiles * kTile);
  middle = team.scratch<float>(kMiddle, static_cast<size_t>(rows) * hidden);
  products = down.whole ? team.scratch<float>(kProducts, static_cast<size_t>(rows) * down.units * kPair) : nullptr;
  own_floats = round_up(hidden, 16) + round_up(heads.group() * (2 * heads.size + round_up(context_length, 16)) + 64, 16) +
               static_cast<size_t>(round_up(rows, kAmxRows)) * 2 * kBlock;
  own = team.scratch<float>(kOwn, own_floats * team.size());
}

inline void LayerRun::normalise(const float* from, const float* gains, const Activations& to, int rank) const {
  float* made = own + rank * own_floats;
  const auto one = [&](int row) {
    normalise_row(from + static_cast<size_t>(row) * hidden, gains, hidden, epsilon, made);
    quantise_row(made, hidden, qkv.whole, to, row);
  };
  if (rows == 1) return one(0);
  const Part part(rows, rank, team.size());
  for (int row = part.begin; row < part.end; ++row) one(row);
  team.barrier();
}

// Rotates the new key of a row into the cache and puts its value there, for all heads.
inline void LayerRun::store_keys(int row) const {
  const float* made = queries + static_cast<size_t>(row) * qkv.tiles * kTile + heads.queries * heads.size;
  const int at = position(row), half = heads.size / 2;
  alignas(64) float rotated[128];
  for (int head = 0; head < heads.stored; ++head) {
    rotate(made + head * heads.size, cos + at * half, sin + at * half, heads.size, 1.0f, rotated);
    store_halves(rotated, heads.size, slot(keys, row, head) + static_cast<size_t>(at) * heads.size);
    store_halves(made + (heads.stored + head) * heads.size, heads.size,
                 slot(values, row, head) + static_cast<size_t>(at) * heads.size);
  }
}

inline void LayerRun::attend_row(int row, int head, float* memory) const {
  const int group = heads.group(), at = position(row), half = heads.size / 2, count = at + 1;
  float *rotated = memory, *found = memory + group * heads.size, *scores = memory + 2 * group * heads.size;
  const float* q = queries + static_cast<size_t>(row) * qkv.tiles * kTile + head * group * heads.size;
  const float scale = 1.0f / std::sqrt(static_cast<float>(heads.size));
  for (int g = 0; g < group; ++g) {
    rotate(q + g * heads.size, cos + at * half, sin + at * half, heads.size, scale, rotated + g * heads.size);
  }
  const uint16_t* next = head + 1 < heads.stored ? slot(keys, row, head + 1)
                         : row + 1 < rows        ? slot(keys, row + 1, 0)
                                                 : nullptr;
  attend(rotated, group, heads.size, slot(keys, row, head), slot(values, row, head), count, next, scores, found);
  // Into the row's place among all heads; blocks may cross heads, so they are quantised when the row is whole.
  float* to = const_cast<float*>(q);
  std::memcpy(to, found, sizeof(float) * group * heads.size);
}

// to + a @ w.T, of this member's outputs.
inline void LayerRun::add_product(const Packed& w, const Activations& a, const float* to, float* result, int rank,
                           bool amx) const {
  const Part part(w.tiles, rank, team.size());
  for (int tile = part.begin; tile < part.end; ++tile) {
    const int column = tile * kTile;
    const __mmask16 lanes = first_lanes(hidden - column);
    multiply_tile(w, tile, a, rows, amx, result + column, hidden, [&](int row, __m512 total) {
      const size_t place = static_cast<size_t>(row) * hidden + column;
      _mm512_mask_storeu_ps(result + place, lanes, _mm512_add_ps(total, _mm512_maskz_loadu_ps(lanes, to + place)));
    });
  }
}

// silu(gate) * up, quantised: a member makes whole blocks, two tiles of each product. With one scale for a row, they are
// kept as floats until the row is whole.
inline void LayerRun::feed_forward(int rank, bool amx) const {
  const Activations& from = normed;
  float* gates = own + rank * own_floats;
  const int blocks = 2 * down.units;
  const Part part(blocks, rank, team.size());
  for (int block = part.begin; block < part.end; ++block) {
    for (int half = 0; half < 2; ++half) {
      const int tile = 2 * block + half;
      if (tile >= gate.tiles) {
        for (int row = 0; row < rows; ++row) _mm512_store_ps(gates + row * kBlock + 16 * half, _mm512_setzero_ps());
        continue;
      }
      multiply_tile(gate, tile, from, rows, amx, gates + 16 * half, kBlock, [&](int row, __m512 total) {
        _mm512_store_ps(gates + row * kBlock + 16 * half, silu16(total));
      });
      multiply_tile(up, tile, from, rows, amx, gates + 16 * half, kBlock, [&](int row, __m512 total) {
        float* place = gates + row * kBlock + 16 * half;
        _mm512_store_ps(place, _mm512_mul_ps(_mm512_load_ps(place), total));
      });
    }
    for (int row = 0; row < rows; ++row) {
      const __m512 low = _mm512_load_ps(gates + row * kBlock), high = _mm512_load_ps(gates + row * kBlock + 16);
      if (!down.whole) {
        quantise_block(low, high, active, row, block);
      } else {
        float* to = products + static_cast<size_t>(row) * active.stride + block * kBlock;
        _mm512_store_ps(to, low);
        _mm512_store_ps(to + 16, high);
      }
    }
  }
  if (down.whole) {
    team.barrier();
    const Part mine(rows, rank, team.size());
    for (int row = mine.begin; row < mine.end; ++row) {
      quantise_row(products + static_cast<size_t>(row) * active.stride, active.stride, true, active, row);
    }
  }
  fetch_tile(down, Part(down.tiles, rank, team.size()).begin);
  team.barrier();
}

// A member's own copy of one normalised row; all rows otherwise.
inline Activations pick_own(const Activations& all, int rows, int rank) {
  if (rows > 1) return all;
  const size_t skip = static_cast<size_t>(rank) * kAmxRows;
  return {all.values + skip * all.stride, all.shifted + skip * all.stride, all.scales + skip * all.scale_stride,
          all.stride, all.scale_stride};
}

inline void LayerRun::work(int rank) const {
  LayerRun mine = *this;
  mine.normed = pick_own(normed, rows, rank);
  const Tiles tiles(rows >= kAmxLeast, qkv.whole);
  const bool amx = tiles.used;
  const int row_width = qkv.tiles * kTile;

  const Part products(qkv.tiles, rank, team.size()), outputs(mixer.tiles, rank, team.size());
  const Part blocks(2 * down.units, rank, team.size());
  fetch_tile(qkv, products.begin);
  mine.normalise(in, gain, mine.normed, rank);
  for (int tile = products.begin; tile < products.end; ++tile) {
    float* to = queries + tile * kTile;
    multiply_tile(qkv, tile, mine.normed, rows, amx, to, row_width, [&](int row, __m512 total) {
      _mm512_store_ps(to + static_cast<size_t>(row) * row_width, total);
    });
  }
  team.barrier();

  const Part stored(rows, rank, team.size());
  for (int row = stored.begin; row < stored.end; ++row) store_keys(row);
  if (steps > 1 || rows < team.size()) team.barrier();
  if (rows >= team.size()) {
    // A row by itself: what it attends to, this member has stored or an earlier call has.
    for (int row = stored.begin; row < stored.end; ++row) {
      for (int head = 0; head < heads.stored; ++head) attend_row(row, head, own + rank * own_floats);
      quantise_row(queries + static_cast<size_t>(row) * row_width, heads.queries * heads.size, mixer.whole, mixed, row);
    }
    fetch_tile(mixer, outputs.begin);
    team.barrier();
  } else {
    const Part items(rows * heads.stored, rank, team.size());
    for (int item = items.begin; item < items.end; ++item) {
      attend_row(item / heads.stored, item % heads.stored, own + rank * own_floats);
    }
    team.barrier();
    if (rank == 0) {
      for (int row = 0; row < rows; ++row) {
        quantise_row(queries + static_cast<size_t>(row) * row_width, heads.queries * heads.size, mixer.whole, mixed, row);
      }
    }
    team.barrier();
  }

  add_product(mixer, mixed, in, middle, rank, amx);
  fetch_tile(gate, 2 * blocks.begin);
  team.barrier();
  mine.normalise(middle, gain2, mine.normed, rank);
  mine.feed_forward(rank, amx);
  add_product(down, active, middle, out, rank, amx);
}

inline void DecoderLayer::compute(const Context& context) const {
  const LayerRun run(*this, context);
  team->run([&run](int rank) { run.work(rank); });
}

}  // namespace shammah
