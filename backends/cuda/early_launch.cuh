// Programmatic dependent launch: in a chain of small kernels, the blocks of the next one are set
// up, and load what does not depend on the chain (weights), while the one before still runs. Each
// kernel of a chain waits for the one before it by itself.
#pragma once

#include "backends/cuda/cuda.h"

/// Before a kernel's bounds: so many blocks that follow each other form a cluster.
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ < 900
#define KRAIT_CLUSTER(blocks)  // there are none; nor is the kernel launched
#else
#define KRAIT_CLUSTER(blocks) __cluster_dims__(blocks, 1, 1)
#endif

namespace krait::cuda {

/// Returns when every kernel before this one has ended. Before it, read only what no kernel of the
/// chain writes: weights, indices, and states, as Launch::early promises.
__device__ inline void wait_for_kernels() {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}

/// Lets the next kernel start, as soon as all blocks say so.
__device__ inline void let_next_start() {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
#endif
}

/// Both: usually the next one's blocks would be in the way of kernels in between if they came
/// earlier. `next_first`: as Launch says.
__device__ inline void wait_for_inputs(bool next_first = false) {
  if (next_first) let_next_start();
  wait_for_kernels();
  if (!next_first) let_next_start();
}

/// What Launch::ahead asks for: a kernel that leaves the memory idle, a small one or a large one at
/// its end, lets it fetch weights that a later large one is going to read.
struct FetchAhead {
  const char* from;
  std::int64_t bytes;

  explicit FetchAhead(const Launch& launch)
      : from(launch.ahead.as<const char>()), bytes(launch.ahead ? launch.ahead.dim[0] : 0) {}
  /// By all threads of a one-dimensional grid of one-dimensional blocks together.
  __device__ void run() const {
    const std::int64_t step = std::int64_t{gridDim.x} * blockDim.x * 128;
    for (std::int64_t at = (std::int64_t{blockIdx.x} * blockDim.x + threadIdx.x) * 128; at < bytes;
         at += step) {
      asm volatile("prefetch.global.L2 [%0];" ::"l"(from + at));
    }
  }
};

/// Launches a kernel that calls wait_for_inputs() before it reads what the kernel before it writes,
/// and before it writes anything. `cluster`: blocks that follow each other and form one; 0 for a
/// kernel that says so itself, or has none.
template <class... Params, class... Args>
void launch_clusters(const Launch& launch, void (*kernel)(Params...), dim3 grid, int cluster,
                     unsigned threads, std::size_t shared_bytes, Args&&... args) {
  const auto& device = static_cast<const CudaDevice&>(launch.device);
  if (shared_bytes > 48 << 10) {
    cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                         static_cast<int>(shared_bytes));
  }
  // One division of memory into cache and shared memory for all kernels of a chain: to change it, a
  // multiprocessor has to run dry.
  cudaFuncSetAttribute(kernel, cudaFuncAttributePreferredSharedMemoryCarveout,
                       cudaSharedmemCarveoutMaxShared);
  cudaLaunchAttribute attributes[2]{};
  unsigned count = 0;
  if (launch.early && device.early_launch()) {
    attributes[count].id = cudaLaunchAttributeProgrammaticStreamSerialization;
    attributes[count++].val.programmaticStreamSerializationAllowed = 1;
  }
  if (cluster > 0) {
    attributes[count].id = cudaLaunchAttributeClusterDimension;
    attributes[count++].val.clusterDim = {static_cast<unsigned>(cluster), 1, 1};
  }
  cudaLaunchConfig_t config{};
  config.gridDim = grid;
  config.blockDim = dim3(threads);
  config.dynamicSmemBytes = shared_bytes;
  config.stream = device.stream();
  config.attrs = attributes;
  config.numAttrs = count;
  cudaLaunchKernelEx(&config, kernel, Params(args)...);  // errors: see launched()
}
template <class... Params, class... Args>
void launch_early(const Launch& launch, void (*kernel)(Params...), dim3 grid, unsigned threads,
                  std::size_t shared_bytes, Args&&... args) {
  launch_clusters(launch, kernel, grid, 0, threads, shared_bytes, args...);
}

}  // namespace krait::cuda
