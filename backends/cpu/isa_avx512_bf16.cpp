// Products of bfloat16 for AVX-512 with BF16; CMakeLists.txt gives this file its flags.
#include <xsimd/xsimd.hpp>

#define KRAIT_ISA avx512_bf16
namespace krait::cpu::KRAIT_ISA {
using Arch = xsimd::avx512bw;
}

#include "backends/cpu/widen.hpp"

namespace krait::cpu::KRAIT_ISA {
KRAIT_INLINE Batch dot(Batch sums, Words weights, Words inputs) {
  return _mm512_dpbf16_ps(sums, __builtin_bit_cast(__m512bh, weights.data),
                          __builtin_bit_cast(__m512bh, inputs.data));
}
}  // namespace krait::cpu::KRAIT_ISA

#include "backends/cpu/linear_bf16.hpp"

namespace krait::cpu {
const RoundedIsa avx512_bf16_isa = {"avx512_bf16", "AVX-512 BF16", avx512_bf16::round_rows,
                                    avx512_bf16::linear_bf16};
}
