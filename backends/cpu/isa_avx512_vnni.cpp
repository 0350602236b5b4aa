// Products of int8 for AVX-512 with VNNI; CMakeLists.txt gives this file its flags.
#include <xsimd/xsimd.hpp>

#define KRAIT_ISA avx512_vnni
namespace krait::cpu::KRAIT_ISA {
using Arch = xsimd::avx512bw;
}

#include "backends/cpu/widen.hpp"

namespace krait::cpu::KRAIT_ISA {
KRAIT_INLINE Ints dot(Ints sums, Words codes, Ints four) {
  return _mm512_dpbusd_epi32(sums, codes, four);
}
}  // namespace krait::cpu::KRAIT_ISA

#include "backends/cpu/linear_int8.hpp"

namespace krait::cpu {
const RoundedIsa avx512_vnni_isa = {"avx512_vnni", "AVX-512 VNNI", avx512_vnni::round_rows,
                                    avx512_vnni::linear_int8};
}
