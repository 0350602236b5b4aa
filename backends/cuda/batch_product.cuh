// y = x wᵀ for a batch's worth of tokens, at most 64, bound by the weights' bytes: tensor cores
// multiply what the copy engine streams through a ring in shared memory.
//
// A cluster of blocks makes a tile of y: some groups of 32 outputs, all tokens. Its blocks divide
// the inputs, so that a block reads little of x again; their sums meet in each other's shared
// memory. In a block one warp asks for tiles of w and x, the weights' first ones before the inputs
// are there; two warps a group multiply, each a half of the tokens. A group's outputs follow each
// other, the groups of a cluster lie as far apart as they can, so that every cluster has its share
// of the outputs that an epilogue treats differently.
//
// Products are those of bfloat16 and exact: float32 inputs are three bfloat16 terms
// (tensor_cores.cuh), the rows of three matrices. Sums are made in a fixed order, the same for each
// token whatever its place.
#pragma once

#include <functional>
#include <map>
#include <mutex>
#include <string>
#include <tuple>

#include "backends/cuda/early_launch.cuh"
#include "backends/cuda/shared_memory.cuh"
#include "backends/cuda/tensor_cores.cuh"
#include "backends/cuda/tensor_map.h"
#include "runtime/core/try.h"

namespace krait::cuda {

constexpr int kBatchTokens = 64;  ///< the most
constexpr int kBatchGroup = 32;   ///< outputs
constexpr int kBatchGroups = 5;   ///< of a block, the most
constexpr int kBatchStages = 20;  ///< of the ring, the most
constexpr int kBatchCluster = 8;  ///< blocks, the most
constexpr int kBatchBlocks = 2;   ///< on a multiprocessor: the next product's start beside the last
constexpr int kBatchThreads = 32 * (2 * kBatchGroups + 1);  ///< the most

/// How a product is divided.
struct BatchTiling {
  int tokens, outputs;
  int groups;   ///< of a block
  int cluster;  ///< blocks
  int tiles;    ///< of y: clusters
  int k_tiles;  ///< of kTileColumns inputs
  int stages;   ///< of the ring
  bool apart;   ///< each block has a multiprocessor for itself
};

#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900

/// Copies a tile of a matrix; the barrier counts its bytes.
__device__ inline void copy_tile(unsigned to, const CUtensorMap& map, int column, int row,
                                 unsigned barrier) {
  asm volatile(
      "cp.async.bulk.tensor.2d.shared::cluster.global.tile.mbarrier::complete_tx::bytes "
      "[%0], [%1, {%2, %3}], [%4];" ::"r"(to),
      "l"(&map), "r"(column), "r"(row), "r"(barrier)
      : "memory");
}
/// Four 8 x 8 matrices of 16-bit elements, their rows at the lanes' addresses.
__device__ inline void load_matrices(unsigned from, std::uint32_t (&m)[4]) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(m[0]), "=r"(m[1]), "=r"(m[2]), "=r"(m[3])
               : "r"(from)
               : "memory");
}
/// By `threads` of the block's threads, whole warps.
__device__ inline void some_threads_sync(int threads) {
  asm volatile("bar.sync 1, %0;" ::"r"(threads) : "memory");
}
#endif

