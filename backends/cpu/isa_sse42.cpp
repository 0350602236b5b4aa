// The kernels for SSE4.2; CMakeLists.txt gives this file its flags.
#include <xsimd/xsimd.hpp>

#define KRAIT_ISA sse42
namespace krait::cpu::KRAIT_ISA {
using Arch = xsimd::sse4_2;
}

#include "backends/cpu/isa.hpp"

namespace krait::cpu {
KRAIT_ISA_TABLE(sse42, "SSE4.2")
}
