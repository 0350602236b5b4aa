#include "backends/cuda/cuda.h"

namespace krait::cuda {

#define KRAIT_KERNEL(name) extern const Kernel name##_kernel;
#include "backends/cuda/kernels.inc"
#undef KRAIT_KERNEL

std::span<const Kernel> CudaDevice::kernels() const {
  static const Kernel list[] = {
#define KRAIT_KERNEL(name) name##_kernel,
#include "backends/cuda/kernels.inc"
#undef KRAIT_KERNEL
  };
  return list;
}

}  // namespace krait::cuda
