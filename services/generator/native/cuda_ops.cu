// The operators of the CUDA decoder, domain "shammah". What each computes stands in the kernels' files; here is which
// kernel, and how many blocks.
//
// Attributes of all: `few`, the most rows for which a product is a kernel of ours and not of cuBLAS (at most 8), and
// `early`, whether kernels may begin before the one in front has ended. Everything is a half but lengths (int32), ids
// (int64), logits and the ring (float).
#include "cuda_attention.cuh"
#include "cuda_device.cuh"
#include "cuda_linear.cuh"
#include "cuda_readout.cuh"

namespace shammah {

constexpr int kThreads = 128;  // of a block that multiplies few rows: a warp a result
constexpr int kWarps = kThreads / kWarp;
constexpr int kProcessors = 132;

inline int divide_up(int64_t all, int part) { return int((all + part - 1) / part); }

template <int ROWS, int OUTS, int DEPTH, bool NORM, End END, class Out>
void launch_few(const Place& place, const Product<Out>& p) {
  const int blocks = divide_up(p.outputs, kWarps * (END == End::swiglu ? 1 : OUTS));
  launch(place, multiply_few<ROWS, OUTS, DEPTH, NORM, END, Out>, dim3(blocks), kThreads, p);
}

template <int OUTS, int DEPTH, bool NORM, End END, class Out>
void choose_rows(const Place& place, const Product<Out>& p) {
  if (p.rows == 1) return launch_few<1, OUTS, DEPTH, NORM, END>(place, p);
  if (p.rows == 2) return launch_few<2, OUTS, DEPTH, NORM, END>(place, p);
  if (p.rows <= 4) return launch_few<4, OUTS, DEPTH, NORM, END>(place, p);
  return launch_few<8, OUTS, DEPTH, NORM, END>(place, p);
}

// A product's x [.., width] and weight [outputs, width], and how to multiply them.
struct Operator {
  explicit Operator(const Info& info) : few(int(info.integer("few"))), early(info.integer("early") != 0) {
    if (few < 0 || few > 8) throw std::runtime_error("few: 0 to 8 are allowed");
  }
  Place place(const Context& context) const { return {static_cast<cudaStream_t>(context.stream()), early}; }

  template <class Out>
  static Product<Out> describe(const std::vector<int64_t>& x, const std::vector<int64_t>& weight) {
    Product<Out> p{};
    p.width = int(x.back());
    p.outputs = int(weight[0]);
    p.rows = 1;
    for (size_t i = 0; i + 1 < x.size(); i++) p.rows *= int(x[i]);
    p.stride = p.width;
    if (weight.size() != 2 || weight[1] != p.width || p.width % 8 != 0) {
      throw std::runtime_error("a product wants x [.., width] and a weight [outputs, width], width a multiple of 8");
    }
    return p;
  }

  int few;
  bool early;
};

struct Normed : Operator {
  explicit Normed(const Info& info) : Operator(info), epsilon(info.real("epsilon")) {}

  // Normalises p's rows into `normed` and multiplies there.
  template <class Out>
  void multiply_many(const Context& context, const Product<Out>& p, __half* normed, Out* y, int outputs) const {
    launch(place(context), normalise, dim3(p.rows), kThreads, p.x, p.stride, p.gain, normed, p.width, p.epsilon);
    Blas::get().multiply(context, normed, p.weight, y, p.rows, p.width, outputs, 0.f);
  }

  template <class Out>
  Product<Out> read(const Context& context) const {
    Product<Out> p = describe<Out>(context.dims(0), context.dims(2));
    p.x = context.data<__half>(0);
    p.gain = context.data<__half>(1);
    p.weight = context.data<__half>(2);
    p.epsilon = epsilon;
    return p;
  }

  float epsilon;
};

// x, gain, weight [N, K] -> normalised x times weight, [.., N], and room for the normalised rows.
struct NormLinear : Normed {
  static constexpr Signature signature{"NormLinear", kProvider, 3, {Type::f16, Type::f16, Type::f16},
                                       2,            {Type::f16, Type::f16}};
  using Normed::Normed;

