// All kernels for one instruction set. An isa_*.cpp defines KRAIT_ISA and Arch, then includes this.
#pragma once

#include "backends/cpu/causal_conv1d.hpp"
#include "backends/cpu/elementwise.hpp"
#include "backends/cpu/linear.hpp"
#include "backends/cpu/rms_norm.hpp"
#include "backends/cpu/rows.hpp"
#include "backends/cpu/selective_scan.hpp"

#define KRAIT_ISA_TABLE(isa, needs)          \
  const Isa isa##_isa = {#isa,               \
                         needs,              \
                         isa::unary,         \
                         isa::binary,        \
                         isa::cast,          \
                         isa::panel_row,     \
                         isa::next_above,    \
                         isa::linear,        \
                         isa::rms_norm,      \
                         isa::causal_conv1d, \
                         isa::selective_scan};
