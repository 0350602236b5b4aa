// Matrix products of few tokens: y[t,o] = epilogue(Σ_i x[t,i] w[o,i]). Bound by reading the weights
// once, so all is arranged around that. A warp (or a whole block, where rows are few) takes a row
// of weights in sixteen-byte packs. Each lane copies its packs, row after row, through a ring in
// shared memory: asynchronously, so that many are on the way without holding registers, and from
// before the inputs are there (early_launch.cuh). Inputs are staged in shared memory as float32.
//
// Inputs may be normalised on the way. With s = 1/√(mean x² + eps),
//     Σ_i (x_i · s · g_i) w_i = s · Σ_i (x_i g_i) w_i,
// so that g enters when inputs are staged, and s, known only afterwards, multiplies the sum.
#pragma once

#include <algorithm>

#include "backends/cuda/early_launch.cuh"
#include "backends/cuda/numeric.cuh"
#include "backends/cuda/shared_memory.cuh"
#include "runtime/core/try.h"

namespace krait::cuda {

constexpr int kGemvThreads = 512;  ///< of a block; one block per multiprocessor stages inputs once
constexpr int kGemvWarps = kGemvThreads / 32;
constexpr int kGemvGroup = 2;  ///< packs that a lane asks for and uses together
/// More are better served by products on tensor cores, which read the weights once for any number
/// of tokens: by those of batches (batch_product.cuh), and where activations may be rounded.
constexpr int kGemvTokens = 8;
constexpr int kGemvTokensBefore = 4;  ///< where there are such products

/// Groups in the ring: one in use, the others on the way. Without asynchronous copies there is
/// nothing to hold, and less shared memory.
constexpr int kGemvSlots = 4;
constexpr int kGemvSlotsBefore8 = 2;
constexpr int kGemvSlotBytes = kGemvGroup * kGemvThreads * 16;

inline int gemv_ring_bytes(const CudaDevice& device) {
  return (device.compute_capability() < 80 ? kGemvSlotsBefore8 : kGemvSlots) * kGemvSlotBytes;
}

/// Whether a multiprocessor has room for blocks of several kernels that follow each other early.
/// Then a kernel's blocks are placed while those of others leave, two of them on a multiprocessor
/// that is free first. They do not fit there if each asks for half of the shared memory, or for a
/// third where a block of another product has its third.
inline bool keeps_blocks_apart(const CudaDevice& device) {
  return device.has_clusters() && device.shared_bytes() >= 3 * gemv_ring_bytes(device);
}

/// Element `i` of an array of f32, f16 or bf16.
__device__ inline float element(const void* array, DType type, std::int64_t i) {
  if (type == DType::f32) return static_cast<const float*>(array)[i];
  if (type == DType::f16) return to_float(static_cast<const __half*>(array)[i]);
  return to_float(static_cast<const __nv_bfloat16*>(array)[i]);
}
__device__ inline void set_element(void* array, DType type, std::int64_t i, float value) {
  if (type == DType::f32)
    static_cast<float*>(array)[i] = value;
  else if (type == DType::f16)
    static_cast<__half*>(array)[i] = from_float<__half>(value);
  else
    static_cast<__nv_bfloat16*>(array)[i] = from_float<__nv_bfloat16>(value);
}

/// Rows of activations, and the normalisation of each.
struct GemvInput {
  const void* x;
  std::int64_t row;
  DType type;
  int tokens, width;
  bool aligned;              ///< whole quads, each (of x, of norm_weight) at a multiple of its size
  const float* norm_weight;  ///< null: no normalisation
  float eps, width_reciprocal;

  /// Elements 4q to 4q+3 of token t, whose type is X; zeros beyond the last one.
  template <class X, bool neat>
  __device__ float4 quad(int t, int q) const {
    const X* const from = static_cast<const X*>(x) + t * row;
    return neat ? load_quad(from + 4 * q) : any_quad([&](int i) { return to_float(from[i]); }, q);
  }
  /// The same, or zeros beyond the last token, where the type is known at run time only.
  __device__ float4 quad(int t, int q) const {
    if (t >= tokens) return {};
    if (aligned && 4 * q < width) {
      if (type == DType::f32) return load_quad(static_cast<const float*>(x) + t * row + 4 * q);
      if (type == DType::bf16)
        return load_quad(static_cast<const __nv_bfloat16*>(x) + t * row + 4 * q);
    }
    return any_quad([&](int i) { return element(x, type, t * row + i); }, q);
  }
  template <bool neat>
  __device__ float4 norm_quad(int q) const {
    if (neat) return load_quad(norm_weight + 4 * q);
    return any_quad([&](int i) { return norm_weight[i]; }, q);
  }

