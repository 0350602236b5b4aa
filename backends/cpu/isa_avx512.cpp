// The kernels for AVX-512 F, BW, DQ and VL; CMakeLists.txt gives this file its flags.
#include <xsimd/xsimd.hpp>

#define KRAIT_ISA avx512
namespace krait::cpu::KRAIT_ISA {
using Arch = xsimd::avx512bw;
}

#include "backends/cpu/isa.hpp"

namespace krait::cpu {
KRAIT_ISA_TABLE(avx512, "AVX-512 F, BW, DQ and VL")
}
