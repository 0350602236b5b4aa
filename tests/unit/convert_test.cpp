// convert(): values, single rounding, integers, strides.
#include "runtime/core/convert.h"

#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <random>
#include <vector>

#include "runtime/core/half.h"
#include "tests/helpers/expect.h"

namespace krait {
namespace {

using test::is_error;
using test::is_ok;

/// One value converted from one type to another.
template <class To, class From>
To converted(From value, DType from, DType to) {
  To result{};
  const Status status = convert(dense_view(&value, from, {1}), dense_view(&result, to, {1}));
  EXPECT_TRUE(is_ok(status));
  return result;
}

TEST(Convert, SmallIntegersSurviveEveryPairOfTypes) {
  const DType types[] = {DType::f64, DType::f32, DType::f16, DType::bf16,
                         DType::i64, DType::i32, DType::u8};
  for (const DType from : types) {
    for (const DType to : types) {
      std::vector<double> values = {0, 1, 2, 3, 64, 100, 127, 200};
      std::vector<std::byte> a(64), b(64);
      std::vector<double> back(values.size());
      const Shape shape{8};
      ASSERT_TRUE(is_ok(convert(dense_view(values.data(), DType::f64, shape),
                                dense_view(a.data(), from, shape))));
      ASSERT_TRUE(
          is_ok(convert(dense_view(a.data(), from, shape), dense_view(b.data(), to, shape))));
      ASSERT_TRUE(is_ok(
          convert(dense_view(b.data(), to, shape), dense_view(back.data(), DType::f64, shape))));
      EXPECT_EQ(back, values) << name(from) << " to " << name(to);
    }
  }
}

// 1 + 2⁻¹¹ is the middle between two float16 numbers, and would be rounded down to the even one.
// What lies 2⁻⁴⁰ above must go up, although float32 cannot tell it from the middle.
TEST(Convert, DoubleRoundsOnceOnTheWayToSixteenBits) {
  const double above = 1 + 0x1p-11 + 0x1p-40;
  EXPECT_EQ(to_float(converted<f16>(above, DType::f64, DType::f16)), 1 + 0x1p-10f);
  EXPECT_EQ(to_float(converted<f16>(-above, DType::f64, DType::f16)), -1 - 0x1p-10f);
  EXPECT_EQ(to_float(converted<f16>(1 + 0x1p-11, DType::f64, DType::f16)), 1.0f);
  const double below = 1 + 3 * 0x1p-11 - 0x1p-40;  // below the middle with an odd lower neighbour
  EXPECT_EQ(to_float(converted<f16>(below, DType::f64, DType::f16)), 1 + 0x1p-10f);
  EXPECT_EQ(to_float(converted<bf16>(1 + 0x1p-8 + 0x1p-40, DType::f64, DType::bf16)), 1 + 0x1p-7f);
  EXPECT_EQ(to_float(converted<bf16>(1 + 0x1p-8, DType::f64, DType::bf16)), 1.0f);
}

TEST(Convert, RandomDoublesRoundToTheNearestSixteenBitNumber) {
  std::mt19937_64 random(7);
  std::uniform_real_distribution<double> mantissa(1, 2);
  std::uniform_int_distribution<int> exponent(-30, 15);
  for (int i = 0; i < 200000; ++i) {
    const double value = std::ldexp(mantissa(random), exponent(random)) * (i % 2 ? 1 : -1);
    const double f16_unit = std::ldexp(1, std::max(std::ilogb(value), -14) - 10);
    double want = std::nearbyint(value / f16_unit) * f16_unit;
    if (std::fabs(want) > 65504) want = std::copysign(INFINITY, value);
    ASSERT_EQ(to_float(converted<f16>(value, DType::f64, DType::f16)), want) << value;
    const double bf16_unit = std::ldexp(1, std::ilogb(value) - 7);
    ASSERT_EQ(to_float(converted<bf16>(value, DType::f64, DType::bf16)),
              std::nearbyint(value / bf16_unit) * bf16_unit)
        << value;
  }
}

TEST(Convert, WhatIsNotANumberStaysSo) {
  for (const DType to : {DType::f32, DType::f16, DType::bf16}) {
    const auto through = [&](double value) {
      std::uint32_t bits = 0;
      double back = 0;
      EXPECT_TRUE(is_ok(convert(dense_view(&value, DType::f64, {1}), dense_view(&bits, to, {1}))));
      EXPECT_TRUE(is_ok(convert(dense_view(&bits, to, {1}), dense_view(&back, DType::f64, {1}))));
      return back;
    };
    EXPECT_TRUE(std::isnan(through(NAN)));
    EXPECT_EQ(through(INFINITY), INFINITY);
    EXPECT_EQ(through(-INFINITY), -INFINITY);
    EXPECT_EQ(through(1e300), INFINITY);
    EXPECT_EQ(through(-1e300), -INFINITY);
    EXPECT_EQ(through(1e-300), 0);
    EXPECT_TRUE(std::signbit(through(-0.0)));
  }
}

TEST(Convert, IntegersAreCutAndClamped) {
  EXPECT_EQ(converted<std::int32_t>(2.9, DType::f64, DType::i32), 2);
  EXPECT_EQ(converted<std::int32_t>(-2.9, DType::f64, DType::i32), -2);
  EXPECT_EQ(converted<std::int32_t>(1e12, DType::f64, DType::i32),
            std::numeric_limits<std::int32_t>::max());
  EXPECT_EQ(converted<std::int32_t>(-1e12, DType::f64, DType::i32),
            std::numeric_limits<std::int32_t>::min());
  EXPECT_EQ(converted<std::int32_t>(double(NAN), DType::f64, DType::i32), 0);
  EXPECT_EQ(converted<std::int64_t>(1e300, DType::f64, DType::i64),
            std::numeric_limits<std::int64_t>::max());
  EXPECT_EQ(converted<std::int64_t>(-double(INFINITY), DType::f64, DType::i64),
            std::numeric_limits<std::int64_t>::min());
  EXPECT_EQ(converted<std::uint8_t>(-1.0, DType::f64, DType::u8), 0);
  EXPECT_EQ(converted<std::uint8_t>(300.0, DType::f64, DType::u8), 255);
  const std::int64_t id = std::int64_t{1} << 40;
  EXPECT_EQ(converted<std::int32_t>(id, DType::i64, DType::i32),
            std::numeric_limits<std::int32_t>::max());
}

/// [2, 3, 4] with gaps after every row and every plane, to and from the same dense.
TEST(Convert, FollowsStrides) {
  const Shape shape{2, 3, 4};
  std::vector<float> gappy(2 * 20, -1);
  TensorView strided = dense_view(gappy.data(), DType::f32, shape);
  strided.stride = {20, 6, 1};
  std::vector<double> values(24);
  for (std::size_t i = 0; i < values.size(); ++i) values[i] = static_cast<double>(i);
  ASSERT_TRUE(is_ok(convert(dense_view(values.data(), DType::f64, shape), strided)));
  for (std::size_t i = 0; i < gappy.size(); ++i) {
    const std::size_t plane = i / 20, row = i % 20 / 6, column = i % 20 % 6;
    const bool inside = row < 3 && column < 4;
    EXPECT_EQ(gappy[i], inside ? static_cast<float>(plane * 12 + row * 4 + column) : -1.0f) << i;
  }
  std::vector<double> back(24);
  ASSERT_TRUE(is_ok(convert(strided, dense_view(back.data(), DType::f64, shape))));
  EXPECT_EQ(back, values);
  // The same type is copied row by row.
  std::vector<float> dense(24);
  ASSERT_TRUE(is_ok(convert(strided, dense_view(dense.data(), DType::f32, shape))));
  EXPECT_TRUE(std::equal(dense.begin(), dense.end(), values.begin()));
}

TEST(Convert, RepeatsARowOfStrideZero) {
  std::vector<float> row = {1, 2, 3};
  TensorView repeated = dense_view(row.data(), DType::f32, {4, 3});
  repeated.stride[0] = 0;
  std::vector<float> got(12);
  ASSERT_TRUE(is_ok(convert(repeated, dense_view(got.data(), DType::f32, {4, 3}))));
  EXPECT_EQ(got, (std::vector<float>{1, 2, 3, 1, 2, 3, 1, 2, 3, 1, 2, 3}));
}

TEST(Convert, ReadsAndWritesAnyAddress) {
  const double value = 3.25;
  std::byte bytes[17];
  std::memcpy(bytes + 1, &value, sizeof value);
  double back = 0;
  ASSERT_TRUE(is_ok(
      convert(dense_view(bytes, DType::f64, {1}, 1), dense_view(bytes, DType::f32, {1}, 10))));
  ASSERT_TRUE(
      is_ok(convert(dense_view(bytes, DType::f32, {1}, 10), dense_view(&back, DType::f64, {1}))));
  EXPECT_EQ(back, value);
}

TEST(Convert, NothingIsNothing) {
  for (const Shape& shape : {Shape{0}, Shape{0, 4}, Shape{4, 0}, Shape{2, 0, 3}}) {
    EXPECT_TRUE(is_ok(
        convert(dense_view(nullptr, DType::f32, shape), dense_view(nullptr, DType::f16, shape))));
  }
}

TEST(Convert, RefusesOtherExtents) {
  float a[6] = {}, b[6] = {};
  EXPECT_TRUE(
      is_error(convert(dense_view(a, DType::f32, {2, 3}), dense_view(b, DType::f32, {3, 2})),
               Code::internal, "[2, 3] does not fit [3, 2]"));
  EXPECT_TRUE(is_error(convert(dense_view(a, DType::f32, {6}), dense_view(b, DType::f32, {6, 1})),
                       Code::internal, "[6] does not fit [6, 1]"));
}

}  // namespace
}  // namespace krait
