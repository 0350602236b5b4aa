// Properties of the ops over sequences, on every device: results do not depend on how tokens are
// cut into calls, which other sequences share a call, in which order, or what comes later.
#include <cmath>
#include <limits>

#include "tests/helpers/sequence_call.h"
#include "tests/helpers/variants.h"

namespace krait {
namespace {

using test::Piece;
using test::SequenceCall;
using test::Variant;

struct Subject {
  const char* op;
  Case c;
};

/// One sequence of 29 tokens of each kind; slots 0 to 2.
std::vector<Subject> subjects() {
  const std::vector<std::int64_t> lengths = {29};
  using Dims = std::vector<std::pair<char, std::int64_t>>;
  std::vector<Subject> list;
  for (const std::int64_t taps : {1, 2, 4, 7}) {
    list.push_back({"causal_conv1d", {"taps", Dims{{'D', 67}, {'K', taps}}, lengths}});
  }
  for (const double rule : {0, 1, 2, 3}) {
    list.push_back({"selective_scan",
                    {.name = "rules",
                     .dims = Dims{{'D', 67}, {'N', 16}, {'G', 1}},
                     .lengths = lengths,
                     .attrs = {{"dt_softplus", 1}, {"discretisation", rule}},
                     .ranges = {{"dt", Range{-4, 0}}, {"A", Range{-1, -0.05}}}}});
  }
  for (const Dims& dims : {Dims{{'D', 35}, {'N', 5}, {'G', 5}},
                           {{'D', 24}, {'N', 64}, {'G', 24}},
                           {{'D', 37}, {'N', 1}, {'G', 1}}}) {
    list.push_back(
        {"selective_scan",
         {.name = "shapes", .dims = dims, .lengths = lengths, .attrs = {{"dt_softplus", 1}}}});
  }
  return list;
}

class Sequences : public testing::TestWithParam<Variant> {
 protected:
  Sequences() : forced_(GetParam()), device_(test::device(GetParam().device)) {}

  /// `body` with every subject.
  template <class Body>
  void each(const Body& body) {
    for (const Subject& subject : subjects()) {
      SequenceCall call(subject.op, subject.c);
      SCOPED_TRACE(std::string(subject.op) + " " + to_string(*find_op(subject.op), attrs(subject)));
      body(call);
    }
  }
  /// Equal up to what two computations within the tolerance may differ.
  static void expect_close(const std::vector<double>& got, const std::vector<double>& want,
                           double tolerance) {
    EXPECT_LE(relative_error(got, want), 2 * tolerance);
  }

  test::ForceKernels forced_;
  std::shared_ptr<Device> device_;

 private:
  static Attrs attrs(const Subject& subject) {
    Attrs result = default_attrs(*find_op(subject.op));
    for (const auto& [name, value] : subject.c.attrs) {
      (void)set_attr(*find_op(subject.op), result, name, value);
    }
    return result;
  }
};

INSTANTIATE_TEST_SUITE_P(Variants, Sequences, testing::ValuesIn(test::variants()),
                         [](const auto& info) { return test::test_name(info.param.name()); });

TEST_P(Sequences, ChunkedWholeAndStepwiseAgree) {
  each([&](SequenceCall& call) {
    const std::vector<double> whole = call.run({{0, 29, 0, 0}}, *device_);
    const std::vector<double> state = call.state(0);
    for (const std::int64_t chunk : {1, 2, 3, 5, 16}) {
      call.reset_states();
      std::vector<double> parts;
      for (std::int64_t t = 0; t < 29; t += chunk) {
        const auto part = call.run({{t, std::min<std::int64_t>(t + chunk, 29), 0, 0}}, *device_);
        parts.insert(parts.end(), part.begin(), part.end());
      }
      expect_close(parts, whole, call.tolerance());
      expect_close(call.state(0), state, call.tolerance(1));
    }
  });
}

TEST_P(Sequences, NeighboursAndTheirOrderDoNotMatter) {
  each([&](SequenceCall& call) {
    // Each of three sequences alone; the second from zeros.
    const Piece pieces[] = {{0, 11, 0, 0}, {11, 12, -1, 1}, {12, 29, 2, 2}};
    std::vector<std::vector<double>> alone;
    for (const Piece& piece : pieces) alone.push_back(call.run({piece}, *device_));
    std::vector<std::vector<double>> states;
    states.reserve(3);
    for (int slot = 0; slot < 3; ++slot) states.push_back(call.state(slot));
    for (const std::vector<int>& order :
         {std::vector<int>{0, 1, 2}, {2, 1, 0}, {1, 2, 0}, {2, 0, 1}}) {
      call.reset_states();
      std::vector<Piece> packed;
      std::vector<double> want;
      for (const int i : order) {
        packed.push_back(pieces[i]);
        const auto& part = alone[static_cast<std::size_t>(i)];
        want.insert(want.end(), part.begin(), part.end());
      }
      expect_close(call.run(packed, *device_), want, call.tolerance());
      for (int slot = 0; slot < 3; ++slot) {
        expect_close(call.state(slot), states[static_cast<std::size_t>(slot)], call.tolerance(1));
      }
    }
  });
}

/// Exactly: the arithmetic of a token has no way to see later ones.
TEST_P(Sequences, FutureTokensChangeNoPastOutput) {
  each([&](SequenceCall& call) {
    const std::vector<double> before = call.run({{0, 29, -1, -1}}, *device_);
    const TensorView& x = call.tokens();
    for (std::int64_t t = 13; t < 29; ++t) {
      for (std::int64_t d = 0; d < x.dim[1]; ++d) x.as<float>()[t * x.stride[0] + d] *= -3;
    }
    const std::vector<double> after = call.run({{0, 29, -1, -1}}, *device_);
    const auto past = static_cast<std::ptrdiff_t>(13 * x.dim[1]);
    EXPECT_TRUE(std::equal(before.begin(), before.begin() + past, after.begin()));
    EXPECT_FALSE(std::equal(before.begin() + past, before.end(), after.begin() + past));
  });
}

TEST_P(Sequences, OfNoTokensPassTheirStateOn) {
  each([&](SequenceCall& call) {
    const std::vector<double> before = call.state(0);
    // Kept in place, copied, and made anew beside a sequence that has tokens.
    (void)call.run({{0, 0, 0, 1}, {0, 5, -1, -1}, {5, 5, -1, 2}}, *device_);
    EXPECT_EQ(call.state(0), before);
    EXPECT_EQ(call.state(1), before);
    EXPECT_EQ(call.state(2), std::vector<double>(before.size()));
    (void)call.run({{0, 0, 0, 0}}, *device_);
    EXPECT_EQ(call.state(0), before);
  });
}

TEST_P(Sequences, ASlotThatNobodyWritesKeepsItsState) {
  each([&](SequenceCall& call) {
    const std::vector<double> first = call.state(0), last = call.state(2);
    (void)call.run({{0, 9, 0, -1}, {9, 12, 0, 1}, {12, 29, 0, -1}}, *device_);
    EXPECT_EQ(call.state(0), first);
    EXPECT_EQ(call.state(2), last);
  });
}

}  // namespace
}  // namespace krait