  void compute(const Context& context) const {
    auto dims = context.dims(0);
    Product<__half> p = read<__half>(context);
    dims.back() = p.outputs;
    p.y = context.output<__half>(0, dims);
    __half* normed = context.output<__half>(1, {p.rows, p.width});
    if (p.rows > few) return multiply_many(context, p, normed, p.y, p.outputs);
    choose_rows<1, 3, true, End::plain>(place(context), p);
  }
};

// x, weight [N, K], residual [.., N] -> residual + x times weight, in the residual's memory.
struct AddLinear : Operator {
  static constexpr Signature signature{"AddLinear", kProvider, 3, {Type::f16, Type::f16, Type::f16},
                                       1,           {Type::f16}, 2};
  using Operator::Operator;

  void compute(const Context& context) const {
    Product<__half> p = describe<__half>(context.dims(0), context.dims(1));
    p.x = context.data<__half>(0);
    p.weight = context.data<__half>(1);
    p.residual = context.data<__half>(2);
    p.y = context.output<__half>(0, context.dims(2));
    if (p.rows > few) {
      Place here = place(context);
      copy(here, p.y, p.residual, size_t(p.rows) * p.outputs * sizeof(__half));
      return Blas::get().multiply(context, p.x, p.weight, p.y, p.rows, p.width, p.outputs, 1.f);
    }
    if (p.width <= 3 * 8 * kWarp) return choose_rows<1, 3, false, End::add>(place(context), p);
    choose_rows<1, 6, false, End::add>(place(context), p);
  }
};

// x, gain, weight [2 N, K] (gates, then ups) -> silu(gate) * up, [.., N], and room for normalised rows and both.
struct NormSwiglu : Normed {
  static constexpr Signature signature{"NormSwiglu", kProvider, 3, {Type::f16, Type::f16, Type::f16},
                                       3,            {Type::f16, Type::f16, Type::f16}};
  using Normed::Normed;

  void compute(const Context& context) const {
    auto dims = context.dims(0);
    Product<__half> p = read<__half>(context);
    p.outputs /= 2;
    dims.back() = p.outputs;
    p.y = context.output<__half>(0, dims);
    __half* normed = context.output<__half>(1, {p.rows, p.width});
    __half* both = context.output<__half>(2, {p.rows > few ? p.rows : 0, 2 * p.outputs});
    if (p.outputs % 8 != 0) throw std::runtime_error("gates: a multiple of 8 is allowed");
    if (p.rows <= few) return choose_rows<2, 3, true, End::swiglu>(place(context), p);
    multiply_many(context, p, normed, both, 2 * p.outputs);
    const int blocks = divide_up(int64_t(p.rows) * p.outputs / 8, 256);
    launch(place(context), multiply_gates, dim3(blocks), 256, static_cast<const __half*>(both), p.y, p.rows, p.outputs);
  }
};

// x [B, S, K], gain, table [V, K] -> logits [B, V] of the last positions, and room for their normalised rows.
struct NormHead : Normed {
  static constexpr Signature signature{"NormHead", kProvider, 3, {Type::f16, Type::f16, Type::f16},
                                       2,          {Type::f32, Type::f16}};
  using Normed::Normed;

  void compute(const Context& context) const {
    const auto dims = context.dims(0);
    Product<float> p = read<float>(context);
    p.rows = int(dims[0]);
    p.stride = dims[1] * dims[2];
    p.x += p.stride - p.width;
    p.y = context.output<float>(0, {p.rows, p.outputs});
    __half* normed = context.output<__half>(1, {p.rows, p.width});
    if (p.rows > few) return multiply_many(context, p, normed, p.y, p.outputs);
    choose_rows<4, 3, true, End::plain>(place(context), p);
  }
};

// qkv, lengths, cos, sin, past keys, past values -> mixed, keys, values; the last two in the memory of the past.
struct DecodeAttention {
  static constexpr Signature signature{
      "DecodeAttention", kProvider,
      6,                 {Type::f16, Type::i32, Type::f16, Type::f16, Type::f16, Type::f16},
      3,                 {Type::f16, Type::f16, Type::f16}};
  explicit DecodeAttention(const Info& info) : heads(int(info.integer("heads"))), early(info.integer("early") != 0) {}

