// What conformance stands on: operands in memory between sentinels, the measure of errors, the
// oracle on views of any strides and types.
#include "ops/case.h"

#include <cmath>
#include <cstring>
#include <set>
#include <vector>

#include "backends/backend.h"
#include "runtime/core/convert.h"
#include "tests/helpers/expect.h"

namespace krait {
namespace {

using test::is_error;
using test::is_ok;
using test::must;

constexpr double kInfinity = INFINITY;

HostCall make(std::string_view op, const Case& c, const CaseTypes& types = {}) {
  return must(HostCall::make(*find_op(op), c, types));
}

std::vector<double> values(const TensorView& view) {
  std::vector<double> result(static_cast<std::size_t>(view.elements()));
  EXPECT_TRUE(is_ok(convert(view, dense_view(result.data(), DType::f64, shape_of(view)))));
  return result;
}

TEST(Case, EveryCaseMakesACallThatPassesItsChecks) {
  for (const Op* op : all_ops()) {
    if (!op->cases) continue;
    for (const Case& c : op->cases()) {
      SCOPED_TRACE(std::string(op->name) + " " + c.name);
      const Result<HostCall> host = HostCall::make(*op, c, {});
      if (!c.error.empty()) {
        const std::string message = host.ok() ? check(host->call).message() : host.message();
        EXPECT_NE(message.find(c.error), std::string::npos) << message;
        continue;
      }
      ASSERT_TRUE(is_ok(host));
      EXPECT_TRUE(is_ok(check(host->call)));
      EXPECT_TRUE(is_ok(check_indices(host->call)));
      EXPECT_TRUE(is_ok(host->check_sentinels()));
    }
  }
}

TEST(Case, ValuesDependOnNamesAlone) {
  const Case c{"c", {{'D', 37}}, {5}};
  const auto first = values(make("add", c).call.inputs[0]);
  EXPECT_EQ(values(make("add", c).call.inputs[0]), first);
  EXPECT_NE(values(make("add", c).call.inputs[1]), first);
  EXPECT_NE(values(make("mul", c).call.inputs[0]), first);
  const Case other{"d", {{'D', 37}}, {5}};
  EXPECT_NE(values(make("add", other).call.inputs[0]), first);
}

TEST(Case, RangesAndPlantedValues) {
  const Case c{.name = "c",
               .dims = {{'D', 100}},
               .lengths = {10},
               .ranges = {{"x", Range{3, 4}}},
               .plant = {{"x", NAN}}};
  int planted = 0;
  for (const double value : values(make("exp", c).call.inputs[0])) {
    planted += std::isnan(value);
    if (!std::isnan(value)) {
      EXPECT_TRUE(value >= 3 && value <= 4) << value;
    }
  }
  EXPECT_EQ(planted, 1);
}

TEST(Case, LayoutsPlaceTheSameValuesDifferently) {
  Case c{"c", {{'D', 12}, {'N', 4}, {'G', 1}}, {6}};
  const HostCall dense = make("selective_scan", c);
  c.layout = Layout::strided;
  const HostCall strided = make("selective_scan", c);
  c.layout = Layout::misaligned;
  const HostCall misaligned = make("selective_scan", c);
  for (const int operand : {0, 1, 3, 4, 6}) {  // u, dt, B, C, z
    const auto i = static_cast<std::size_t>(operand);
    EXPECT_TRUE(is_dense(dense.call.inputs[i]));
    EXPECT_FALSE(is_dense(strided.call.inputs[i]));
    EXPECT_TRUE(is_dense(misaligned.call.inputs[i]));
    EXPECT_NE(misaligned.call.inputs[i].offset % 64, 0);
    EXPECT_EQ(values(strided.call.inputs[i]), values(dense.call.inputs[i]));
    EXPECT_EQ(values(misaligned.call.inputs[i]), values(dense.call.inputs[i]));
  }
  EXPECT_TRUE(is_dense(strided.call.inputs[2])) << "A is a parameter";
  EXPECT_FALSE(is_dense(strided.call.outputs[0]));

  c.layout = Layout::time_invariant;
  const HostCall constant = make("selective_scan", c);
  EXPECT_EQ(constant.call.inputs[3].stride[0], 0);
  EXPECT_EQ(constant.call.inputs[4].stride[0], 0);
  EXPECT_EQ(constant.call.inputs[0].stride[0], 12);
}

TEST(Case, SlotsAreWhatTheirNamesSay) {
  const auto slots = [](Slots kind, int operand) {
    const Case c{.name = "c", .dims = {{'D', 2}, {'K', 2}}, .lengths = {1, 2, 0, 1}, .slots = kind};
    return values(make("causal_conv1d", c).call.inputs[static_cast<std::size_t>(operand)]);
  };
  const int in = 5, out = 6;
  using List = std::vector<double>;
  EXPECT_EQ(slots(Slots::in_place, in), (List{0, 1, 2, 3}));
  EXPECT_EQ(slots(Slots::in_place, out), (List{0, 1, 2, 3}));
  EXPECT_EQ(slots(Slots::shuffled, in), slots(Slots::shuffled, out));
  const List shuffled = slots(Slots::shuffled, in);
  EXPECT_NE(shuffled, (List{0, 1, 2, 3}));
  EXPECT_EQ(std::set<double>(shuffled.begin(), shuffled.end()).size(), 4u);
  EXPECT_EQ(slots(Slots::fork, in), (List{0, 0, 0, 0}));
  EXPECT_EQ(slots(Slots::fork, out), (List{1, 2, 3, 4}));
  EXPECT_EQ(slots(Slots::fresh, in), (List{-1, -1, -1, -1}));
  EXPECT_EQ(slots(Slots::discard, out), (List{-1, -1, -1, -1}));
  EXPECT_EQ(slots(Slots::mixed, in), (List{0, -1, 4, 4}));
  EXPECT_EQ(slots(Slots::mixed, out), (List{0, 1, 2, -1}));
}

TEST(Case, SentinelsSeeWritesAroundAndBetweenRows) {
  Case c{"c", {{'D', 12}}, {4}};
  c.layout = Layout::strided;
  HostCall host = make("exp", c);
  const TensorView y = host.call.outputs[0];
  const auto poke = [&](std::int64_t element, std::string_view message) {
    std::byte& byte = y.as<std::byte>()[element * 4];
    const std::byte before = byte;
    byte = std::byte{0};
    EXPECT_TRUE(is_error(host.check_sentinels(), Code::internal, message));
    byte = before;
  };
  ASSERT_GT(y.stride[0], 12);
  poke(-1, "[exp] wrote outside y, at byte -4");
  poke(12, "[exp] wrote outside y, at byte 48");
  poke(3 * y.stride[0] + 12, "[exp] wrote outside y");
  y.as<float>()[5] = 1;  // inside
  EXPECT_TRUE(is_ok(host.check_sentinels()));
  host.call.inputs[0].as<std::byte>()[-1] = std::byte{0};
  EXPECT_TRUE(is_error(host.check_sentinels(), Code::internal, "[exp] wrote outside x"));
}

TEST(RelativeError, IsRelativeToTheValueOrToTheScaleOfAll) {
  EXPECT_EQ(relative_error({1, 2}, {1, 2}), 0);
  EXPECT_DOUBLE_EQ(relative_error({10, 0}, {11, 0}), 1.0 / 11);
  // Beside values of size 1, an error in what should be zero counts against that size.
  EXPECT_DOUBLE_EQ(relative_error({1, 1, 0.1}, {1, 1, 0}), 0.1 / std::sqrt(2.0 / 3));
  EXPECT_EQ(relative_error({0}, {0}), 0);
  EXPECT_EQ(relative_error({1e-30}, {0}), kInfinity);
  EXPECT_EQ(relative_error({}, {}), 0);
  EXPECT_EQ(relative_error({1}, {1, 2}), kInfinity);
}

TEST(RelativeError, WhatIsNotFiniteMustBeTheSame) {
  EXPECT_EQ(relative_error({NAN, 1}, {NAN, 1}), 0);
  EXPECT_EQ(relative_error({kInfinity}, {kInfinity}), 0);
  EXPECT_EQ(relative_error({1}, {NAN}), kInfinity);
  EXPECT_EQ(relative_error({NAN}, {1}), kInfinity);
  EXPECT_EQ(relative_error({kInfinity}, {NAN}), kInfinity);
  EXPECT_EQ(relative_error({-kInfinity}, {kInfinity}), kInfinity);
  EXPECT_EQ(relative_error({3e38}, {kInfinity}), kInfinity);
  // They do not spoil the scale of the others.
  EXPECT_DOUBLE_EQ(relative_error({kInfinity, 1, 1.5}, {kInfinity, 1, 1}), 0.5);
}

TEST(Tolerance, IsTheOutputsRoundingPlusWhatTheOpStates) {
  const Case c{"c", {{'I', 100}, {'O', 3}}, {2}};
  const double product = (4 + 4 * 10) * 0x1p-24;
  EXPECT_EQ(tolerance(make("linear", c).call, 0), product + 0x1p-24);
  EXPECT_EQ(tolerance(make("linear", c, {DType::f16, DType::f32}).call, 0), product + 0x1p-11);
  EXPECT_EQ(tolerance(make("linear", c, {DType::bf16, DType::f32}).call, 0), product + 0x1p-8);
  const Case ids{.name = "c", .dims = {{'M', 3}, {'V', 7}}};
  EXPECT_EQ(tolerance(make("argmax", ids).call, 0), 0);
}

/// The oracle reads any layout; results in place of the outputs equal those it returns.
TEST(Reference, IsTheSameOnEveryLayout) {
  Case c{"c", {{'D', 12}, {'N', 4}, {'G', 2}}, {6, 3}};
  const auto want = make("selective_scan", c).reference();
  for (const Layout layout : {Layout::dense, Layout::strided, Layout::misaligned}) {
    c.layout = layout;
    const HostCall host = make("selective_scan", c);
    EXPECT_EQ(host.reference(), want);
    ASSERT_TRUE(is_ok(run_reference(host.call)));
    EXPECT_LE(relative_error(host.output(0), want[0]), 0x1p-24);
    EXPECT_LE(relative_error(host.output(1), want[1]), 0x1p-24);
    EXPECT_TRUE(is_ok(host.check_sentinels()));
  }
}

TEST(Reference, RoundsToTheTypesOfTheOutputs) {
  const Case c{"c", {{'D', 12}}, {6}};
  const HostCall host = make("exp", c, {DType::bf16, DType::f32});
  ASSERT_TRUE(is_ok(run_reference(host.call)));
  const double error = relative_error(host.output(0), host.reference()[0]);
  EXPECT_GT(error, 0x1p-12);
  EXPECT_LE(error, 0x1p-8);
}

}  // namespace
}  // namespace krait
