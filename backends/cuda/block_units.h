// How block-quantised weights lie in the memory of a CUDA device, and what they are worth. Packing
// runs on the host, decoding on both sides, so that tests of it need no GPU.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <type_traits>

#include "runtime/core/blocks.h"
#include <krait/tensor.h>

#if defined(__CUDACC__)
#include <cuda_fp16.h>
#define KRAIT_HOST_DEVICE __host__ __device__
#else
#define KRAIT_HOST_DEVICE
#endif

namespace krait::cuda {

// Blocks of 18, 22, 34 or 210 bytes cannot be loaded in pieces of sixteen. So a row is cut into
// units of 32 weights, one for a lane, whose parts lie in four runs, each padded to 16 bytes:
//
//   low     the low four bits of each weight's integer q (all eight of q8_0)
//   high    the bits above those, where there are any
//   scales  what the weights of a unit share
//   shared  what eight units share (types of 256 elements)
//
// Integers are stored without sign, `bias` too large. Weights stand in words of four bytes, so that
// four are found with one mask: weight 4j+b of a unit has its low bits in byte b of word j mod 4 of
// `low`, in the lower half for j < 4, and its high bits in byte b of a word of `high`, at bit j
// (5-bit integers) or 2 (j mod 4) of word j div 4 (6-bit ones).

constexpr int kUnit = 32;
constexpr int kUnitsPerShared = 8;

/// Bytes of the parts of one unit (`shared`: of eight), and the bias.
struct UnitShape {
  int low, high, scales, shared, bias;
};

constexpr UnitShape unit_shape(DType type) {
  switch (type) {
    case DType::q8_0:
      return {32, 0, 2, 0, 128};
    case DType::q4_0:
      return {16, 0, 2, 0, 8};
    case DType::q4_1:
      return {16, 0, 4, 0, 0};
    case DType::q5_0:
      return {16, 4, 2, 0, 16};
    case DType::q5_1:
      return {16, 4, 4, 0, 0};
    case DType::q4_k:
      return {16, 0, 2, 4, 0};
    case DType::q5_k:
      return {16, 4, 2, 4, 0};
    case DType::q6_k:
      return {16, 8, 2, 2, 32};
    default:
      return {};
  }
}

constexpr std::int64_t pad16(std::int64_t bytes) {
  return (bytes + 15) / 16 * 16;
}

/// Where the runs of a row begin, and the bytes from row to row.
struct UnitRow {
  std::int64_t high, scales, shared, bytes;
};

constexpr UnitRow unit_row(DType type, std::int64_t units) {
  const UnitShape shape = unit_shape(type);
  UnitRow row{};
  row.high = pad16(units * shape.low);
  row.scales = row.high + pad16(units * shape.high);
  row.shared = row.scales + pad16(units * shape.scales);
  row.bytes = row.shared + pad16(units / kUnitsPerShared * shape.shared);
  return row;
}

// ---- decoding ----

KRAIT_HOST_DEVICE inline float half_value(std::uint32_t bits) {
#if defined(__CUDA_ARCH__)
  return __half2float(__ushort_as_half(static_cast<unsigned short>(bits)));
#else
  return krait::to_float(f16{static_cast<std::uint16_t>(bits)});
#endif
}

/// Reads one object of a size that the processor loads at once; its address is a multiple of it.
template <class Type>
KRAIT_HOST_DEVICE inline Type load(const std::byte* from) {
#if defined(__CUDA_ARCH__)
  return __ldg(reinterpret_cast<const Type*>(from));
#else
  Type value;
  std::memcpy(&value, from, sizeof value);
  return value;
#endif
}

/// Sixteen bytes, as four words.
KRAIT_HOST_DEVICE inline void load16(const std::byte* from, std::uint32_t* words) {
#if defined(__CUDA_ARCH__)
  const uint4 four = __ldg(reinterpret_cast<const uint4*>(from));
  words[0] = four.x;
  words[1] = four.y;
  words[2] = four.z;
  words[3] = four.w;
#else
  std::memcpy(words, from, 16);
#endif
}

/// Byte `b` of `bytes`, less `bias`, as a float.
template <int bias>
KRAIT_HOST_DEVICE inline float byte_value(std::uint32_t bytes, int b) {
#if defined(__CUDA_ARCH__)
  // Put into the mantissa of 2²³, a byte makes 2²³ + byte: no conversion instruction, which are
  // slow. The difference is exact.
  return __uint_as_float(__byte_perm(bytes, 0x4b000000u, 0x7440u + static_cast<unsigned>(b))) -
         (8388608.0f + bias);
#else
  return static_cast<float>(static_cast<int>(bytes >> 8 * b & 255u) - bias);
#endif
}

/// The arithmetic of a type: weights 4j to 4j+3 of a unit are factor · q + offset, each an exact
/// product and at most one rounding, as in krait::dequantize.
template <DType type>
struct UnitMath {
  static constexpr UnitShape kShape = unit_shape(type);
  static constexpr bool kMinimum =
      type == DType::q4_1 || type == DType::q5_1 || type == DType::q4_k || type == DType::q5_k;