 private:
  template <class At>
  __device__ float4 any_quad(At&& at, int q) const {
    float value[4];
#pragma unroll
    for (int i = 0; i < 4; ++i) value[i] = 4 * q + i < width ? at(4 * q + i) : 0.0f;
    return {value[0], value[1], value[2], value[3]};
  }
};

/// The elements of a pack as float32.
__device__ inline void unpack(const uint4& pack, const float*, float (&x)[4]) {
  x[0] = __uint_as_float(pack.x), x[1] = __uint_as_float(pack.y);
  x[2] = __uint_as_float(pack.z), x[3] = __uint_as_float(pack.w);
}
__device__ inline void unpack(const uint4& pack, const __half*, float (&x)[8]) {
  const std::uint32_t word[4] = {pack.x, pack.y, pack.z, pack.w};
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const float2 pair = __half22float2(reinterpret_cast<const __half2&>(word[i]));
    x[2 * i] = pair.x, x[2 * i + 1] = pair.y;
  }
}
__device__ inline void unpack(const uint4& pack, const __nv_bfloat16*, float (&x)[8]) {
  const std::uint32_t word[4] = {pack.x, pack.y, pack.z, pack.w};
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    x[2 * i] = __uint_as_float(word[i] << 16);
    x[2 * i + 1] = __uint_as_float(word[i] & 0xffff0000u);
  }
}

/// A matrix of weights [outputs, width], dense.
template <class W>
struct GemvWeights {
  static constexpr int kCount = 16 / sizeof(W);  ///< elements of a pack
  struct alignas(16) Pack {
    W element[kCount];
  };
  const W* w;
  int outputs, width;
  bool aligned;  ///< rows begin at multiples of sixteen bytes

  __host__ __device__ int packs() const { return (width + kCount - 1) / kCount; }
  /// Pack `p` of row `o`; zeros beyond the row's end.
  __device__ Pack load(int o, int p) const {
    const W* from = w + static_cast<std::int64_t>(o) * width + p * kCount;
    if (aligned) return *reinterpret_cast<const Pack*>(from);
    Pack pack;
#pragma unroll
    for (int i = 0; i < kCount; ++i)
      pack.element[i] = p * kCount + i < width ? from[i] : from_float<W>(0.0f);
    return pack;
  }
};

/// `lanes` share a row of weights: a part of a warp, a warp, or several warps. An epilogue has
///     kFollowsScan: whether the kernel before is likely to use multiprocessors unevenly;
///     Token token(t): what it loads once, for all rows;
///     Ahead before(token, t, o): what it can load before wait_for_inputs();
///     void after(ahead, t, o): what else it can load before the sum is there, after the inputs;
///     void store(t, o, sum, ahead).
/// What before() and after() load they are not to use: a use waits for the load, which comes after
/// all the weights that have been asked for, while nothing more is.
/// The memory leaves little time: per pack there are a copy, three loads, and as many conversions
/// and products as weights, so whatever else happens in the loop is kept out of it. And between the
/// inputs' arrival and the last store every instruction counts, four cycles each where the next one
/// needs it (bench/results/cuda-h100.md): `neat` operands are aligned and without ends, and need no
/// branches. `normed`: there is a norm_weight. Inputs are X.
template <int tokens, int lanes, bool neat, bool normed, class X, class W, class Epilogue>
__global__ void __launch_bounds__(kGemvThreads, tokens > 1 ? 1 : 2)
    gemv(GemvInput input, GemvWeights<W> weights, Epilogue epilogue, bool next_first,
         FetchAhead fetch) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ < 800
  constexpr int kSlots = kGemvSlotsBefore8;
#else
  constexpr int kSlots = kGemvSlots;
