// The kernels for Advanced SIMD; CMakeLists.txt gives this file its flags.
#include <xsimd/xsimd.hpp>

#define KRAIT_ISA neon
namespace krait::cpu::KRAIT_ISA {
using Arch = xsimd::neon64;
}

#include "backends/cpu/isa.hpp"

namespace krait::cpu {
KRAIT_ISA_TABLE(neon, "Advanced SIMD")
}