  void compute(const Context& context) const {
    const auto dims = context.dims(0), past = context.dims(4);
    Attention a{};
    a.tokens = int(dims[1]);
    a.heads = heads;
    a.kv_heads = int(past[1]);
    a.room = int(past[2]);
    a.head_dim = int(past[3]);
    if (heads % a.kv_heads || a.head_dim % 8 || a.head_dim > 256 || dims[2] != (heads + 2 * a.kv_heads) * past[3]) {
      throw std::runtime_error("attention wants heads of 8 to 256 elements, a multiple of 8, and all of them in qkv");
    }
    Place place{static_cast<cudaStream_t>(context.stream()), early};
    a.qkv = context.data<__half>(0);
    a.lengths = context.data<int32_t>(1);
    a.cos = context.data<__half>(2);
    a.sin = context.data<__half>(3);
    a.mixed = context.output<__half>(0, {dims[0], dims[1], heads * past[3]});
    a.keys = context.output<__half>(1, past);
    a.values = context.output<__half>(2, past);
    const size_t bytes = size_t(past[0] * past[1] * past[2] * past[3]) * sizeof(__half);
    copy(place, a.keys, context.data<__half>(4), bytes);
    copy(place, a.values, context.data<__half>(5), bytes);
    const int rows = int(dims[0] * dims[1]);
    if (a.tokens > 1) launch(place, append, dim3(a.kv_heads, rows), 64, a);
    if (a.head_dim <= 32) return choose_heads<4>(place, a, rows);
    if (a.head_dim <= 64) return choose_heads<8>(place, a, rows);
    if (a.head_dim <= 128) return choose_heads<16>(place, a, rows);
    choose_heads<32>(place, a, rows);
  }

  // Few rows: a block of many warps for each head, for the sake of latency. Many: heads share what is read.
  template <int LANES>
  static void choose_heads(const Place& place, const Attention& a, int rows) {
    const int group = a.heads / a.kv_heads;
    if (rows * a.heads <= kProcessors + kProcessors / 4) return choose_fresh<LANES, 1, 16>(place, a, rows);
    if (group % 4 == 0) return choose_fresh<LANES, 4, 4>(place, a, rows);
    if (group % 3 == 0) return choose_fresh<LANES, 3, 4>(place, a, rows);
    if (group % 2 == 0) return choose_fresh<LANES, 2, 4>(place, a, rows);
    choose_fresh<LANES, 1, 4>(place, a, rows);
  }

  template <int LANES, int HEADS, int WARPS>
  static void choose_fresh(const Place& place, const Attention& a, int rows) {
    const dim3 grid(a.heads / HEADS, rows);
    if (a.tokens == 1) return launch(place, attend<LANES, HEADS, WARPS, true>, grid, WARPS * kWarp, a);
    launch(place, attend<LANES, HEADS, WARPS, false>, grid, WARPS * kWarp, a);
  }

  int heads;
  bool early;
};

// logits [B, V], lengths [B], ring [steps, B, 4] -> next ids [B, 1], next lengths, next ring, and room for extracts.
struct ReadLogits {
  static constexpr Signature signature{"ReadLogits", kProvider, 3, {Type::f32, Type::i32, Type::f32},
                                       4,            {Type::i64, Type::i32, Type::f32, Type::f32}};
  explicit ReadLogits(const Info& info) : early(info.integer("early") != 0) {}

  void compute(const Context& context) const {
    const auto dims = context.dims(0), ring = context.dims(2);
    Place place{static_cast<cudaStream_t>(context.stream()), early};
    Readout r{};
    r.rows = int(dims[0]);
    r.vocab = int(dims[1]);
    r.steps = int(ring[0]);
    r.parts = std::min(32, divide_up(2 * kProcessors, r.rows));
    if (ring.size() != 3 || ring[1] != r.rows || ring[2] != 4) throw std::runtime_error("the ring is [steps, B, 4]");
    r.logits = context.data<float>(0);
    r.lengths = context.data<int32_t>(1);
    r.next_ids = context.output<int64_t>(0, {r.rows, 1});
    r.next_lengths = context.output<int32_t>(1, {r.rows});
    r.ring = context.output<float>(2, ring);
    constexpr int64_t floats = sizeof(Extract) / sizeof(float);
    r.extracts = reinterpret_cast<Extract*>(context.output<float>(3, {r.rows, r.parts, floats}));
    copy(place, r.ring, context.data<float>(2), size_t(ring[0] * ring[1] * ring[2]) * sizeof(float));
    launch(place, scan_logits, dim3(r.parts, r.rows), 256, r);
    launch(place, finish_step, dim3(r.rows), kWarp, r);
  }

  bool early;
};

}  // namespace shammah

extern "C" OrtStatus* RegisterCustomOps(OrtSessionOptions* options, const OrtApiBase* base) {
  using namespace shammah;
  return register_ops<NormLinear, AddLinear, NormSwiglu, NormHead, DecodeAttention, ReadLogits>(options, base);
}