#endif
  using Pack = typename GemvWeights<W>::Pack;
  constexpr int kCount = GemvWeights<W>::kCount;
  constexpr int kQuads = kCount / 4;                   // of x, that belong to a pack
  constexpr int kRows = kGemvThreads / lanes;          // that a block has at work
  constexpr int kWarps = lanes > 32 ? lanes / 32 : 1;  // that share a row
  extern __shared__ uint4 shared[];
  __shared__ __align__(16) float squares[tokens][kGemvWarps];
  __shared__ float partial[2][kGemvWarps][tokens];
  const unsigned ring = shared_number(shared + threadIdx.x);  // [kSlots][kGemvGroup][kGemvThreads]
  // [tokens][kQuads][packs]: lanes read neighbours
  auto* const quads = reinterpret_cast<float4*>(shared + kSlots * kGemvSlotBytes / 16);
  const int thread = static_cast<int>(threadIdx.x), warp = thread / 32;
  const int lane = thread % lanes;  // among those of the row
  const int packs = weights.packs();
  // Row r belongs to block r mod blocks, so that every block has its share of the last rows too.
  const int blocks = static_cast<int>(gridDim.x), stride = blocks * kRows;
  const int first_row = static_cast<int>(blockIdx.x) + blocks * (thread / lanes);

  // A lane's packs are lane, lane + lanes, … of one row, then of the next. `coming` is the first of
  // the group to ask for next.
  int coming_row = first_row, coming_base = 0;
  const W* coming_start = weights.w + std::int64_t{first_row} * weights.width + lane * kCount;
  const W* coming = coming_start;
  const std::int64_t row_step = std::int64_t{stride} * weights.width;
  const auto ask = [&](int slot) {
    if (coming_row < weights.outputs) {
      const unsigned to = ring + slot * kGemvSlotBytes;
#pragma unroll
      for (int j = 0; j < kGemvGroup; ++j) {
        const int p = coming_base + lane + j * lanes;
        if (p >= packs) break;
        if (neat) {
          copy_pack(to + j * (kGemvThreads * 16), coming + j * (lanes * kCount));
        } else {
          const Pack pack = weights.load(coming_row, p);
          store_shared(to + j * (kGemvThreads * 16), reinterpret_cast<const uint4&>(pack));
        }
      }
      coming += kGemvGroup * lanes * kCount;
      coming_base += kGemvGroup * lanes;
      if (coming_base >= packs) {
        coming_base = 0;
        coming_row += stride;
        coming_start += row_step;
        coming = coming_start;
      }
    }
    commit_copies();
  };
  // A lane keeps one sum, of token `t` and the row kept_row, until the lanes of the unit have one
  // each or no row is left: so the epilogue, as long as several groups of packs, runs once.
  constexpr int kKept = (lanes < 32 ? lanes : 32) / tokens;  // rows
  const int t = lane % tokens;
  int kept_row = first_row + lane / tokens * stride;
  const bool keeps = lane < kKept * tokens && t < input.tokens;
  typename Epilogue::Token token{};
  if (keeps) token = epilogue.token(t);
