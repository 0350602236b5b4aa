// Block-quantised weights: rows of small integers with shared scales, in the layouts of GGUF.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "runtime/core/half.h"
#include <krait/dtype.h>

namespace krait {

// The value of element i of a block, with q its small integer:
//
//   type  elements  bits/weight  value           q
//   q8_0     32        8.5       d q             signed, 8 bits
//   q4_0     32        4.5       d (q − 8)       4 bits
//   q4_1     32        5         d q + m         4 bits
//   q5_0     32        5.5       d (q − 16)      5 bits, the fifth of all in `high`
//   q5_1     32        6         d q + m         5 bits
//   q4_k    256        4.5       d s q − dmin m  4 bits; s and m (6 bits) shared by 32 elements
//   q5_k    256        5.5       d s q − dmin m  5 bits
//   q6_k    256        6.5625    d s (q − 32)    6 bits; s (signed, 8 bits) shared by 16 elements
//
// d, dmin and the m of 32-element blocks are float16. Products of a scale and q are exact in
// float32, so a value has one rounding at most: that of the sum.

struct BlockQ8_0 {
  static constexpr int kElements = 32;
  f16 d;
  std::int8_t q[32];
};

/// Low halves of the bytes are elements 0 to 15, high halves elements 16 to 31.
struct BlockQ4_0 {
  static constexpr int kElements = 32;
  f16 d;
  std::uint8_t low[16];
};
struct BlockQ4_1 {
  static constexpr int kElements = 32;
  f16 d, m;
  std::uint8_t low[16];
};

/// As above; bit i of `high`, a little-endian number of 32 bits, is the fifth bit of element i.
struct BlockQ5_0 {
  static constexpr int kElements = 32;
  f16 d;
  std::uint8_t high[4];
  std::uint8_t low[16];
};
struct BlockQ5_1 {
  static constexpr int kElements = 32;
  f16 d, m;
  std::uint8_t high[4];
  std::uint8_t low[16];
};

/// Eight groups of 32 elements. The 32 bytes 32·c to 32·c+31 of `low` hold group 2c in their low
/// halves and group 2c+1 in their high halves. For `scales` see group_scale().
struct BlockQ4_K {
  static constexpr int kElements = 256;
  f16 d, dmin;
  std::uint8_t scales[12];
  std::uint8_t low[128];
};
/// As above; bit g of byte i of `high` is the fifth bit of element i of group g.
struct BlockQ5_K {
  static constexpr int kElements = 256;
  f16 d, dmin;
  std::uint8_t scales[12];
  std::uint8_t high[32];
  std::uint8_t low[128];
};

/// Two halves of 128 elements, each of four runs of 32. In half h, byte i (below 32) of run r:
/// four low bits in the low (r < 2) or high half of byte 64h + 32(r mod 2) + i of `low`, two high
/// bits at bit 2r of byte 32h + i of `high`. Elements 16g to 16g+15 have scale s[g].
struct BlockQ6_K {
  static constexpr int kElements = 256;
  std::uint8_t low[128];
  std::uint8_t high[64];
  std::int8_t scales[16];
  f16 d;
};

static_assert(sizeof(BlockQ8_0) == 34 && sizeof(BlockQ4_0) == 18 && sizeof(BlockQ4_1) == 20);
static_assert(sizeof(BlockQ5_0) == 22 && sizeof(BlockQ5_1) == 24);
static_assert(sizeof(BlockQ4_K) == 144 && sizeof(BlockQ5_K) == 176 && sizeof(BlockQ6_K) == 210);

/// The scale s and minimum m, 0 to 63, of one group of a q4_k or q5_k block.
struct GroupScale {
  int s, m;
};

/// Groups 0 to 3 keep s in the low six bits of byte g, m in those of byte g + 4. Groups 4 to 7 keep
/// the low four bits of s and m in the halves of byte g + 4, and their high two bits in the top of
/// bytes g − 4 (s) and g (m).
inline GroupScale group_scale(const std::uint8_t (&scales)[12], int g) {
  if (g < 4) return {scales[g] & 63, scales[g + 4] & 63};
  return {(scales[g + 4] & 15) | (scales[g - 4] >> 6) << 4, (scales[g + 4] >> 4) | (scales[g] >> 6)
                                                                                       << 4};
}

/// The values of whole blocks of `type`, a block type; `values` has as many elements. No alignment
/// is needed.
void dequantize(DType type, const std::byte* blocks, std::span<float> values);

/// The small integers of one block, in the order of its elements and without sign: what the table
/// above calls q, plus 128 for q8_0. `codes` has room for as many as a block has elements.
void block_codes(DType type, const std::byte* block, std::uint8_t* codes);

/// The blocks that come nearest to `values`, whose number is a multiple of the type's block. The
/// same values always give the same bytes. NaN counts as 0, values beyond float16 as its largest.
void quantize(DType type, std::span<const float> values, std::byte* blocks);

}  // namespace krait
