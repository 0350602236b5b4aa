// How block-quantised weights (runtime/core/blocks.h) lie in panels: for vectors whose lanes are
// output rows, which take four neighbouring inputs of a row in the bytes of its lane.
//
// A panel of kPanel rows is a sequence of units, one per block of a row: all that the rows' blocks
// hold, as little-endian 32-bit lanes [kPanel] unless it says otherwise. A unit:
//
//   d        f16[kPanel]
//   m        f16[kPanel]         only types with a minimum: m, or dmin
//   s        u8[n / 4][kPanel][4]  only types with small scales, n of them: s of groups 4j to 4j+3
//   minima   u8[n / 4][kPanel][4]  only those with a minimum: m of the groups
//   groups   of 32 inputs each
//
// A group holds the codes q, without sign. 8 bits: lane vector j has inputs 4j to 4j+3. Fewer: lane
// vector j has the low four bits of inputs 4j to 4j+3 in the low halves of its bytes, of inputs
// 16+4j to 16+4j+3 in the high halves, j < 4. Then the bits above them: of 5-bit codes one vector,
// where bit j + 4h of byte k belongs to input 16h + 4j + k; of 6-bit codes two vectors, where bits
// 2j and 2j+1 of byte k of vector h do.
#pragma once

#include <cstdint>

#include "backends/cpu/isa.h"

namespace krait::cpu {

/// The value of a code is scale · q + min, where scale = d or d·s, and min = m, −dmin·m of the
/// group, or −offset·scale.
struct BlockFormat {
  int bits;    ///< of a code
  int offset;  ///< of the code for 0; 0 for types with a minimum
  bool has_min = false;
  int inputs = 32;       ///< of a unit
  int small_scales = 0;  ///< of a unit
};

template <DType type>
inline constexpr BlockFormat kFormat = {0, 0};
template <>
inline constexpr BlockFormat kFormat<DType::q8_0> = {8, 128};
template <>
inline constexpr BlockFormat kFormat<DType::q4_0> = {4, 8};
template <>
inline constexpr BlockFormat kFormat<DType::q4_1> = {4, 0, true};
template <>
inline constexpr BlockFormat kFormat<DType::q5_0> = {5, 16};
template <>
inline constexpr BlockFormat kFormat<DType::q5_1> = {5, 0, true};
template <>
inline constexpr BlockFormat kFormat<DType::q4_k> = {4, 0, true, 256, 8};
template <>
inline constexpr BlockFormat kFormat<DType::q5_k> = {5, 0, true, 256, 8};
template <>
inline constexpr BlockFormat kFormat<DType::q6_k> = {6, 32, false, 256, 16};

/// Where the parts of a unit begin, in bytes.
template <DType type>
struct Unit {
  static constexpr BlockFormat kOf = kFormat<type>;
  static constexpr int kGroups = kOf.inputs / 32;
  static constexpr int kVector = 4 * static_cast<int>(kPanel);
  static constexpr int kMin = 2 * static_cast<int>(kPanel);
  static constexpr int kSmall = kOf.has_min ? 2 * kMin : kMin;
  static constexpr int kSmallMin = kSmall + kOf.small_scales * static_cast<int>(kPanel);
  static constexpr int kCodes = kOf.has_min ? 2 * kSmallMin - kSmall : kSmallMin;
  static constexpr int kGroup = kOf.bits * kVector;
  static constexpr int kBytes = kCodes + kGroups * kGroup;
};

}  // namespace krait::cpu
