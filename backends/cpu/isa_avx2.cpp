// The kernels for AVX2 with FMA and F16C; CMakeLists.txt gives this file its flags.
#include <xsimd/xsimd.hpp>

#define KRAIT_ISA avx2
namespace krait::cpu::KRAIT_ISA {
using Arch = xsimd::fma3<xsimd::avx2>;
}

#include "backends/cpu/isa.hpp"

namespace krait::cpu {
KRAIT_ISA_TABLE(avx2, "AVX2 with FMA and F16C")
}
