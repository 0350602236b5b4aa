#include "backends/cpu/panels.h"

#include <algorithm>
#include <cstring>

#include "backends/cpu/block_panels.h"
#include "runtime/core/blocks.h"

namespace krait::cpu {
namespace {

/// Of f32 and f16: elements of a row kPanel apart.
template <class Element>
void pack_elements(const TensorView& stored, std::byte* packed) {
  const std::int64_t outputs = stored.dim[0], inputs = stored.dim[1], row = stored.stride[0];
  auto* panel = reinterpret_cast<Element*>(packed);
  for (std::int64_t o0 = 0; o0 < outputs; o0 += kPanel, panel += inputs * kPanel) {
    const Element* rows = stored.as<const Element>() + o0 * row;
    const std::int64_t count = std::min(kPanel, outputs - o0);
    if (count < kPanel) std::fill_n(panel, inputs * kPanel, Element{});
    for (std::int64_t i = 0; i < inputs; ++i) {
      for (std::int64_t o = 0; o < count; ++o) panel[i * kPanel + o] = rows[o * row + i];
    }
  }
}

/// Of bf16: pairs of elements kPanel pairs apart.
void pack_pairs(const TensorView& stored, std::byte* packed) {
  const std::int64_t outputs = stored.dim[0], inputs = stored.dim[1], row = stored.stride[0];
  auto* panel = reinterpret_cast<std::uint16_t*>(packed);
  const std::int64_t padded = (inputs + 1) / 2 * 2;
  for (std::int64_t o0 = 0; o0 < outputs; o0 += kPanel, panel += padded * kPanel) {
    const auto* rows = stored.as<const std::uint16_t>() + o0 * row;
    const std::int64_t count = std::min(kPanel, outputs - o0);
    if (count < kPanel || padded > inputs) std::fill_n(panel, padded * kPanel, std::uint16_t{0});
    for (std::int64_t i = 0; i < inputs; ++i) {
      std::uint16_t* pairs = panel + i / 2 * 2 * kPanel + i % 2;
      for (std::int64_t o = 0; o < count; ++o) pairs[2 * o] = rows[o * row + i];
    }
  }
}

/// Puts the codes of a group's 32 inputs into row r of the group; see block_panels.h.
template <int bits>
void put_codes(const std::uint8_t* codes, std::int64_t r, std::uint8_t* group) {
  constexpr int kVector = 4 * static_cast<int>(kPanel);
  std::uint8_t* row = group + 4 * r;
  for (int i = 0; i < 32; ++i) {
    const int h = i / 16, j = i % 16 / 4, k = i % 4, q = codes[i];
    const auto put = [&](int vector, int value) {
      std::uint8_t& byte = row[vector * kVector + k];
      byte = static_cast<std::uint8_t>(byte | value);
    };
    if constexpr (bits == 8) {
      put(4 * h + j, q);
    } else {
      put(j, (q & 15) << 4 * h);
      if (bits == 5) put(4, q >> 4 << (j + 4 * h));
      if (bits == 6) put(4 + h, q >> 4 << 2 * j);
    }
  }
}

template <DType type, class Block>
void pack_blocks(const TensorView& stored, std::byte* packed) {
  using U = Unit<type>;
  const std::int64_t outputs = stored.dim[0], units = stored.dim[1] / Block::kElements;
  const std::int64_t row = bytes_of(type, stored.stride[0]);
  const std::int64_t panels = blocks_of(outputs, kPanel);
  std::memset(packed, 0, static_cast<std::size_t>(panels * units * U::kBytes));
  for (std::int64_t o = 0; o < outputs; ++o) {
    const std::byte* blocks = stored.as<const std::byte>() + o * row;
    const std::int64_t r = o % kPanel;
    std::byte* unit = packed + o / kPanel * units * U::kBytes;
    for (std::int64_t u = 0; u < units; ++u, blocks += sizeof(Block), unit += U::kBytes) {
      Block block;
      std::memcpy(&block, blocks, sizeof block);
      const auto put = [&](int at, std::int64_t index, auto value) {
        const auto size = static_cast<std::int64_t>(sizeof value);
        std::memcpy(unit + at + index * size, &value, sizeof value);
      };
      put(0, r, block.d);
      if constexpr (requires { block.m; }) put(U::kMin, r, block.m);
      if constexpr (requires { block.dmin; }) {
        put(U::kMin, r, block.dmin);
        for (int g = 0; g < 8; ++g) {
          const auto [s, m] = group_scale(block.scales, g);
          const std::int64_t at = (g / 4 * kPanel + r) * 4 + g % 4;
          put(U::kSmall, at, static_cast<std::uint8_t>(s));
          put(U::kSmallMin, at, static_cast<std::uint8_t>(m));
        }
      } else if constexpr (requires { block.scales; }) {
        for (int g = 0; g < 16; ++g) {
          put(U::kSmall, (g / 4 * kPanel + r) * 4 + g % 4, block.scales[g]);
        }
      }
      std::uint8_t codes[Block::kElements];
      block_codes(type, blocks, codes);
      for (int g = 0; g < U::kGroups; ++g) {
        auto* group = reinterpret_cast<std::uint8_t*>(unit + U::kCodes + g * U::kGroup);
        put_codes<U::kOf.bits>(codes + 32 * g, r, group);
      }
    }
  }
}

void pack(const TensorView& stored, std::byte* packed) {
  switch (stored.dtype) {
    case DType::f16:
      return pack_elements<std::uint16_t>(stored, packed);
    case DType::bf16:
      return pack_pairs(stored, packed);
    case DType::q8_0:
      return pack_blocks<DType::q8_0, BlockQ8_0>(stored, packed);
    case DType::q4_0:
      return pack_blocks<DType::q4_0, BlockQ4_0>(stored, packed);
    case DType::q4_1:
      return pack_blocks<DType::q4_1, BlockQ4_1>(stored, packed);
    case DType::q5_0:
      return pack_blocks<DType::q5_0, BlockQ5_0>(stored, packed);
    case DType::q5_1:
      return pack_blocks<DType::q5_1, BlockQ5_1>(stored, packed);
    case DType::q4_k:
      return pack_blocks<DType::q4_k, BlockQ4_K>(stored, packed);
    case DType::q5_k:
      return pack_blocks<DType::q5_k, BlockQ5_K>(stored, packed);
    case DType::q6_k:
      return pack_blocks<DType::q6_k, BlockQ6_K>(stored, packed);
    default:
      return pack_elements<std::uint32_t>(stored, packed);
  }
}

void pack_part(const TensorView& stored, std::int64_t first, std::int64_t count,
               std::byte* packed) {
  TensorView rows = stored;
  rows.offset += bytes_of(stored.dtype, first * stored.stride[0]);
  rows.dim[0] = count;
  pack(rows, packed + first / kPanel * panel_bytes(stored.dtype, stored.dim[1]));
}

/// As many elements of the stored type as the panels have bytes: units may be a little larger than
/// the blocks in them.
TensorView view(const TensorView& stored) {
  const std::int64_t bytes =
      blocks_of(stored.dim[0], kPanel) * panel_bytes(stored.dtype, stored.dim[1]);
  const DTypeInfo& type = info(stored.dtype);
  return dense_view(nullptr, stored.dtype, {blocks_of(bytes, type.block_bytes) * type.block});
}

const WeightLayout kPanels{
    .name = "panels",
    .bytes =
        [](const TensorView& stored) {
          const TensorView packed = view(stored);
          return bytes_of(packed.dtype, packed.elements());
        },
    .view = view,
    .pack = pack,
    .part_rows = kPanel,
    .pack_part = pack_part,
};

}  // namespace

const WeightLayout* panel_layout() {
  return &kPanels;
}

LinearArgs linear_args(const Call& call) {
  const auto [x, w, bias] = call.in<3>();
  LinearArgs args;
  args.x = rows_of(x);
  args.w = w.as<const std::byte>();
  args.weight = w.dtype;
  args.bias = vector_of(bias);
  args.y = rows_out(call.outputs[0]);
  args.inputs = x.dim[1];
  args.outputs = call.outputs[0].dim[1];
  args.panel_bytes = panel_bytes(w.dtype, args.inputs);
  return args;
}

std::int64_t panel_bytes(DType type, std::int64_t inputs) {
  switch (type) {
    case DType::bf16:
      return bytes_of(type, (inputs + 1) / 2 * 2 * kPanel);
#define KRAIT_UNITS(type) \
  case DType::type:       \
    return inputs / kFormat<DType::type>.inputs * Unit<DType::type>::kBytes;
      KRAIT_UNITS(q8_0)
      KRAIT_UNITS(q4_0)
      KRAIT_UNITS(q4_1)
      KRAIT_UNITS(q5_0)
      KRAIT_UNITS(q5_1)
      KRAIT_UNITS(q4_k)
      KRAIT_UNITS(q5_k)
      KRAIT_UNITS(q6_k)
#undef KRAIT_UNITS
    default:
      return bytes_of(type, inputs * kPanel);
  }
}

}  // namespace krait::cpu
