#include "runtime/core/blocks.h"

#include <cmath>
#include <cstring>
#include <gtest/gtest.h>
#include <limits>
#include <random>
#include <string>
#include <vector>

#include "ops/op.h"
#include "runtime/core/convert.h"
#include "tests/helpers/crc32.h"

namespace krait {
namespace {

constexpr DType kBlockTypes[] = {DType::q8_0, DType::q4_0, DType::q4_1, DType::q5_0,
                                 DType::q5_1, DType::q4_k, DType::q5_k, DType::q6_k};
using Bytes = std::vector<std::byte>;

std::vector<float> unpacked(DType type, const Bytes& blocks) {
  const auto bytes = static_cast<std::int64_t>(blocks.size());
  std::vector<float> values(
      static_cast<std::size_t>(bytes / info(type).block_bytes * info(type).block));
  dequantize(type, blocks.data(), values);
  return values;
}
Bytes packed(DType type, const std::vector<float>& values) {
  Bytes blocks(static_cast<std::size_t>(bytes_of(type, static_cast<std::int64_t>(values.size()))));
  quantize(type, values, blocks.data());
  return blocks;
}

std::vector<float> normal(std::size_t count, float deviation) {
  std::mt19937 random(7);
  std::vector<float> values(count);
  for (float& value : values) {
    // A sum of uniforms: std::normal_distribution differs between libraries.
    float sum = -6;
    for (int i = 0; i < 12; ++i) sum += static_cast<float>(random() >> 8) * 0x1p-24f;
    value = deviation * sum;
  }
  return values;
}

double squared_error(const std::vector<float>& a, const std::vector<float>& b) {
  double sum = 0;
  for (std::size_t i = 0; i < a.size(); ++i) sum += std::pow(double(a[i]) - double(b[i]), 2);
  return sum;
}

TEST(Blocks, TableAgreesWithTheLayouts) {
  for (const DType type : kBlockTypes) {
    EXPECT_TRUE(is_block(type));
    EXPECT_FALSE(info(type).floating);
    EXPECT_EQ(parse_dtype(name(type)), type);
  }
  EXPECT_FALSE(is_block(DType::bf16));
  EXPECT_EQ(info(DType::q8_0).block_bytes, std::int64_t{sizeof(BlockQ8_0)});
  EXPECT_EQ(info(DType::q4_0).block_bytes, std::int64_t{sizeof(BlockQ4_0)});
  EXPECT_EQ(info(DType::q4_1).block_bytes, std::int64_t{sizeof(BlockQ4_1)});
  EXPECT_EQ(info(DType::q5_0).block_bytes, std::int64_t{sizeof(BlockQ5_0)});
  EXPECT_EQ(info(DType::q5_1).block_bytes, std::int64_t{sizeof(BlockQ5_1)});
  EXPECT_EQ(info(DType::q4_k).block_bytes, std::int64_t{sizeof(BlockQ4_K)});
  EXPECT_EQ(info(DType::q5_k).block_bytes, std::int64_t{sizeof(BlockQ5_K)});
  EXPECT_EQ(info(DType::q6_k).block_bytes, std::int64_t{sizeof(BlockQ6_K)});
  EXPECT_EQ(bytes_of(DType::q4_k, 1536), 6 * 144);
}

// Checksums of what the Python package `gguf` (0.17) makes of the same hundred blocks.
TEST(Blocks, DequantisesRandomBlocksLikeTheGgufPackage) {
  const std::pair<DType, std::uint32_t> kChecksums[] = {
      {DType::q8_0, 0xdc15193e}, {DType::q4_0, 0x3f0e2776}, {DType::q4_1, 0x7b46bc72},
      {DType::q5_0, 0x6ca6c03b}, {DType::q5_1, 0xa55ccd70}, {DType::q4_k, 0x8be343cb},
      {DType::q5_k, 0xca2b8e6f}, {DType::q6_k, 0x02009f98}};
  for (const auto& [type, checksum] : kChecksums) {
    const auto size = static_cast<std::size_t>(info(type).block_bytes);
    Bytes blocks(100 * size);
    std::uint64_t state = 1;
    for (std::byte& byte : blocks) {
      state = state * 6364136223846793005u + 1442695040888963407u;
      byte = static_cast<std::byte>(state >> 56);
    }
    const std::size_t d = type == DType::q6_k ? offsetof(BlockQ6_K, d) : 0;
    const bool has_minimum =
        type == DType::q4_1 || type == DType::q5_1 || type == DType::q4_k || type == DType::q5_k;
    for (std::size_t at = 0; at < blocks.size(); at += size) {
      blocks[at + d + 1] &= std::byte{0xbf};  // neither infinity nor NaN
      if (has_minimum) blocks[at + 3] &= std::byte{0xbf};
    }
    const std::vector<float> values = unpacked(type, blocks);
    EXPECT_EQ(test::crc32(std::as_bytes(std::span(values))), checksum) << name(type);
  }
}

TEST(Blocks, RoundsToTheNearestStep) {
  const std::vector<float> values = normal(32 * 500, 0.05f);
  for (const DType type : {DType::q8_0, DType::q4_0, DType::q4_1, DType::q5_0, DType::q5_1}) {
    const std::vector<float> got = unpacked(type, packed(type, values));
    for (std::size_t block = 0; block < values.size(); block += 32) {
      float low = values[block], high = low;
      for (std::size_t i = 0; i < 32; ++i) {
        low = std::min(low, values[block + i]);
        high = std::max(high, values[block + i]);
      }
      const float widest = std::max(-low, high);
      const bool symmetric = type != DType::q4_1 && type != DType::q5_1;
      const float steps = type == DType::q8_0   ? 127.0f
                          : type == DType::q4_0 ? 8.0f
                          : type == DType::q5_0 ? 16.0f
                          : type == DType::q4_1 ? 15.0f
                                                : 31.0f;
      const float step = (symmetric ? widest : high - low) / steps;
      // d and m are rounded to 11 bits. On the short side of a symmetric range, the last code is
      // a whole step away from a value as wide as the widest.
      const float rounding = (std::fabs(low) + std::fabs(high)) * 0x1p-10f;
      const float short_side = type == DType::q4_0 || type == DType::q5_0 ? 1.0f : 0.5f;
      for (std::size_t i = 0; i < 32; ++i) {
        const float x = values[block + i];
        const bool at_end = std::fabs(x) > widest - step;
        ASSERT_LE(std::fabs(got[block + i] - x), step * (at_end ? short_side : 0.5f) + rounding)
            << name(type) << " element " << block + i;
      }
    }
  }
}

TEST(Blocks, KTypesBeatTheSimpleOnesOfTheirSize) {
  const std::vector<float> values = normal(256 * 100, 0.05f);
  const auto error = [&](DType type) {
    return squared_error(values, unpacked(type, packed(type, values)));
  };
  EXPECT_LT(error(DType::q4_k), error(DType::q4_1));
  EXPECT_LT(error(DType::q4_1), error(DType::q4_0));
  EXPECT_LT(error(DType::q5_k), error(DType::q5_1));
  EXPECT_LT(error(DType::q5_1), error(DType::q5_0));
  EXPECT_LT(error(DType::q6_k), error(DType::q5_k));
  EXPECT_LT(error(DType::q8_0), error(DType::q6_k));
}

// What is representable stays as it is: the widest value decides d, and d comes out the same.
TEST(Blocks, RepresentableValuesStay) {
  const std::vector<float> values = normal(32 * 200, 0.05f);
  for (const DType type : {DType::q8_0, DType::q4_0, DType::q5_0}) {
    const Bytes once = packed(type, values);
    EXPECT_EQ(packed(type, unpacked(type, once)), once) << name(type);
  }
}

TEST(Blocks, EveryValueGivesFiniteBlocks) {
  constexpr float kInfinity = std::numeric_limits<float>::infinity();
  constexpr float kNaN = std::numeric_limits<float>::quiet_NaN();
  const std::vector<std::vector<float>> patterns = {{0},
                                                    {3},
                                                    {-3},
                                                    {0, 0, 0, 5},
                                                    {kNaN},
                                                    {kNaN, 1, 2},
                                                    {kInfinity, -1},
                                                    {-kInfinity, kInfinity},
                                                    {1e30f, -1e30f, 1},
                                                    {65504, 1e-3f},
                                                    {1e-45f, 0},
                                                    {1e-38f, -1e-39f},
                                                    {1e-7f, 2e-7f, -1e-7f},
                                                    {-1, -2, -1.5f},
                                                    {1e-20f, 1}};
  for (const DType type : kBlockTypes) {
    for (const std::vector<float>& pattern : patterns) {
      std::vector<float> values(256);
      for (std::size_t i = 0; i < values.size(); ++i) values[i] = pattern[i % pattern.size()];
      const Bytes blocks = packed(type, values);
      EXPECT_EQ(packed(type, values), blocks);
      const std::vector<float> got = unpacked(type, blocks);
      for (std::size_t i = 0; i < got.size(); ++i) {
        ASSERT_TRUE(std::isfinite(got[i])) << name(type) << " " << pattern[0];
        if (pattern.size() == 1 && std::isfinite(pattern[0])) {
          ASSERT_NEAR(got[i], pattern[0], 0.002f * std::fabs(pattern[0])) << name(type);
        }
      }
    }
  }
}

TEST(Blocks, ConvertGoesThroughWholeRows) {
  constexpr std::int64_t kRows = 3, kRow = 512;
  const std::vector<float> values = normal(kRows * kRow, 1);
  std::vector<double> wide(values.begin(), values.end());
  for (const DType type : kBlockTypes) {
    // Rows a block apart, with something between them that must stay.
    const std::int64_t block = info(type).block;
    Bytes stored(static_cast<std::size_t>(bytes_of(type, kRows * (kRow + block))), std::byte{7});
    TensorView view = dense_view(stored.data(), type, {kRows, kRow});
    view.stride[0] = kRow + block;
    ASSERT_TRUE(convert(dense_view(wide.data(), DType::f64, {kRows, kRow}), view).ok());
    const Bytes dense = packed(type, values);
    const auto row_bytes = static_cast<std::size_t>(bytes_of(type, kRow));
    const auto gap_bytes = static_cast<std::size_t>(bytes_of(type, block));
    for (std::size_t row = 0; row < kRows; ++row) {
      const std::byte* begin = stored.data() + row * (row_bytes + gap_bytes);
      EXPECT_EQ(std::memcmp(begin, dense.data() + row * row_bytes, row_bytes), 0) << name(type);
      EXPECT_EQ(begin[row_bytes], std::byte{7});
    }
    const std::vector<float> want = unpacked(type, dense);
    std::vector<double> back(wide.size());
    ASSERT_TRUE(convert(view, dense_view(back.data(), DType::f64, {kRows, kRow})).ok());
    for (std::size_t i = 0; i < back.size(); ++i) ASSERT_EQ(back[i], double(want[i]));
    // The same type: bytes as they are. Another block type: from the values.
    Bytes copy(dense.size());
    ASSERT_TRUE(convert(view, dense_view(copy.data(), type, {kRows, kRow})).ok());
    EXPECT_EQ(copy, dense);
    Bytes other(static_cast<std::size_t>(bytes_of(DType::q8_0, kRows * kRow)));
    ASSERT_TRUE(convert(view, dense_view(other.data(), DType::q8_0, {kRows, kRow})).ok());
    EXPECT_EQ(other, packed(DType::q8_0, want));
  }
}

TEST(Blocks, ConvertRefusesPartsOfBlocks) {
  std::vector<float> values(64);
  Bytes stored(1024);
  const TensorView from = dense_view(values.data(), DType::f32, {2, 31});
  const Status status = convert(from, dense_view(stored.data(), DType::q8_0, {2, 31}));
  EXPECT_EQ(status.code(), Code::invalid_argument);
  EXPECT_NE(status.message().find("whole blocks of 32"), std::string::npos) << status.message();
  TensorView odd = dense_view(stored.data(), DType::q8_0, {2, 32});
  odd.stride[0] = 33;
  EXPECT_FALSE(convert(dense_view(values.data(), DType::f32, {2, 32}), odd).ok());
}

TEST(Blocks, OpsTakeThemAsWeightsOnly) {
  const Type x{DType::f32, {4, 256}}, w{DType::q4_k, {16, 256}}, odd{DType::q4_k, {16, 128}};
  const Type blocks{DType::q8_0, {4, 256}};
  const auto message = [](std::string_view op, std::vector<const Type*> inputs) {
    const Op& found = *find_op(op);
    return infer(found, inputs, default_attrs(found)).message();
  };
  EXPECT_EQ(message("linear", {&x, &w}), "");
  EXPECT_EQ(message("linear", {&x, &odd}),
            "[linear] w: expected rows of whole q4_k blocks, 256 elements each, got [16, 128]");
  EXPECT_EQ(message("linear", {&blocks, &w}),
            "[linear] x: expected a floating-point type, got q8_0");
  EXPECT_EQ(message("silu", {&blocks}), "[silu] x: expected a floating-point type, got q8_0");
  const Type ids{DType::i32, {5}};
  EXPECT_EQ(message("embedding", {&ids, &w}), "");
}

}  // namespace
}  // namespace krait
