// The layout and the decoding of block-quantised weights on CUDA, whose device code runs here too.
#include <bit>
#include <cmath>
#include <gtest/gtest.h>
#include <random>
#include <vector>

#include "backends/cuda/block_units.h"

namespace krait::cuda {
namespace {

constexpr DType kBlockTypes[] = {DType::q8_0, DType::q4_0, DType::q4_1, DType::q5_0,
                                 DType::q5_1, DType::q4_k, DType::q5_k, DType::q6_k};

/// Blocks of random bytes: every integer, scale and minimum, NaN and infinite ones too.
std::vector<std::byte> random_blocks(DType type, std::int64_t elements) {
  std::mt19937 random(static_cast<unsigned>(type) + 5);
  std::vector<std::byte> bytes(static_cast<std::size_t>(bytes_of(type, elements)));
  for (std::byte& byte : bytes) byte = static_cast<std::byte>(random());
  return bytes;
}

/// All weights, unit by unit or four by four.
template <DType type>
std::vector<float> decoded(const std::vector<std::byte>& packed, std::int64_t rows,
                           std::int64_t units, bool by_four) {
  const UnitRow row = unit_row(type, units);
  std::vector<float> values;
  for (std::int64_t o = 0; o < rows; ++o) {
    const std::byte* from = packed.data() + o * row.bytes;
    for (std::int64_t u = 0; u < units; ++u) {
      Unit<type> unit;
      unit.load(from, row, u);
      for (int j = 0; j < 8; ++j) {
        float w[4];
        by_four ? load_weights<type>(from, row, u, j, w) : unit.weights(j, w);
        values.insert(values.end(), w, w + 4);
      }
    }
  }
  return values;
}

void expect_same_bits(const std::vector<float>& got, const std::vector<float>& want) {
  ASSERT_EQ(got.size(), want.size());
  for (std::size_t i = 0; i < want.size(); ++i) {
    if (std::isnan(want[i])) {
      ASSERT_TRUE(std::isnan(got[i])) << "element " << i;
    } else {
      ASSERT_EQ(std::bit_cast<std::uint32_t>(got[i]), std::bit_cast<std::uint32_t>(want[i]))
          << "element " << i << ": " << got[i] << " for " << want[i];
    }
  }
}

TEST(CudaBlockUnits, DecodeToTheBitsOfDequantize) {
  for (const DType type : kBlockTypes) {
    const std::int64_t rows = 3;
    for (const std::int64_t inputs : {info(type).block, 3 * info(type).block, std::int64_t{2560}}) {
      SCOPED_TRACE(std::string(name(type)) + ", " + std::to_string(inputs) + " inputs");
      std::vector<std::byte> blocks = random_blocks(type, rows * inputs);
      std::vector<float> want(static_cast<std::size_t>(rows * inputs));
      dequantize(type, blocks.data(), want);

      const std::int64_t units = inputs / kUnit, bytes = rows * unit_row(type, units).bytes;
      std::vector<std::byte> packed(static_cast<std::size_t>(bytes), std::byte{0xee});
      pack_units(dense_view(blocks.data(), type, {rows, inputs}), packed.data());
      for (const bool by_four : {false, true}) {
        std::vector<float> got;
        with_block_type(type,
                        [&](auto t) { got = decoded<t.value>(packed, rows, units, by_four); });
        expect_same_bits(got, want);
      }
    }
  }
}

TEST(CudaBlockUnits, RunsAreAlignedAndHardlyLargerThanTheBlocks) {
  for (const DType type : kBlockTypes) {
    SCOPED_TRACE(name(type));
    const UnitRow row = unit_row(type, 2560 / kUnit);
    for (const std::int64_t offset : {row.high, row.scales, row.shared, row.bytes})
      EXPECT_EQ(offset % 16, 0);
    EXPECT_LE(static_cast<double>(row.bytes), 1.04 * static_cast<double>(bytes_of(type, 2560)));
    EXPECT_GE(row.bytes, bytes_of(type, 2560));
  }
}

}  // namespace
}  // namespace krait::cuda
