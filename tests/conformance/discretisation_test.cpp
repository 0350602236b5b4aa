// The four discretisations of selective_scan against the differential equation they stand for,
// h' = A h + B u, on every device: with u and B constant over an interval,
//   h(t + s) = e^{A s} h(t) + (e^{A s} − 1)/A · B u
// exactly. Cutting every interval in k steps must come closer by the order of the rule.
#include <cmath>
#include <vector>

#include "tests/helpers/sequence_call.h"
#include "tests/helpers/variants.h"

namespace krait {
namespace {

using test::SequenceCall;
using test::Variant;

constexpr std::int64_t kIntervals = 6, kChannels = 19, kStates = 4;
constexpr double kInterval = 0.5;

using Attributes = std::vector<std::pair<std::string_view, double>>;

/// One sequence of `tokens` tokens in slot 0, without skip, gate and bias.
SequenceCall scan(const char* rule, std::int64_t tokens, Attributes attributes = {}) {
  const Op& op = *find_op("selective_scan");
  Attrs attrs = default_attrs(op);
  EXPECT_TRUE(test::is_ok(set_attr(op, attrs, "discretisation", rule)));
  attributes.emplace_back("discretisation", attrs[1]);
  return {"selective_scan",
          {.name = "ode",
           .dims = {{'D', kChannels}, {'N', kStates}, {'G', 1}},
           .lengths = {tokens},
           .omit = {"skip", "z", "dt_bias"},
           .attrs = std::move(attributes),
           .ranges = {{"A", Range{-2, -0.3}}}}};
}

/// Fills a [T, …] operand with rows that stay the same for `steps` tokens.
template <class Value>
void fill(const TensorView& view, std::int64_t steps, const Value& value) {
  const std::int64_t row = view.elements() / view.dim[0];
  for (std::int64_t t = 0; t < view.dim[0]; ++t) {
    for (std::int64_t i = 0; i < row; ++i) {
      view.as<float>()[t * view.stride[0] + i] = static_cast<float>(value(t / steps, i));
    }
  }
}

double u_of(std::int64_t interval, std::int64_t d) {
  return std::sin(1.3 * static_cast<double>(interval) + static_cast<double>(d));
}
double B_of(std::int64_t interval, std::int64_t n) {
  return std::cos(0.7 * static_cast<double>(interval) + 2 * static_cast<double>(n));
}

class ScanRule : public testing::TestWithParam<Variant> {
 protected:
  ScanRule() : forced_(GetParam()), device_(test::device(GetParam().device)) {}

  /// The error of the state at the end, relative to its size, with every interval in `steps` steps.
  double error(const char* rule, std::int64_t steps) {
    SequenceCall call = scan(rule, kIntervals * steps);
    fill(call.input("u"), steps, u_of);
    fill(call.input("B"), steps, B_of);
    fill(call.input("dt"), steps,
         [&](std::int64_t, std::int64_t) { return kInterval / static_cast<double>(steps); });
    std::vector<double> exact = call.state(0);
    const float* A = call.input("A").as<float>();
    for (std::size_t i = 0; i < exact.size(); ++i) {
      const auto d = static_cast<std::int64_t>(i) / kStates;
      const auto n = static_cast<std::int64_t>(i) % kStates;
      const auto a = static_cast<double>(A[i]);
      for (std::int64_t interval = 0; interval < kIntervals; ++interval) {
        // What the kernels are given is float32.
        const auto u = static_cast<double>(static_cast<float>(u_of(interval, d)));
        const auto B = static_cast<double>(static_cast<float>(B_of(interval, n)));
        exact[i] = std::exp(a * kInterval) * exact[i] + std::expm1(a * kInterval) / a * B * u;
      }
    }
    (void)call.run({{0, kIntervals * steps, 0, 0}}, *device_);
    return test::rel_l2(call.state(0), exact);
  }
  double order(const char* rule) { return std::log2(error(rule, 8) / error(rule, 16)); }

  test::ForceKernels forced_;
  std::shared_ptr<Device> device_;
};

INSTANTIATE_TEST_SUITE_P(Variants, ScanRule, testing::ValuesIn(test::variants()),
                         [](const auto& info) { return test::test_name(info.param.name()); });

/// A zero-order hold is the solution itself: as exact as float32, however long the steps.
TEST_P(ScanRule, ZohIsExact) {
  for (const std::int64_t steps : {1, 2, 8, 64}) {
    EXPECT_LE(error("zoh", steps), scan("zoh", kIntervals * steps).tolerance(1)) << steps;
  }
}
TEST_P(ScanRule, MambaIsOfFirstOrder) {
  EXPECT_NEAR(order("mamba"), 1, 0.1);
}
TEST_P(ScanRule, EulerIsOfFirstOrder) {
  EXPECT_NEAR(order("euler"), 1, 0.1);
}
TEST_P(ScanRule, BilinearIsOfSecondOrder) {
  EXPECT_NEAR(order("bilinear"), 2, 0.1);
}

/// Without input, Ā alone acts; mamba and zoh have the exact one.
TEST_P(ScanRule, StatesDecayAsTheyShould) {
  for (const char* rule : {"mamba", "zoh"}) {
    SequenceCall call = scan(rule, 40);
    fill(call.input("u"), 1, [](std::int64_t, std::int64_t) { return 0.0; });
    fill(call.input("dt"), 1, [](std::int64_t, std::int64_t) { return 0.125; });
    std::vector<double> want = call.state(0);
    for (std::size_t i = 0; i < want.size(); ++i) {
      want[i] *= std::exp(40 * 0.125 * static_cast<double>(call.input("A").as<float>()[i]));
    }
    (void)call.run({{0, 40, 0, 0}}, *device_);
    EXPECT_LE(test::rel_l2(call.state(0), want), 2e-6) << rule;
  }
}

/// No time passes: every rule has Ā = 1 and B̄ = 0, bit for bit.
TEST_P(ScanRule, WithoutTimeTheStateStays) {
  for (const char* rule : {"mamba", "zoh", "euler", "bilinear"}) {
    SequenceCall call = scan(rule, 21);
    fill(call.input("dt"), 1, [](std::int64_t, std::int64_t) { return 0.0; });
    const std::vector<double> before = call.state(0);
    (void)call.run({{0, 21, 0, 0}}, *device_);
    EXPECT_EQ(call.state(0), before) << rule;
    (void)call.run({{0, 1, 0, 0}}, *device_);
    EXPECT_EQ(call.state(0), before) << rule << ", one step";
  }
}

/// softplus(−30) = 9e-14: less than float32 can add to a state of ordinary size.
TEST_P(ScanRule, AsTimeVanishesTheStateStays) {
  for (const char* rule : {"mamba", "zoh", "euler", "bilinear"}) {
    SequenceCall call = scan(rule, 21, {{"dt_softplus", 1}});
    fill(call.input("dt"), 1, [](std::int64_t, std::int64_t) { return -30.0; });
    const std::vector<double> before = call.state(0);
    (void)call.run({{0, 21, 0, 0}}, *device_);
    const std::vector<double> after = call.state(0);
    for (std::size_t i = 0; i < after.size(); ++i) EXPECT_NEAR(after[i], before[i], 1e-11) << rule;
  }
}

}  // namespace
}  // namespace krait