/// n_tiles: tokens by eight. `Epilogue` treats four tokens, t to t+3, of one output together, those
/// of them that are below `tokens`:
///   Column column(int o) - what it reads once for all tokens: weights
///   void fetch(int t, int tokens, int o) - begins to fetch states, while the inputs are not there
///   Ahead before(const Column&, int t, int tokens, int o) - reads what it needs besides the sums
///   void store(const Column&, const Ahead&, int t, int tokens, int o, const float (&sum)[4])
template <int n_tiles, int terms, class Epilogue>
__global__ void __launch_bounds__(kBatchThreads, kBatchBlocks)
    batch_product(const __grid_constant__ CUtensorMap w, const __grid_constant__ CUtensorMap x,
                  const BatchTiling tiling, const Epilogue epilogue) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  constexpr int kTokens = 8 * n_tiles;
  constexpr int kWarpTiles = n_tiles / 2;  ///< of tokens; two warps share a group's
  constexpr int kGroupBytes = kBatchGroup * kTileColumns * 2;
  constexpr int kTermBytes = kTokens * kTileColumns * 2;
  extern __shared__ unsigned char dynamic[];
  __shared__ std::uint64_t full[kBatchStages], empty[kBatchStages], received;
  const unsigned ring =
      (shared_address(dynamic) + 1023) & ~1023u;  // swizzling counts rows from there
  const int groups = tiling.groups, stages = tiling.stages, cluster = tiling.cluster;
  const int stage_bytes = groups * kGroupBytes + terms * kTermBytes;
  const int warp = static_cast<int>(threadIdx.x) / 32, lane = static_cast<int>(threadIdx.x) % 32;
  const int tile = static_cast<int>(blockIdx.x) / cluster;
  const int rank = static_cast<int>(blockIdx.x) % cluster;
  const int k_first = tiling.k_tiles * rank / cluster;
  const int steps = tiling.k_tiles * (rank + 1) / cluster - k_first;
  // A cluster's blocks share the tokens of the epilogue, four by four.
  const int quads = (tiling.tokens + 3) / 4;
  const auto first_quad = [&](int rank) { return quads * rank / cluster; };
  const int q_first = first_quad(rank), q_last = first_quad(rank + 1);
  const int sums_row = groups * kBatchGroup * 4;  // bytes of a token's sums
  const bool copies = warp == 2 * groups;
  const auto stage_at = [&](int slot) { return ring + slot * stage_bytes; };
  const auto ask_w = [&](int step, int slot) {
    barrier_expect(shared_address(&full[slot]), stage_bytes);
    for (int g = 0; g < groups; ++g) {
      copy_tile(stage_at(slot) + g * kGroupBytes, w, (k_first + step) * kTileColumns,
                (tile + g * tiling.tiles) * kBatchGroup, shared_address(&full[slot]));
    }
  };
  const auto ask_x = [&](int step, int slot) {
#pragma unroll
    for (int k = 0; k < terms; ++k) {
      copy_tile(stage_at(slot) + groups * kGroupBytes + k * kTermBytes, x,
                (k_first + step) * kTileColumns, k * tiling.tokens, shared_address(&full[slot]));
    }
  };
  const int held = min(stages, steps);
  const int group = warp / 2, half = warp % 2;
  const int o = (tile + group * tiling.tiles) * kBatchGroup + lane;
  const bool stores = !copies && o < tiling.outputs;
  typename Epilogue::Column column{};
  if (stores) {
    // Before the ring's weights are asked for: what is asked for after them comes after them.
    for (int q = q_first + half; q < q_last; q += 2) epilogue.fetch(4 * q, tiling.tokens, o);
    column = epilogue.column(o);
  }
  if (copies && lane == 0) {
    for (int s = 0; s < stages; ++s) {
      barrier_init(shared_address(&full[s]), 1);
      barrier_init(shared_address(&empty[s]), 2 * groups);
    }
    barrier_init(shared_address(&received), 1);
    show_barriers();
    for (int s = 0; s < held; ++s) ask_w(s, s);
    if (cluster > 1)
      barrier_expect(shared_address(&received), (cluster - 1) * (q_last - q_first) * 4 * sums_row);
  }
  __syncthreads();
  wait_for_kernels();

  if (copies) {
    if (lane == 0) {
      for (int s = 0; s < held; ++s) ask_x(s, s);
      int slot = 0, parity = 0;
      for (int s = held; s < steps; ++s) {
        barrier_wait(shared_address(&empty[slot]), parity);
        ask_w(s, slot);
        ask_x(s, slot);
        if (++slot == stages) slot = 0, parity ^= 1;
      }
    }
    __syncwarp();
  } else {
    float sum[2][kWarpTiles][4] = {};
    // A lane's rows of the matrices that it loads, and its packs of them for a step's four slices
    // of sixteen inputs (tensor_map.h on their order). A warp with few tokens loads two slices of
    // them together.
    constexpr bool kFew = kWarpTiles == 1;
    const unsigned w_row = group * kGroupBytes + lane % 16 * 128;
    const unsigned x_row =
        groups * kGroupBytes + (half * kTokens / 2 + (kFew ? 0 : lane / 16 * 8) + lane % 8) * 128;
    unsigned w_pack[4], x_pack[4];
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      w_pack[i] = ((2 * i + lane / 16) ^ lane % 8) * 16;
      x_pack[i] = ((2 * i + (kFew ? lane / 8 : lane / 8 % 2)) ^ lane % 8) * 16;
    }
    int slot = 0, parity = 0;
