// What the processor that runs us offers, asked of the processor itself.
#pragma once

#include <string>

namespace krait::cpu {

/// Instruction sets that both the processor has and the operating system keeps across switches.
struct Features {
  bool sse42 = false;
  bool avx2 = false;      ///< with FMA and F16C, which the avx2 kernels use as well
  bool avx512 = false;    ///< F, BW, DQ and VL
  bool avx_vnni = false;  ///< products of int8 in 256 bits
  bool avx512_vnni = false;
  bool avx512_bf16 = false;
  bool neon = false;
  std::string name;  ///< the processor's own, "processor" if it tells none
};

/// Asked once, then remembered.
const Features& features();

/// The cores that this process may use, at least 1.
int available_cores();

}  // namespace krait::cpu