#pragma unroll
  for (int slot = 0; slot + 1 < kSlots; ++slot) ask(slot);
  if (normed) {
    for (int q = thread; q < packs * kQuads; q += kGemvThreads)
      quads[q % kQuads * packs + q / kQuads] = input.template norm_quad<neat>(q);
  }
  typename Epilogue::Ahead ahead{};
  if (keeps && kept_row < weights.outputs) ahead = epilogue.before(token, t, kept_row);

  wait_for_inputs(next_first);
  float square[tokens] = {};
  const int count = packs * kQuads;
  const auto stage = [&](auto batch) {
    constexpr int kBatch = batch.value;  // quads of every token that are on the way together
#pragma unroll 1
    for (int from = thread; from < count; from += kBatch * kGemvThreads) {
      float4 x[kBatch][tokens], g[kBatch];
#pragma unroll
      for (int j = 0; j < kBatch; ++j) {
        const int q = from + j * kGemvThreads;
#pragma unroll
        for (int u = 0; u < tokens; ++u)
          x[j][u] = q < count && (tokens == 1 || u < input.tokens)
                        ? input.template quad<X, neat>(u, q)
                        : float4{};
        // This thread put it there.
        if (normed) g[j] = q < count ? quads[q % kQuads * packs + q / kQuads] : float4{};
      }
#pragma unroll
      for (int j = 0; j < kBatch; ++j) {
        const int q = from + j * kGemvThreads;
#pragma unroll
        for (int u = 0; u < tokens; ++u) {
          float4& v = x[j][u];
          if (normed) {
            square[u] += v.x * v.x + v.y * v.y + v.z * v.z + v.w * v.w;
            v = {v.x * g[j].x, v.y * g[j].y, v.z * g[j].z, v.w * g[j].w};
          }
          if (q < count) quads[(u * kQuads + q % kQuads) * packs + q / kQuads] = v;
        }
      }
    }
  };
  if (tokens == 1 && count <= kGemvThreads)
    stage(std::integral_constant<int, 1>());
  else
    stage(std::integral_constant<int, 4 / tokens>());
  if (normed) {
#pragma unroll
    for (int u = 0; u < tokens; ++u) {
      const float sum = warp_sum(square[u]);
      if (thread % 32 == 0) squares[u][warp] = sum;
    }
  }
  __syncthreads();
  if (keeps && kept_row < weights.outputs) epilogue.after(ahead, t, kept_row);
  if (lanes > 32) fetch.run();  // few rows: a small kernel
  float scale = 1;              // of token `t`
  if (normed && keeps) {
    float4 part{};
#pragma unroll
    for (int i = 0; i < kGemvWarps; i += 4) {
      const float4 more = load_quad(&squares[t][i]);
      part = {part.x + more.x, part.y + more.y, part.z + more.z, part.w + more.w};
    }
    const float sum = (part.x + part.y) + (part.z + part.w);
    scale = rsqrtf(fmaf(sum, input.width_reciprocal, input.eps));
  }

  float sums[tokens][kQuads] = {};
  float mine = 0;  // the sum that this lane keeps
  int kept = 0;    // rows
  const auto store = [&] {
    if (keeps && lane < kept * tokens && kept_row < weights.outputs)
      epilogue.store(t, kept_row, mine * scale, ahead);
  };
  const unsigned x_first = shared_number(quads + lane);
  const unsigned quad_step = static_cast<unsigned>(packs) * 16;
  int parity = 0, slot = 0, base = 0;
  // The threads that add up together, a warp or all that meet at the barrier, end together: with
  // the first of their rows.
  int first = static_cast<int>(blockIdx.x) + blocks * (kWarps > 1 ? 0 : warp * 32 / lanes);
  while (first < weights.outputs) {
    await_copies<kSlots - 2>();
    const unsigned group = ring + slot * kGemvSlotBytes;
    // The slot that was used last is free again.
    ask(slot == 0 ? kSlots - 1 : slot - 1);
    const unsigned x = x_first + base * 16;
    const auto add = [&](int j, const uint4& pack) {
      float w[kCount];
      unpack(pack, static_cast<const W*>(nullptr), w);
#pragma unroll
      for (int u = 0; u < tokens; ++u) {
#pragma unroll
        for (int q = 0; q < kQuads; ++q) {
          const float4 v = load_shared_quad(x + (u * kQuads + q) * quad_step + j * lanes * 16);
          float& sum = sums[u][q];
          sum = fmaf(v.x, w[4 * q], sum);
          sum = fmaf(v.y, w[4 * q + 1], sum);
          sum = fmaf(v.z, w[4 * q + 2], sum);
          sum = fmaf(v.w, w[4 * q + 3], sum);
        }
      }
    };
    if (base + kGemvGroup * lanes <= packs) {  // for all lanes, so that loads need not wait
      uint4 pack[kGemvGroup];
#pragma unroll
      for (int j = 0; j < kGemvGroup; ++j) pack[j] = load_shared(group + j * (kGemvThreads * 16));
#pragma unroll
      for (int j = 0; j < kGemvGroup; ++j) add(j, pack[j]);
    } else {
#pragma unroll
      for (int j = 0; j < kGemvGroup; ++j) {
        if (base + lane + j * lanes < packs) add(j, load_shared(group + j * (kGemvThreads * 16)));
      }
    }
    slot = slot + 1 == kSlots ? 0 : slot + 1;
    base += kGemvGroup * lanes;
    if (base < packs) continue;
    base = 0;
#pragma unroll
    for (int u = 0; u < tokens; ++u) {
      float sum = 0;
#pragma unroll
      for (int q = 0; q < kQuads; ++q) {
        sum += sums[u][q];
        sums[u][q] = 0;
      }
      sum = lanes_sum<(lanes < 32 ? lanes : 32)>(sum);
      if constexpr (kWarps > 1) {
        if (thread % 32 == 0) partial[parity][warp][u] = sum;
      } else if (lane == kept * tokens + u) {
        mine = sum;
      }
    }
    if constexpr (kWarps > 1) {
      __syncthreads();
      if (lane / tokens == kept) {
        mine = 0;
#pragma unroll
        for (int i = 0; i < kWarps; ++i) mine += partial[parity][warp + i][t];
      }
      parity ^= 1;
    }
    first += stride;
    if (++kept == kKept && first < weights.outputs) {
      store();
      kept = 0;
      kept_row += kKept * stride;
      if (keeps && kept_row < weights.outputs) {
        ahead = epilogue.before(token, t, kept_row);
        epilogue.after(ahead, t, kept_row);
      }
    }
  }
  store();
  await_copies<0>();
  if (lanes <= 32) fetch.run();  // when we need the memory no more
}

