// A Llama-family decoder as three operators of ONNX Runtime for CPUs with AVX512-VNNI (and AMX where it is there).
//
// `Embedding` reads rows of the packed table, `DecoderLayer` is one layer with its key/value cache, `Readout` is the
// last norm, the head and what the engine wants to know of its logits. A layer is one node, since thirty small ones cost
// more than their work at one row. Every row is computed alike whoever is beside it. See graph_native.py for the graph.
#include "cpu_layer.h"
#include "cpu_pack.h"
#include "cpu_readout.h"

namespace shammah {
namespace {

struct Embedding {
  static constexpr Signature signature{"Embedding", kCpu, 2, {Type::i64, Type::u8}, 1, {Type::f32}};
  explicit Embedding(const Info& info)
      : hidden(static_cast<int>(info.integer("hidden"))),
        vocab(static_cast<int>(info.integer("vocab"))),
        at(info.integer("at")) {}

  void compute(const Context& context) const {
    auto dims = context.dims(0);
    const Packed table = find_packed(context.data<uint8_t>(1), at, vocab, hidden, false);
    const int64_t* ids = context.data<int64_t>(0);
    const int64_t count = dims[0] * dims[1];
    dims.push_back(hidden);
    float* out = context.output<float>(0, dims);
    for (int64_t i = 0; i < count; ++i) {
      if (ids[i] < 0 || ids[i] >= vocab) throw std::runtime_error("no such token");
      unpack_output(table, static_cast<int>(ids[i]), hidden, out + i * hidden);
    }
  }
  int hidden, vocab;
  int64_t at;
};

}  // namespace
}  // namespace shammah

extern "C" {

OrtStatus* RegisterCustomOps(OrtSessionOptions* options, const OrtApiBase* base) {
  return shammah::register_ops<shammah::Embedding, shammah::DecoderLayer, shammah::Readout>(options, base);
}

// 0: this processor lacks an instruction; 1: it will do; 2: it has AMX too.
int shammah_cpu_level() {
  const bool enough = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                      __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq") &&
                      __builtin_cpu_supports("avx512vnni") && __builtin_cpu_supports("f16c") &&
                      __builtin_cpu_supports("fma");
  return !enough ? 0 : shammah::has_amx() ? 2 : 1;
}

// Packs outputs `first` to `last` of a float32 weight [outputs, columns]; see pack_outputs. `whole` is the scheme "row".
void shammah_pack(const float* weight, int outputs, int columns, int units, int whole, int first, int last,
                  uint8_t* packed) {
  const shammah::Packed form{packed, 0, units, whole != 0};
  shammah::pack_outputs(weight, outputs, columns, form, first, last, packed);
}

// Writes outputs of packed weights as floats [count, columns]; for tests.
void shammah_unpack(const uint8_t* packed, int units, int whole, int columns, int count, float* to) {
  const shammah::Packed table{packed, 0, units, whole != 0};
  for (int output = 0; output < count; ++output) {
    shammah::unpack_output(table, output, columns, to + static_cast<size_t>(output) * columns);
  }
}

}  // extern "C"