  /// Which words of `low` and `high` hold the integers of weights 4j to 4j+3.
  KRAIT_HOST_DEVICE static constexpr int low_word(int j) { return kShape.low == 32 ? j : j % 4; }
  KRAIT_HOST_DEVICE static constexpr int high_word(int j) { return kShape.high == 8 ? j / 4 : 0; }

  /// The four integers, a byte each, from those words.
  KRAIT_HOST_DEVICE static std::uint32_t integers(std::uint32_t low, std::uint32_t high, int j) {
    if constexpr (kShape.low == 32) return low;
    std::uint32_t bytes = low >> j / 4 * 4 & 0x0f0f0f0fu;
    if constexpr (kShape.high == 4) bytes |= (high >> j & 0x01010101u) << 4;
    if constexpr (kShape.high == 8) bytes |= (high >> 2 * (j % 4) & 0x03030303u) << 4;
    return bytes;
  }

  struct Line {
    float factor, offset;
  };
  KRAIT_HOST_DEVICE static Line line(std::uint32_t scales, std::uint32_t shared, int j) {
    if constexpr (type == DType::q4_k || type == DType::q5_k) {
      const float d = half_value(shared & 0xffffu), dmin = half_value(shared >> 16);
      return {d * static_cast<float>(scales & 255u), -(dmin * static_cast<float>(scales >> 8))};
    } else if constexpr (type == DType::q6_k) {
      const auto s = static_cast<std::int8_t>(j < 4 ? scales & 255u : scales >> 8);
      return {half_value(shared) * static_cast<float>(s), 0};
    } else {
      return {half_value(scales & 0xffffu), kMinimum ? half_value(scales >> 16) : 0.0f};
    }
  }

  KRAIT_HOST_DEVICE static void weights(std::uint32_t integers, Line at, float (&w)[4]) {
    for (int b = 0; b < 4; ++b) {
      const float q = byte_value<kShape.bias>(integers, b);
      if constexpr (kMinimum)
        w[b] = at.factor * q + at.offset;
      else
        w[b] = at.factor * q;
    }
  }

  KRAIT_HOST_DEVICE static std::uint32_t load_scales(const std::byte* from, const UnitRow& row,
                                                     std::int64_t u) {
    if constexpr (kShape.scales == 4)
      return load<std::uint32_t>(from + row.scales + u * 4);
    else
      return load<std::uint16_t>(from + row.scales + u * 2);
  }
  KRAIT_HOST_DEVICE static std::uint32_t load_shared(const std::byte* from, const UnitRow& row,
                                                     std::int64_t u) {
    if constexpr (kShape.shared == 4)
      return load<std::uint32_t>(from + row.shared + u / kUnitsPerShared * 4);
    else if constexpr (kShape.shared == 2)
      return load<std::uint16_t>(from + row.shared + u / kUnitsPerShared * 2);
    else
      return 0;
  }
};

/// A whole unit in registers, as loaded: for code that has several loads in flight before it
/// decodes. Indices `j` must be known to the compiler.
template <DType type>
struct Unit {
  using Math = UnitMath<type>;
  static constexpr int kHighWords = Math::kShape.high / 4;

  std::uint32_t low[Math::kShape.low / 4];
  std::uint32_t high[kHighWords == 0 ? 1 : kHighWords];
  std::uint32_t scales;
  std::uint32_t shared;

  /// Unit `u` of the row at `from`.
  KRAIT_HOST_DEVICE void load(const std::byte* from, const UnitRow& row, std::int64_t u) {
    load16(from + u * Math::kShape.low, low);
    if constexpr (Math::kShape.low == 32) load16(from + u * 32 + 16, low + 4);
    for (int i = 0; i < kHighWords; ++i) {
      high[i] =
          cuda::load<std::uint32_t>(from + row.high + u * Math::kShape.high + std::int64_t{4} * i);
    }
    scales = Math::load_scales(from, row, u);
    shared = Math::load_shared(from, row, u);
  }

