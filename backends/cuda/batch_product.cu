#include <algorithm>
#include <cmath>

#include "backends/cuda/batch_product.cuh"

namespace krait::cuda {
namespace {

constexpr int kThreads = 256;

/// Fours of a row's elements that a thread has: where it normalises, those that it keeps from the
/// sum of squares to the output.
constexpr int kFewQuads = 3, kManyQuads = 8;

/// Rows as `terms` rows of bfloat16 each: normalised where there is a weight, a block a row; else
/// several blocks a row. `neat`: aligned fours, without a remainder, and a thread can keep its part
/// of a row that it normalises. Longer rows are read again.
template <int terms, int kQuads, bool neat, class X>
__global__ void __launch_bounds__(kThreads)
    prepare_rows(const X* x, std::int64_t x_row, const float* weight, int width, float eps,
                 __nv_bfloat16* to) {
  const std::int64_t rows = gridDim.x, r = blockIdx.x;
  const int quads = (width + 3) / 4;
  const auto at = [&](int j) {
    return static_cast<int>(blockIdx.y * kQuads + j) * kThreads + static_cast<int>(threadIdx.x);
  };
  const auto quad = [&](const auto* from, int q) {
    if constexpr (neat) {
      return load_quad(from + 4 * q);
    } else {
      float v[4];
#pragma unroll
      for (int i = 0; i < 4; ++i) v[i] = 4 * q + i < width ? to_float(from[4 * q + i]) : 0.0f;
      return float4{v[0], v[1], v[2], v[3]};
    }
  };
  float4 scale[kQuads];
#pragma unroll
  for (int j = 0; j < kQuads; ++j)
    scale[j] = weight && at(j) < quads ? quad(weight, at(j)) : float4{1, 1, 1, 1};
  const float width_reciprocal = 1.0f / static_cast<float>(width);
  let_next_start();  // the product, which asks for weights while we wait
  wait_for_kernels();
  const X* const row = x + r * x_row;
  float4 kept[kQuads];
#pragma unroll
  for (int j = 0; j < kQuads; ++j) kept[j] = at(j) < quads ? quad(row, at(j)) : float4{};
  float norm = 1;
  if (weight) {
    float squares = 0;
    const auto add = [&](const float4& v) {
      squares = fmaf(v.x, v.x, fmaf(v.y, v.y, fmaf(v.z, v.z, fmaf(v.w, v.w, squares))));
    };
#pragma unroll
    for (int j = 0; j < kQuads; ++j) add(kept[j]);
    for (int q = at(kQuads); !neat && q < quads; q += kThreads) add(quad(row, q));
    norm = rsqrtf(fmaf(block_sum<kThreads>(squares), width_reciprocal, eps));
  }
  const auto store = [&](int q, const float4& value, const float4& by) {
    float v[4] = {value.x * (norm * by.x), value.y * (norm * by.y), value.z * (norm * by.z),
                  value.w * (norm * by.w)};
    std::uint32_t word[3][2];
    if constexpr (terms == 3) {
      take_terms(v, word);
    } else {
#pragma unroll
      for (int i = 0; i < 2; ++i) {
        const __nv_bfloat162 pair = __floats2bfloat162_rn(v[2 * i], v[2 * i + 1]);
        word[0][i] = reinterpret_cast<const std::uint32_t&>(pair);
      }
    }
#pragma unroll
    for (int k = 0; k < terms; ++k) {
      __nv_bfloat16* const there = to + (k * rows + r) * width + 4 * q;
      if constexpr (neat) {
        *reinterpret_cast<uint2*>(there) = {word[k][0], word[k][1]};
      } else {
#pragma unroll
        for (int i = 0; i < 4; ++i) {
          const auto bits = static_cast<unsigned short>(word[k][i / 2] >> (i % 2 * 16));
          if (4 * q + i < width) there[i] = __ushort_as_bfloat16(bits);
        }
      }
    }
  };
#pragma unroll
  for (int j = 0; j < kQuads; ++j) {
    if (at(j) < quads) store(at(j), kept[j], scale[j]);
  }
  // Without a norm, the next blocks have the rest.
  for (int q = at(kQuads); !neat && weight && q < quads; q += kThreads)
    store(q, quad(row, q), quad(weight, q));
}

int terms_of(const Call& call) {
  return call.inputs[0].dtype == DType::f32 && !call.native ? 3 : 1;
}

}  // namespace

BatchInput batch_input(const Call& call, const Launch& launch, const TensorView& norm_weight,
                       double eps) {
  const TensorView& x = call.inputs[0];
  BatchInput input{x.as<const void>(), x.stride[0], static_cast<int>(x.dim[0]),
                   static_cast<int>(x.dim[1]), terms_of(call)};
  if (!norm_weight && fits_tensor_map(x)) return input;
  auto* const to = launch.workspace.as<__nv_bfloat16>();
  const auto* const weight = norm_weight ? norm_weight.as<const float>() : nullptr;
  with_float_type(x.dtype, [&](auto type) {
    using X = decltype(type);
    const auto* const from = x.as<const X>();
    const auto row_bytes = x.stride[0] * static_cast<std::int64_t>(sizeof(X));
    const int most = 4 * kThreads;  // for each of its quads, that a block has of a row
    const bool neat = input.width % 4 == 0 && aligned_to_16(from, row_bytes) &&
                      aligned_to_16(weight) && (!weight || input.width <= kManyQuads * most);
    const auto launch_as = [&](auto terms) {
      constexpr int n = terms.value;
      const auto kernel = !neat ? prepare_rows<n, kFewQuads, false, X>
                          : !weight || input.width <= kFewQuads * most
                              ? prepare_rows<n, kFewQuads, true, X>
                              : prepare_rows<n, kManyQuads, true, X>;
      const unsigned blocks = weight ? 1 : blocks_of(input.width, kFewQuads * most);
      launch_early(launch, kernel, dim3(static_cast<unsigned>(input.tokens), blocks), kThreads, 0,
                   from, x.stride[0], weight, input.width, static_cast<float>(eps), to);
    };
    if (input.terms == 1)
      launch_as(std::integral_constant<int, 1>());
    else
      launch_as(std::integral_constant<int, 3>());
  });
  input.rows = to;
  input.row = input.width;
  return input;
}

std::int64_t batch_workspace(const Call& call, const Device&) {
  const TensorView& x = call.inputs[0];
  return x.dim[0] * x.dim[1] * terms_of(call) * 2;
}

/// With less, nothing is on the way while a stage is in use.
constexpr int kFewestStages = 2;

std::string batch_supports(const Call& call, const TensorView& w, const Device& device) {
  const TensorView& x = call.inputs[0];
  const auto& cuda = static_cast<const CudaDevice&>(device);
  if (!cuda.has_clusters()) return "needs compute capability 9.0, and code for it";
  if (x.dim[0] > kBatchTokens) return cat("for at most ", kBatchTokens, " tokens, got ", x.dim[0]);
  if (x.dtype != DType::f32 && x.dtype != DType::bf16)
    return cat("x: expected f32 or bf16, got ", name(x.dtype));
  if (!fits_tensor_map(w)) return "w: expected bf16, and inputs a multiple of eight";
  if (w.dim[0] > 1 << 30 || w.dim[1] > 1 << 30) return "w is too large";
  const int terms = terms_of(call), tokens = batch_stage_tokens(x.dim[0]);
  if (kFewestStages * batch_stage_bytes(1, terms, tokens) >
      batch_shared(cuda, terms, tokens) - 1024)
    return cat("for fewer than ", x.dim[0], " tokens on a device with so little shared memory");
  return want_float("y", call.outputs[0]);
}

int batch_shared(const CudaDevice& device, int terms, int stage_tokens) {
  // A multiprocessor has 1 KB more than a block may ask for, and keeps as much for each block.
  constexpr int kBesides = 2 << 10;  // that, and the barriers
  const int all = device.shared_bytes() + 1024;
  // Rows of terms are most of a stage.
  const bool shares = terms == 1 || stage_tokens < 32;
  return (shares ? all / kBatchBlocks : all * 3 / 4) - kBesides;
}

// Times, counted in bytes that a block takes in meanwhile: some 30 a cycle, two on a multiprocessor
// as many each (measured on an H100: bench/results/cuda-h100.md).
constexpr double kShareOfMemory = 2.2;  ///< for each byte of a multiprocessor's part
constexpr double kStep = 16 << 10;      ///< the least for a step: waiting and multiplying
constexpr double kBlock = 48 << 10;     ///< a block's beginning and end
/// Blocks for every multiprocessor that find room before the kernel before has left; for more, the
/// beginning and the end count again.
constexpr double kRoom = 1.25;
constexpr double kExchange = 32 << 10;  ///< to meet the other blocks of a cluster, and then
constexpr double kExchangedByte = 2;

BatchTiling batch_tiling(const BatchInput& input, int outputs, int stage_tokens,
                         const CudaDevice& device, const MostClusters& most_clusters) {
  const int shared = batch_shared(device, input.terms, stage_tokens),
            all = device.multiprocessors();
  const int all_groups = (outputs + kBatchGroup - 1) / kBatchGroup;
  const double memory = kShareOfMemory * 2.0 * outputs * input.width / all;
  BatchTiling best{};
  double least = 0;
  for (int cluster = 1; cluster <= kBatchCluster; ++cluster) {
    for (int groups = 1; groups <= kBatchGroups; ++groups) {
      BatchTiling tiling{input.tokens, outputs, groups, cluster};
      tiling.tiles = (all_groups + groups - 1) / groups;
      tiling.k_tiles = (input.width + kTileColumns - 1) / kTileColumns;
      const int steps = (tiling.k_tiles + cluster - 1) / cluster;
      const int stage = batch_stage_bytes(groups, input.terms, stage_tokens);
      const int most_stages = (shared - 1024) / stage;
      tiling.stages = std::min({most_stages, kBatchStages, steps});
      // The ring holds a block's own sums and those that it receives.
      const int token = groups * kBatchGroup * 4;
      const int share = ((input.tokens + 3) / 4 + cluster - 1) / cluster * 4;
      const int received = cluster > 1 ? cluster * share * token : 0;
      if (most_stages < kFewestStages || stage_tokens * token + received > shared - 1024 ||
          cluster > tiling.k_tiles) {
        continue;
      }
      const int at_once = most_clusters(cluster, batch_threads(tiling), shared);
      if (at_once == 0) continue;
      const double waves = std::ceil(tiling.tiles / static_cast<double>(at_once));
      const double blocks = static_cast<double>(tiling.tiles) * cluster / all;
      // Blocks without a cluster gather, two on some multiprocessors and none on others, unless
      // they are kept apart.
      tiling.apart = cluster == 1 && blocks <= 1;
      if (cluster == 1 && blocks > 1 && waves == 1) continue;
      const double exchange = cluster > 1 ? kExchange + kExchangedByte * received : 0;
      const double time = std::max(memory, waves * steps * std::max<double>(stage, kStep)) +
                          kBlock * std::max(waves, blocks / kRoom) + waves * exchange;
      if (least == 0 || time < least) {
        best = tiling;
        least = time;
      }
    }
  }
  return best;
}

}  // namespace krait::cuda
