#include <algorithm>
#include <cmath>

#include "backends/cuda/batch_product.cuh"

namespace krait::cuda {
namespace {

constexpr int kThreads = 256;

/// Elements of a row that a thread keeps from the sum of squares to the output; longer rows are
/// read again.
constexpr int kKept = 12;

/// A block per row: normalised where there is a weight, then as `terms` rows of bfloat16.
template <int terms, class X>
__global__ void __launch_bounds__(kThreads)
    prepare_rows(const X* x, std::int64_t x_row, const float* weight, int width, float eps,
                 __nv_bfloat16* to) {
  const std::int64_t rows = gridDim.x, r = blockIdx.x;
  const auto at = [&](int j) { return static_cast<int>(threadIdx.x) + j * kThreads; };
  float scale[kKept];
#pragma unroll
  for (int j = 0; j < kKept; ++j) scale[j] = weight && at(j) < width ? weight[at(j)] : 1.0f;
  let_next_start();  // the product, which asks for weights while we wait
  wait_for_kernels();
  const X* const row = x + r * x_row;
  float kept[kKept], squares = 0;
#pragma unroll
  for (int j = 0; j < kKept; ++j) kept[j] = at(j) < width ? to_float(row[at(j)]) : 0.0f;
  float norm = 1;
  if (weight) {
#pragma unroll
    for (int j = 0; j < kKept; ++j) squares = fmaf(kept[j], kept[j], squares);
    for (int i = at(kKept); i < width; i += kThreads)
      squares = fmaf(to_float(row[i]), to_float(row[i]), squares);
    norm = 1.0f / sqrtf(block_sum(squares) / static_cast<float>(width) + eps);
  }
  const auto store = [&](int i, float v) {
    if constexpr (terms == 1) {
      to[r * width + i] = from_float<__nv_bfloat16>(v);
    } else {
#pragma unroll
      for (int k = 0; k < terms; ++k) {
        const auto bits = static_cast<unsigned short>(take_term(v) >> 16);
        to[(k * rows + r) * width + i] = __ushort_as_bfloat16(bits);
      }
    }
  };
#pragma unroll
  for (int j = 0; j < kKept; ++j) {
    if (at(j) < width) store(at(j), kept[j] * (norm * scale[j]));
  }
  for (int i = at(kKept); i < width; i += kThreads)
    store(i, to_float(row[i]) * (norm * (weight ? weight[i] : 1.0f)));
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
    const auto kernel = input.terms == 1 ? prepare_rows<1, X> : prepare_rows<3, X>;
    launch_early(launch, kernel, dim3(static_cast<unsigned>(input.tokens)), kThreads, 0,
                 x.as<const X>(), x.stride[0], weight, input.width, static_cast<float>(eps), to);
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
  const int stage = batch_stage_bytes(1, terms_of(call), batch_stage_tokens(x.dim[0]));
  if (kFewestStages * stage > batch_shared(cuda) - 1024)
    return cat("for fewer than ", x.dim[0], " tokens on a device with so little shared memory");
  return want_float("y", call.outputs[0]);
}

int batch_shared(const CudaDevice& device) {
  // A multiprocessor has 1 KB more than a block may ask for, and keeps as much for each block.
  constexpr int kBesides = 2 << 10;  // that, and the barriers
  return (device.shared_bytes() + 1024) / kBatchBlocks - kBesides;
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
  const int shared = batch_shared(device), all = device.multiprocessors();
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