#pragma unroll 1
    for (int s = 0; s < steps; ++s) {
      barrier_wait(shared_address(&full[slot]), parity);
      const unsigned w_at = stage_at(slot) + w_row, x_at = stage_at(slot) + x_row;
      std::uint32_t few[terms][4];
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        std::uint32_t a[2][4];
#pragma unroll
        for (int m = 0; m < 2; ++m) load_matrices(w_at + m * 16 * 128 + w_pack[i], a[m]);
#pragma unroll
        for (int k = terms - 1; k >= 0; --k) {
          if constexpr (kFew) {
            if (i % 2 == 0) load_matrices(x_at + k * kTermBytes + x_pack[i], few[k]);
#pragma unroll
            for (int m = 0; m < 2; ++m) {
              multiply_add(sum[m][0], a[m][0], a[m][1], a[m][2], a[m][3], few[k][i % 2 * 2],
                           few[k][i % 2 * 2 + 1]);
            }
          } else {
#pragma unroll
            for (int n = 0; n + 1 < kWarpTiles; n += 2) {
              std::uint32_t b[4];
              load_matrices(x_at + k * kTermBytes + n * 8 * 128 + x_pack[i], b);
#pragma unroll
              for (int m = 0; m < 2; ++m) {
                multiply_add(sum[m][n], a[m][0], a[m][1], a[m][2], a[m][3], b[0], b[1]);
                multiply_add(sum[m][n + 1], a[m][0], a[m][1], a[m][2], a[m][3], b[2], b[3]);
              }
            }
          }
        }
      }
      __syncwarp();
      if (lane == 0) barrier_arrive(shared_address(&empty[slot]));
      if (++slot == stages) slot = 0, parity ^= 1;
    }
    // The memory has time for the weights of the next product.
    let_next_start();
    some_threads_sync(groups * 64);  // the ring is free
    // The sums, [tokens][outputs], with the bits of a token's pair flipped in the output's number,
    // so that neither these stores nor rows meet in a bank.
