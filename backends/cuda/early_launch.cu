#include "backends/cuda/early_launch.cuh"

namespace krait::cuda {
namespace {

__global__ void probe() {}

}  // namespace

bool compiled_for_early_launch() {
  // Code for older devices, even when the driver compiles it for this one, does not wait.
  cudaFuncAttributes attributes{};
  return cudaFuncGetAttributes(&attributes, probe) == cudaSuccess && attributes.ptxVersion >= 90;
}

}  // namespace krait::cuda