inline GemvInput gemv_input(const TensorView& x) {
  GemvInput input{};
  input.x = x.as<const void>();
  input.row = x.stride[0];
  input.type = x.dtype;
  input.tokens = static_cast<int>(x.dim[0]);
  input.width = static_cast<int>(x.dim[1]);
  const std::int64_t quad = bytes_of(x.dtype, 4);
  input.aligned = reinterpret_cast<std::uintptr_t>(input.x) % quad == 0 && x.stride[0] % 4 == 0 &&
                  input.width % 4 == 0;
  return input;
}

inline GemvInput gemv_input(const TensorView& x, const TensorView& norm_weight, double eps) {
  GemvInput input = gemv_input(x);
  input.norm_weight = norm_weight.as<const float>();
  input.aligned = input.aligned && aligned_to_16(input.norm_weight);
  input.eps = static_cast<float>(eps);
  input.width_reciprocal = 1.0f / static_cast<float>(input.width);
  return input;
}

/// Why a product of few tokens cannot be run by gemv; empty if it can.
inline std::string gemv_supports(const Call& call, const TensorView& x, const TensorView& w,
                                 const Device& device) {
  const TensorView& y = call.outputs[0];
  const auto& cuda = static_cast<const CudaDevice&>(device);
  const bool others = call.native || (w.dtype == DType::bf16 && cuda.has_clusters());
  const int tokens = others ? kGemvTokensBefore : kGemvTokens;
  if (x.dim[0] > tokens) return cat("for at most ", tokens, " tokens, got ", x.dim[0]);
  std::string reason = want_float("x", x);
  if (reason.empty()) reason = want_float("w", w);
  if (reason.empty()) reason = want_float("y", y);
  const int most = (cuda.shared_bytes() - gemv_ring_bytes(cuda)) / 4 - 512;
  if (reason.empty() && x.dim[1] > most)
    reason = cat("for at most ", most, " inputs, got ", x.dim[1]);
  if (reason.empty() && w.dim[0] > (std::int64_t{1} << 30)) reason = "too many outputs";
  return reason;
}

template <int tokens, int lanes, bool neat, bool normed, class X, class W, class Epilogue>
void launch_gemv(const Launch& launch, const GemvInput& input, const GemvWeights<W>& weights,
                 const Epilogue& epilogue) {
  const auto& device = static_cast<const CudaDevice&>(launch.device);
  const int blocks = std::min(weights.outputs, device.multiprocessors());
  int shared = gemv_ring_bytes(device) + tokens * weights.packs() * weights.kCount * 4;
  if (Epilogue::kFollowsScan && keeps_blocks_apart(device))
    shared = std::max(shared, device.shared_bytes() / 2);
  launch_early(launch, gemv<tokens, lanes, neat, normed, X, W, Epilogue>,
               dim3(static_cast<unsigned>(blocks)), kGemvThreads, static_cast<std::size_t>(shared),
               input, weights, epilogue,
               // With several tokens its blocks take all of the device.
               tokens == 1 && launch.next_first, FetchAhead(launch));
}