#pragma unroll
    for (int m = 0; m < 2; ++m) {
#pragma unroll
      for (int n = 0; n < kWarpTiles; ++n) {
#pragma unroll
        for (int i = 0; i < 4; ++i) {
          const int t = half * kTokens / 2 + 8 * n + lane % 4 * 2 + i % 2;
          const int r = (16 * m + i / 2 * 8 + lane / 4) ^ (lane % 4 * 8);
          store_shared(ring + t * sums_row + (group * kBatchGroup + r) * 4, sum[m][n][i]);
        }
      }
    }
  }

  // Every block sends the others the sums of their tokens: [blocks][tokens][outputs], behind their
  // own.
  constexpr int kAhead = kTokens <= 16 ? 2 : 1;  // fours of tokens that a warp reads ahead for
  typename Epilogue::Ahead ahead[kAhead];
  const int q_mine = q_first + half;
  const unsigned parts = ring + kTokens * sums_row;
  const int quad_bytes = 4 * sums_row, part_bytes = (q_last - q_first) * quad_bytes;
  asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
  __syncthreads();
  if (cluster > 1) cluster_arrive();
  const auto read_ahead = [&](int q) { return epilogue.before(column, 4 * q, tiling.tokens, o); };
  if (stores) {
#pragma unroll
    for (int i = 0; i < kAhead; ++i) {
      if (q_mine + 2 * i < q_last) ahead[i] = read_ahead(q_mine + 2 * i);
    }
  }
  if (cluster > 1) {
    cluster_await();
    if (warp == 0 && lane < cluster && lane != rank) {
      const int first = first_quad(lane), bytes = (first_quad(lane + 1) - first) * quad_bytes;
      if (bytes > 0)
        send_bytes(address_in(parts + rank * bytes, lane), ring + first * quad_bytes, bytes,
                   address_in(shared_address(&received), lane));
    }
    barrier_wait_for_cluster(shared_address(&received));
    cluster_arrive();
  }
  if (stores) {
#pragma unroll 1
    for (int q = q_mine; q < q_last; q += 2) {
      const int flipped = lane ^ (q % 2 * 16);
      const int low = (group * kBatchGroup + flipped) * 4, high = 2 * sums_row + (low ^ 8 * 4);
      const unsigned own = ring + q * quad_bytes;
      unsigned part = parts + (q - q_first) * quad_bytes;
      float sum[4] = {};
#pragma unroll 4
      for (int r = 0; r < cluster; ++r) {
        const unsigned at = r == rank ? own : part;
        sum[0] += load_shared_float(at + low);
        sum[1] += load_shared_float(at + low + sums_row);
        sum[2] += load_shared_float(at + high);
        sum[3] += load_shared_float(at + high + sums_row);
        part += part_bytes;
      }
      const typename Epilogue::Ahead read = ahead[0];
      ahead[0] = ahead[kAhead - 1];
      if (q + 2 * kAhead < q_last) ahead[kAhead - 1] = read_ahead(q + 2 * kAhead);
      epilogue.store(column, read, 4 * q, tiling.tokens, o, sum);
    }
  }
  if (cluster > 1) cluster_await();  // until all have received: then nobody reads our sums
#endif
}

/// What a batch's product multiplies: rows of bfloat16; of float32, the rows of three matrices of
/// terms, one below the other.
struct BatchInput {
  const void* rows;
  std::int64_t row;  ///< elements from row to row
  int tokens, width, terms;
};

/// x as it is where it can be, else written to the workspace: normalised where there is a weight
/// for that.
BatchInput batch_input(const Call& call, const Launch& launch, const TensorView& norm_weight = {},
                       double eps = 0);
/// Bytes of workspace for it: the first operand of the call is x.
std::int64_t batch_workspace(const Call& call, const Device& device);

/// Why a product of a few tokens cannot be run; empty if it can.
std::string batch_supports(const Call& call, const TensorView& w, const Device& device);

/// Tokens that a stage of the ring has room for.
inline int batch_stage_tokens(std::int64_t tokens) {
  return tokens <= 16 ? 16 : tokens <= 32 ? 32 : 64;
}
/// Bytes of a stage.
inline int batch_stage_bytes(int groups, int terms, int stage_tokens) {
  return (groups * kBatchGroup + terms * stage_tokens) * kTileColumns * 2;
}
/// Bytes of shared memory for the ring: of half a multiprocessor, so that a product's weights come
/// while the one before ends; of most of it where stages are so large that few would fit.
int batch_shared(const CudaDevice& device, int terms, int stage_tokens);
/// More bytes than that, of which two blocks do not fit on a multiprocessor, but one beside another
/// product's.
constexpr int kBatchApart = 1 << 10;
/// The most clusters of so many blocks that run at once, if a block takes `shared` bytes.
using MostClusters = std::function<int(int cluster, int threads, int shared)>;
/// The division that is expected to take least time. A stage has `stage_tokens` tokens.
BatchTiling batch_tiling(const BatchInput& input, int outputs, int stage_tokens,
                         const CudaDevice& device, const MostClusters& most_clusters);
