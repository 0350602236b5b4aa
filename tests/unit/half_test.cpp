// float16 and bfloat16 against an independent definition in double arithmetic: every pattern, every
// tie, and floats all over their range.
#include "runtime/core/half.h"

#include <bit>
#include <cmath>
#include <gtest/gtest.h>

namespace krait {
namespace {

/// A binary format: `mantissa` stored bits, exponents from `lowest` (of the smallest normal number)
/// to `highest`.
struct Format {
  int mantissa, lowest, highest;
};
constexpr Format kF16{10, -14, 15};
constexpr Format kBf16{7, -126, 127};

/// What the bits mean.
double decode(const Format& format, unsigned bits) {
  const int width = 15 - format.mantissa;  // of the exponent
  const double sign = bits >> 15 ? -1 : 1;
  const int exponent = static_cast<int>(bits >> format.mantissa & ((1u << width) - 1));
  const double fraction = (bits & ((1u << format.mantissa) - 1)) * std::ldexp(1, -format.mantissa);
  if (exponent == (1 << width) - 1) return fraction != 0 ? NAN : sign * INFINITY;
  if (exponent == 0) return sign * std::ldexp(fraction, format.lowest);
  return sign * std::ldexp(1 + fraction, exponent - 1 + format.lowest);
}

/// The nearest number of the format, ties to even.
double round_to(const Format& format, double value) {
  if (!std::isfinite(value) || value == 0) return value;
  const int exponent = std::max(std::ilogb(value), format.lowest);
  const double unit = std::ldexp(1, exponent - format.mantissa);
  const double rounded = std::nearbyint(value / unit) * unit;
  return std::fabs(rounded) >= std::ldexp(1, format.highest + 1) ? std::copysign(INFINITY, value)
                                                                 : rounded;
}

f16 narrow(const Format&, float value, f16) {
  return to_f16(value);
}
bf16 narrow(const Format&, float value, bf16) {
  return to_bf16(value);
}

template <class Half>
void expect_rounds(const Format& format, float value) {
  const Half half = narrow(format, value, Half{});
  const double want = round_to(format, value);
  ASSERT_EQ(static_cast<double>(to_float(half)), want) << std::hexfloat << value;
  ASSERT_EQ(std::signbit(to_float(half)), std::signbit(value)) << std::hexfloat << value;
}

template <class Half>
void check_every_pattern(const Format& format) {
  for (unsigned bits = 0; bits < 0x10000; ++bits) {
    const Half half{static_cast<std::uint16_t>(bits)};
    const double want = decode(format, bits);
    const float got = to_float(half);
    if (std::isnan(want)) {
      ASSERT_TRUE(std::isnan(got)) << bits;
      ASSERT_TRUE(std::isnan(to_float(narrow(format, got, Half{})))) << bits;
      continue;
    }
    ASSERT_EQ(static_cast<double>(got), want) << bits;
    ASSERT_EQ(std::signbit(got), bits >> 15 == 1) << bits;
    ASSERT_EQ(narrow(format, got, Half{}).bits, bits) << bits;
  }
}

/// Between two neighbours: the middle, and the floats beside it.
template <class Half>
void check_every_tie(const Format& format, unsigned largest) {
  for (unsigned bits = 0; bits < largest; ++bits) {
    const auto middle = static_cast<float>((decode(format, bits) + decode(format, bits + 1)) / 2);
    for (const float value :
         {std::nextafter(middle, -INFINITY), middle, std::nextafter(middle, INFINITY)}) {
      expect_rounds<Half>(format, value);
      expect_rounds<Half>(format, -value);
    }
  }
}

template <class Half>
void check_floats_everywhere(const Format& format) {
  for (std::uint64_t bits = 0; bits < 0x80000000u; bits += 4999) {
    const auto value = std::bit_cast<float>(static_cast<std::uint32_t>(bits));
    if (std::isnan(value)) continue;
    expect_rounds<Half>(format, value);
    expect_rounds<Half>(format, -value);
  }
}

TEST(Half, EveryF16PatternMeansWhatItShould) {
  check_every_pattern<f16>(kF16);
}
TEST(Half, EveryBf16PatternMeansWhatItShould) {
  check_every_pattern<bf16>(kBf16);
}
TEST(Half, F16TiesGoToEven) {
  check_every_tie<f16>(kF16, 0x7bff);
}
TEST(Half, Bf16TiesGoToEven) {
  check_every_tie<bf16>(kBf16, 0x7f7f);
}
TEST(Half, F16RoundsFloatsEverywhere) {
  check_floats_everywhere<f16>(kF16);
}
TEST(Half, Bf16RoundsFloatsEverywhere) {
  check_floats_everywhere<bf16>(kBf16);
}

TEST(Half, OverflowBeginsHalfAUnitAboveTheLargest) {
  EXPECT_EQ(to_float(to_f16(65519.996f)), 65504.0f);
  EXPECT_EQ(to_float(to_f16(65520.0f)), INFINITY);
  EXPECT_EQ(to_float(to_bf16(std::bit_cast<float>(0x7f7f7fffu))),
            std::bit_cast<float>(0x7f7f0000u));
  EXPECT_EQ(to_float(to_bf16(std::bit_cast<float>(0x7f7f8000u))), INFINITY);
}

TEST(Half, NanOfAnyPayloadStaysNan) {
  // Payloads in the low bits only would be cut off and leave an infinity.
  for (const std::uint32_t bits :
       {0x7f800001u, 0x7fc00000u, 0xff800001u, 0x7f807fffu, 0xffffffffu}) {
    const auto nan = std::bit_cast<float>(bits);
    EXPECT_TRUE(std::isnan(to_float(to_f16(nan)))) << bits;
    EXPECT_TRUE(std::isnan(to_float(to_bf16(nan)))) << bits;
  }
}

}  // namespace
}  // namespace krait
