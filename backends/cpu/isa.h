// What the kernels of one instruction set offer to the code around them: plain functions on plain
// structs. Files compiled for a wide instruction set see nothing else of Krait, so that no inline
// function of theirs can be picked by the linker for everybody (tests/cpu_isa_symbols_test.py).
//
// Pointers need no alignment. `row` strides count elements; no function allocates or throws.
#pragma once

#include <cstddef>
#include <cstdint>

#include "ops/enums.h"
#include <krait/dtype.h>

namespace krait::cpu {

enum class Unary : int { neg, exp, silu, softplus };
enum class Binary : int { add, mul };

/// A matrix as rows of float32.
struct Rows {
  const float* data = nullptr;  ///< null where an optional operand is absent
  std::int64_t row = 0;
  const float* at(std::int64_t t) const { return data + t * row; }
};
struct RowsOut {
  float* data = nullptr;
  std::int64_t row = 0;
  float* at(std::int64_t t) const { return data + t * row; }
};

/// The sequences of a call: tokens starts[s] to starts[s+1] read slot_in[s], write slot_out[s].
struct Sequences {
  const std::int32_t* starts = nullptr;
  const std::int32_t* slot_in = nullptr;
  const std::int32_t* slot_out = nullptr;
};

/// Weights lie in panels of kPanel output rows, so that the rows of a panel fill the lanes of
/// vectors; rows beyond the last are zero. In a panel of float32 or float16, element i of row r
/// stands at i · kPanel + r; of bfloat16, at (i / 2 · kPanel + r) · 2 + i % 2, where an odd number
/// of inputs is followed by zeros; block types have units (block_panels.h).
inline constexpr std::int64_t kPanel = 16;

/// A block of a matrix product has at most so many panels and tokens: the panels are read once for
/// all tokens of the block.
inline constexpr std::int64_t kBlockPanels = 4;
inline constexpr std::int64_t kBlockTokens = 96;

struct LinearArgs {
  Rows x;
  const std::byte* w = nullptr;  ///< panels
  std::int64_t panel_bytes = 0;
  DType weight = DType::f32;
  const float* bias = nullptr;
  RowsOut y;
  std::int64_t inputs = 0, outputs = 0;
};

/// The same with inputs that are rounded first: token t to `row_bytes` bytes at `rounded`.
struct RoundedArgs {
  LinearArgs linear;
  std::byte* rounded = nullptr;
  std::int64_t row_bytes = 0;
};

struct RmsNormArgs {
  Rows x, residual, gate;
  const float* weight = nullptr;
  RowsOut y, sum;
  std::int64_t width = 0, groups = 1;  ///< D = width · groups
  float eps = 0;
  bool norm_before_gate = false;
};

struct ConvArgs {
  Rows x;
  const float* w = nullptr;  ///< [D, K] with rows w_row apart
  std::int64_t w_row = 0;
  const float* bias = nullptr;
  RowsOut y;
  float* state = nullptr;  ///< [C, D, K-1]
  std::int64_t state_slot = 0, state_row = 0;
  std::int64_t taps = 0;
  Activation activation = Activation::none;
  Sequences sequences;
};

struct ScanArgs {
  Rows u, dt, z, A;
  Rows B, C;
  std::int64_t B_group = 0, C_group = 0;
  const float* skip = nullptr;
  const float* dt_bias = nullptr;
  RowsOut y;
  float* state = nullptr;  ///< [C, D, N]
  std::int64_t state_slot = 0, state_row = 0;
  std::int64_t states = 0, channels_per_group = 0;
  bool dt_softplus = false;
  Discretisation rule = Discretisation::mamba;
  Sequences sequences;
};

/// The kernels of one instruction set.
struct Isa {
  const char* name;   ///< of its kernels: "avx512"
  const char* needs;  ///< in words

  void (*unary)(Unary op, const float* x, float* y, std::int64_t count);
  void (*binary)(Binary op, const float* x, const float* y, float* z, std::int64_t count);
  /// One of `from` and `to` is f32, the other f32, f16 or bf16.
  void (*cast)(DType from, const void* x, DType to, void* y, std::int64_t count);
  /// Row `o` of weights in panels, as float32.
  void (*panel_row)(const LinearArgs& args, std::int64_t o, float* y);
  /// The first position from `from` on whose value is larger than `threshold`, else `count`.
  std::int64_t (*next_above)(const float* x, std::int64_t from, std::int64_t count,
                             float threshold);
  /// y[t, o] for tokens [t0, t1) and the outputs of panels [p0, p1), at most kBlockPanels.
  void (*linear)(const LinearArgs& args, std::int64_t t0, std::int64_t t1, std::int64_t p0,
                 std::int64_t p1);
  void (*rms_norm)(const RmsNormArgs& args, std::int64_t token);
  /// All tokens of one sequence, channels [d0, d1).
  void (*causal_conv1d)(const ConvArgs& args, std::int64_t sequence, std::int64_t d0,
                        std::int64_t d1);
  void (*selective_scan)(const ScanArgs& args, std::int64_t sequence, std::int64_t d0,
                         std::int64_t d1);
};

/// Matrix products of rounded inputs, for instructions that not every processor of a set has.
struct RoundedIsa {
  const char* name;
  const char* needs;
  /// Rounds tokens [t0, t1).
  void (*round)(const RoundedArgs& args, std::int64_t t0, std::int64_t t1);
  /// As Isa::linear, with at most kBlockTokens tokens that were rounded.
  void (*linear)(const RoundedArgs& args, std::int64_t t0, std::int64_t t1, std::int64_t p0,
                 std::int64_t p1);
};

#define KRAIT_CPU_ROUNDED_ISA(inputs, name) extern const RoundedIsa name##_isa;
#include "backends/cpu/rounded_isas.inc"
#undef KRAIT_CPU_ROUNDED_ISA

#define KRAIT_CPU_ISA(name) extern const Isa name##_isa;
#include "backends/cpu/isas.inc"
#undef KRAIT_CPU_ISA

}  // namespace krait::cpu
