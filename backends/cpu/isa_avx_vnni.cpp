// Products of int8 for AVX2 with VNNI; CMakeLists.txt gives this file its flags.
#include <xsimd/xsimd.hpp>

#define KRAIT_ISA avx_vnni
namespace krait::cpu::KRAIT_ISA {
using Arch = xsimd::fma3<xsimd::avx2>;
}

#include "backends/cpu/widen.hpp"

namespace krait::cpu::KRAIT_ISA {
KRAIT_INLINE Ints dot(Ints sums, Words codes, Ints four) {
  return _mm256_dpbusd_avx_epi32(sums, codes, four);
}
}  // namespace krait::cpu::KRAIT_ISA

#include "backends/cpu/linear_int8.hpp"

namespace krait::cpu {
const RoundedIsa avx_vnni_isa = {"avx_vnni", "AVX-VNNI", avx_vnni::round_rows,
                                 avx_vnni::linear_int8};
}