inline int batch_threads(const BatchTiling& tiling) {
  return 32 * (2 * tiling.groups + 1);
}

/// What was chosen before for a kernel: choosing asks the driver some forty times.
class BatchTilings {
 public:
  template <class Choose>
  BatchTiling get(const CudaDevice& device, const BatchInput& input, int outputs, Choose&& choose) {
    const std::scoped_lock lock(mutex_);
    const auto [at, fresh] =
        known_.try_emplace({device.info().name, input.tokens, outputs, input.width});
    if (fresh) at->second = choose();
    return at->second;
  }

 private:
  std::mutex mutex_;
  std::map<std::tuple<std::string, int, int, int>, BatchTiling> known_;
};

template <int n_tiles, int terms, class Epilogue>
Status launch_batch(const Launch& launch, const BatchInput& input, const TensorView& w,
                    const Epilogue& epilogue) {
  const auto& device = static_cast<const CudaDevice&>(launch.device);
  const auto kernel = batch_product<n_tiles, terms, Epilogue>;
  const int shared = batch_shared(device, terms, 8 * n_tiles);
  cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, shared + kBatchApart);
  const MostClusters most_clusters = [&](int cluster, int threads, int bytes) {
    cudaLaunchAttribute attribute{};
    attribute.id = cudaLaunchAttributeClusterDimension;
    attribute.val.clusterDim = {static_cast<unsigned>(cluster), 1, 1};
    cudaLaunchConfig_t config{};
    config.gridDim = dim3(static_cast<unsigned>(cluster));
    config.blockDim = dim3(static_cast<unsigned>(threads));
    config.dynamicSmemBytes = static_cast<std::size_t>(bytes);
    config.attrs = &attribute;
    config.numAttrs = 1;
    int most = 0;
    return cudaOccupancyMaxActiveClusters(&most, kernel, &config) == cudaSuccess ? most : 0;
  };
  const int outputs = static_cast<int>(w.dim[0]);
  static BatchTilings tilings;
  const BatchTiling tiling = tilings.get(device, input, outputs, [&] {
    return batch_tiling(input, outputs, 8 * n_tiles, device, most_clusters);
  });
  if (tiling.tiles == 0) return Status(Code::internal, "no division of a batch's product fits");
  KRAIT_ASSIGN(const CUtensorMap w_map,
               tensor_map(w.as<const void>(), outputs, input.width, w.stride[0], kBatchGroup));
  KRAIT_ASSIGN(const CUtensorMap x_map, tensor_map(input.rows, std::int64_t{input.tokens} * terms,
                                                   input.width, input.row, 8 * n_tiles));
  launch_clusters(launch, kernel, dim3(static_cast<unsigned>(tiling.tiles * tiling.cluster)),
                  tiling.cluster, static_cast<unsigned>(batch_threads(tiling)),
                  static_cast<std::size_t>(tiling.apart ? shared + kBatchApart : shared), w_map,
                  x_map, tiling, epilogue);
  return {};
}

/// Runs a product whose operands batch_supports().
template <class Epilogue>
Status run_batch(const Launch& launch, const BatchInput& input, const TensorView& w,
                 const Epilogue& epilogue) {
  const auto with_terms = [&](auto n_tiles) {
    return input.terms == 1 ? launch_batch<n_tiles.value, 1>(launch, input, w, epilogue)
                            : launch_batch<n_tiles.value, 3>(launch, input, w, epilogue);
  };
  switch (batch_stage_tokens(input.tokens)) {
    case 16:
      return with_terms(std::integral_constant<int, 2>());
    case 32:
      return with_terms(std::integral_constant<int, 4>());
    default:
      return with_terms(std::integral_constant<int, 8>());
  }
}

}  // namespace krait::cuda