  KRAIT_HOST_DEVICE void weights(int j, float (&w)[4]) const {
    const std::uint32_t above = kHighWords == 0 ? 0 : high[Math::high_word(j)];
    Math::weights(Math::integers(low[Math::low_word(j)], above, j), Math::line(scales, shared, j),
                  w);
  }
};

/// Weights 4j to 4j+3 of unit `u` of the row at `from`, alone: for lanes that share a unit.
template <DType type>
KRAIT_HOST_DEVICE inline void load_weights(const std::byte* from, const UnitRow& row,
                                           std::int64_t u, int j, float (&w)[4]) {
  using Math = UnitMath<type>;
  const auto low = load<std::uint32_t>(from + u * Math::kShape.low + 4 * Math::low_word(j));
  std::uint32_t high = 0;
  if constexpr (Math::kShape.high != 0) {
    high = load<std::uint32_t>(from + row.high + u * Math::kShape.high + 4 * Math::high_word(j));
  }
  Math::weights(Math::integers(low, high, j),
                Math::line(Math::load_scales(from, row, u), Math::load_shared(from, row, u), j), w);
}

// ---- packing ----

/// What a block says of each of its units, before the integers are split into low and high bits.
struct UnitParts {
  std::uint8_t q[kUnit];
  std::uint8_t scales[4];
  std::uint8_t shared[4];
};

inline void parts_of(const BlockQ8_0& block, UnitParts* unit) {
  for (int i = 0; i < 32; ++i) unit->q[i] = static_cast<std::uint8_t>(block.q[i] + 128);
  std::memcpy(unit->scales, &block.d, 2);
}

/// Integers of four bits as q4_0 and its kin have them.
inline void low_parts(const std::uint8_t (&low)[16], UnitParts* unit) {
  for (int i = 0; i < 16; ++i) {
    unit->q[i] = low[i] & 15;
    unit->q[i + 16] = low[i] >> 4;
  }
}
inline void fifth_bits(const std::uint8_t (&high)[4], UnitParts* unit) {
  for (int i = 0; i < 32; ++i) {
    unit->q[i] = static_cast<std::uint8_t>(unit->q[i] | (high[i / 8] >> i % 8 & 1) << 4);
  }
}

inline void parts_of(const BlockQ4_0& block, UnitParts* unit) {
  low_parts(block.low, unit);
  std::memcpy(unit->scales, &block.d, 2);
}
inline void parts_of(const BlockQ4_1& block, UnitParts* unit) {
  low_parts(block.low, unit);
  std::memcpy(unit->scales, &block.d, 2);
  std::memcpy(unit->scales + 2, &block.m, 2);
}
inline void parts_of(const BlockQ5_0& block, UnitParts* unit) {
  low_parts(block.low, unit);
  fifth_bits(block.high, unit);
  std::memcpy(unit->scales, &block.d, 2);
}
inline void parts_of(const BlockQ5_1& block, UnitParts* unit) {
  low_parts(block.low, unit);
  fifth_bits(block.high, unit);
  std::memcpy(unit->scales, &block.d, 2);
  std::memcpy(unit->scales + 2, &block.m, 2);
}

/// What q4_k and q5_k have in common: two groups in the halves of 32 bytes, scales and minima.
template <class Block>
void group_parts(const Block& block, UnitParts* units) {
  for (int g = 0; g < 8; ++g) {
    for (int i = 0; i < 32; ++i) {
      const std::uint8_t byte = block.low[g / 2 * 32 + i];
      units[g].q[i] = g % 2 ? byte >> 4 : byte & 15;
    }
    const auto [s, m] = group_scale(block.scales, g);
    units[g].scales[0] = static_cast<std::uint8_t>(s);
    units[g].scales[1] = static_cast<std::uint8_t>(m);
    std::memcpy(units[g].shared, &block.d, 2);
    std::memcpy(units[g].shared + 2, &block.dmin, 2);
  }
}
inline void parts_of(const BlockQ4_K& block, UnitParts* units) {
  group_parts(block, units);
}
inline void parts_of(const BlockQ5_K& block, UnitParts* units) {
  group_parts(block, units);
  for (int g = 0; g < 8; ++g) {
    for (int i = 0; i < 32; ++i) {
      units[g].q[i] = static_cast<std::uint8_t>(units[g].q[i] | (block.high[i] >> g & 1) << 4);
    }
  }
}
inline void parts_of(const BlockQ6_K& block, UnitParts* units) {
  for (int u = 0; u < 8; ++u) {
    const int half = u / 4, run = u % 4;
    for (int i = 0; i < 32; ++i) {
      const std::uint8_t byte = block.low[64 * half + 32 * (run % 2) + i];
      const int low = run < 2 ? byte & 15 : byte >> 4;
      const int high = block.high[32 * half + i] >> 2 * run & 3;
      units[u].q[i] = static_cast<std::uint8_t>(low | high << 4);
    }
    std::memcpy(units[u].scales, block.scales + 2 * u, 2);
    std::memcpy(units[u].shared, &block.d, 2);
  }
}

/// Writes unit `u` of the row at `to`.
inline void store_unit(const UnitParts& parts, const UnitShape& shape, const UnitRow& row,
                       std::int64_t u, std::byte* to) {
  auto* low = reinterpret_cast<std::uint8_t*>(to + u * shape.low);
  if (shape.low == 32) {
    std::memcpy(low, parts.q, 32);
  } else {
    for (int i = 0; i < 16; ++i)
      low[i] = static_cast<std::uint8_t>((parts.q[i] & 15) | (parts.q[i + 16] & 15) << 4);
  }
  if (shape.high != 0) {
    const int bits = shape.high / 4, groups = 8 / bits;  // groups of four weights in a word
    std::uint8_t high[8] = {};
    for (int i = 0; i < kUnit; ++i) {
      const int j = i / 4, byte = j / groups * 4 + i % 4;
      high[byte] = static_cast<std::uint8_t>(high[byte] | (parts.q[i] >> 4) << bits * (j % groups));
    }
    std::memcpy(to + row.high + u * shape.high, high, static_cast<std::size_t>(shape.high));
  }
  std::memcpy(to + row.scales + u * shape.scales, parts.scales,
              static_cast<std::size_t>(shape.scales));
  if (shape.shared != 0 && u % kUnitsPerShared == 0) {
    std::memcpy(to + row.shared + u / kUnitsPerShared * shape.shared, parts.shared,
                static_cast<std::size_t>(shape.shared));
  }
}

template <class Block>
void pack_rows(const TensorView& stored, std::byte* packed) {
  constexpr int kUnits = Block::kElements / kUnit;
  const std::int64_t units = stored.dim[1] / kUnit;
  const UnitShape shape = unit_shape(stored.dtype);
  const UnitRow row = unit_row(stored.dtype, units);
  const auto* from = stored.as<const std::byte>();
  std::memset(packed, 0, static_cast<std::size_t>(stored.dim[0] * row.bytes));
  for (std::int64_t o = 0; o < stored.dim[0]; ++o, packed += row.bytes) {
    for (std::int64_t u = 0; u < units; u += kUnits, from += sizeof(Block)) {
      Block block;
      std::memcpy(&block, from, sizeof block);
      UnitParts parts[kUnits] = {};
      parts_of(block, parts);
      for (int k = 0; k < kUnits; ++k) store_unit(parts[k], shape, row, u + k, packed);
    }
  }
}

/// Packs a dense matrix of a block type, as stored, into `packed`, which has unit_row().bytes for
/// each of its rows.
inline void pack_units(const TensorView& stored, std::byte* packed) {
  switch (stored.dtype) {
    case DType::q8_0:
      return pack_rows<BlockQ8_0>(stored, packed);
    case DType::q4_0:
      return pack_rows<BlockQ4_0>(stored, packed);
    case DType::q4_1:
      return pack_rows<BlockQ4_1>(stored, packed);
    case DType::q5_0:
      return pack_rows<BlockQ5_0>(stored, packed);
    case DType::q5_1:
      return pack_rows<BlockQ5_1>(stored, packed);
    case DType::q4_k:
      return pack_rows<BlockQ4_K>(stored, packed);
    case DType::q5_k:
      return pack_rows<BlockQ5_K>(stored, packed);
    case DType::q6_k:
      return pack_rows<BlockQ6_K>(stored, packed);
    default:
      return;
  }
}

/// Calls body(std::integral_constant<DType, type>{}) for a block type.
template <class Body>
void with_block_type(DType type, Body&& body) {
  switch (type) {
#define KRAIT_CASE(name) \
  case DType::name:      \
    return body(std::integral_constant<DType, DType::name>{});
    KRAIT_CASE(q8_0)
    KRAIT_CASE(q4_0)
    KRAIT_CASE(q4_1)
    KRAIT_CASE(q5_0)
    KRAIT_CASE(q5_1)
    KRAIT_CASE(q4_k)
    KRAIT_CASE(q5_k)
    KRAIT_CASE(q6_k)
#undef KRAIT_CASE
    default:
      return;
  }
}

}  // namespace krait::cuda