/// Few rows are shared by warps, so that more of the device has something to do; where a warp a row
/// would take two turns, and half a warp a row only one, that is faster.
template <int tokens, bool normed, class X, class W, class Epilogue>
void launch_gemv(const Launch& launch, const GemvInput& input, const GemvWeights<W>& weights,
                 const Epilogue& epilogue) {
  const int rows = static_cast<const CudaDevice&>(launch.device).multiprocessors() * kGemvWarps;
  if (!input.aligned || !weights.aligned)
    launch_gemv<tokens, 32, false, normed, X>(launch, input, weights, epilogue);
  else if (weights.outputs <= rows / 4)
    launch_gemv<tokens, 128, true, normed, X>(launch, input, weights, epilogue);
  else if (weights.outputs <= rows || weights.outputs > 2 * rows)
    launch_gemv<tokens, 32, true, normed, X>(launch, input, weights, epilogue);
  else
    launch_gemv<tokens, 16, true, normed, X>(launch, input, weights, epilogue);
}

template <bool normed, class X, class Epilogue>
void run_gemv_of(const Launch& launch, GemvInput input, const TensorView& w,
                 const Epilogue& epilogue) {
  if (input.tokens == 0 || w.dim[0] == 0) return;
  const auto& device = static_cast<const CudaDevice&>(launch.device);
  const bool four =
      4 * 4 * (input.width + 8) <= device.shared_bytes() - gemv_ring_bytes(device) - 4096;
  with_float_type(w.dtype, [&](auto type) {
    using W = decltype(type);
    const GemvWeights<W> weights{
        w.as<const W>(), static_cast<int>(w.dim[0]), static_cast<int>(w.dim[1]),
        aligned_to_16(w.as<const W>(), w.dim[1] * static_cast<std::int64_t>(sizeof(W)))};
    const int total = input.tokens;
    const auto size = static_cast<std::int64_t>(info(input.type).block_bytes);
    for (int t = 0; t < total;) {
      const int take = total - t > 1 && four ? std::min(total - t, 4) : 1;
      input.tokens = take;
      if (take > 1)
        launch_gemv<4, normed, X>(launch, input, weights, epilogue.from(t));
      else
        launch_gemv<1, normed, X>(launch, input, weights, epilogue.from(t));
      t += take;
      input.x = static_cast<const char*>(input.x) + take * input.row * size;
    }
  });
}

/// Runs a product whose operands gemv_supports(). `epilogue.from(t)` is the epilogue of the tokens
/// from t on. Whatever the number of tokens, a token's sum is made in the same order.
template <class Epilogue>
void run_gemv(const Launch& launch, const GemvInput& input, const TensorView& w,
              const Epilogue& epilogue) {
  with_float_type(input.type, [&](auto type) {
    run_gemv_of<false, decltype(type)>(launch, input, w, epilogue);
  });
}
/// The same of float32 inputs that are normalised.
template <class Epilogue>
void run_norm_gemv(const Launch& launch, const GemvInput& input, const TensorView& w,
                   const Epilogue& epilogue) {
  run_gemv_of<true, float>(launch, input, w, epilogue);
}

/// y[t,o] = sum + bias[o] + residual[t,o]
struct PlainEpilogue {
  static constexpr bool kFollowsScan = false;
  void* y;
  std::int64_t y_row;
  DType type;
  const float* bias;      ///< may be null
  const float* residual;  ///< may be null
  std::int64_t residual_row;

  struct Token {};
  struct Ahead {
    float bias, residual;
  };
  __device__ Token token(int) const { return {}; }
  __device__ Ahead before(const Token&, int, int o) const { return {bias ? bias[o] : 0.0f, 0.0f}; }
  __device__ void after(Ahead& ahead, int t, int o) const {
    if (residual) ahead.residual = residual[t * residual_row + o];
  }
  __device__ void store(int t, int o, float sum, const Ahead& ahead) const {
    set_element(y, type, t * y_row + o, sum + (ahead.bias + ahead.residual));
  }
  PlainEpilogue from(int t) const {
    PlainEpilogue rest = *this;
    rest.y = static_cast<char*>(y) + t * y_row * info(type).block_bytes;
    if (residual) rest.residual += t * residual_row;
    return rest;
  }
};

inline PlainEpilogue plain_epilogue(const TensorView& y, const TensorView& bias,
                                    const TensorView& residual = {}) {
  return {y.as<void>(),
          y.stride[0],
          y.dtype,
          bias ? bias.as<const float>() : nullptr,
          residual ? residual.as<const float>() : nullptr,
          residual ? residual.stride[0] : 0};
}

}  // namespace krait::cuda
