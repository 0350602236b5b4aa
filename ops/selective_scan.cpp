// selective_scan: the recurrence of Mamba-1 (Gu and Dao, "Mamba: Linear-Time Sequence Modeling with
// Selective State Spaces", 2023, algorithm 2), with four discretisations.
#include <cmath>

#include "ops/case.h"
#include "ops/enums.h"
#include "ops/math.h"
#include "ops/op.h"
#include "ops/scan_case.h"
#include "runtime/core/try.h"

namespace krait {
namespace {

struct Step {
  double a;  ///< Ā
  double b;  ///< B̄ / B
};

/// Ā and B̄/B of h' = A h + B u over a step dt.
Step discretise(Discretisation rule, double dt, double A) {
  const double x = dt * A;
  switch (rule) {
    case Discretisation::mamba:
      return {std::exp(x), dt};
    // (e^x − 1)/x → 1 + x/2 + x²/6 where x is tiny and the quotient would be 0/0.
    case Discretisation::zoh:
      return {std::exp(x), (std::fabs(x) < 1e-5 ? 1 + x / 2 + x * x / 6 : std::expm1(x) / x) * dt};
    case Discretisation::euler:
      return {1 + x, dt};
    case Discretisation::bilinear:
      return {(1 + x / 2) / (1 - x / 2), dt / (1 - x / 2)};
  }
  return {0, 0};
}

void reference(const Call64& call) {
  const auto [u, dt, A, B, C, skip, z, dt_bias, state, starts, slot_in, slot_out] = call.in<12>();
  const bool softplus = call.flag("dt_softplus");
  const auto rule = static_cast<Discretisation>(static_cast<int>(call.attr("discretisation")));
  const std::int64_t D = u.dim[1];
  const std::int64_t N = A.dim[1];
  const std::int64_t per_group = D / B.dim[1];
  std::vector<double> h(static_cast<std::size_t>(N));
  for (std::int64_t s = 0; s < slot_in.dim[0]; ++s) {
    const auto from = static_cast<std::int64_t>(slot_in(s));
    const auto to = static_cast<std::int64_t>(slot_out(s));
    for (std::int64_t d = 0; d < D; ++d) {
      const std::int64_t g = d / per_group;
      for (std::int64_t n = 0; n < N; ++n)
        h[static_cast<std::size_t>(n)] = from < 0 ? 0 : state(from, d, n);
      for (auto t = static_cast<std::int64_t>(starts(s));
           t < static_cast<std::int64_t>(starts(s + 1)); ++t) {
        double step = dt(t, d) + (dt_bias ? dt_bias(d) : 0);
        if (softplus) step = softplus64(step);
        double y = 0;
        for (std::int64_t n = 0; n < N; ++n) {
          const auto [a, b] = discretise(rule, step, A(d, n));
          double& state_n = h[static_cast<std::size_t>(n)];
          state_n = a * state_n + b * B(t, g, n) * u(t, d);
          y += C(t, g, n) * state_n;
        }
        if (skip) y += skip(d) * u(t, d);
        if (z) y *= silu64(z(t, d));
        call.outputs[0](t, d) = y;
      }
      for (std::int64_t n = 0; to >= 0 && n < N; ++n)
        state(to, d, n) = h[static_cast<std::size_t>(n)];
    }
  }
}

std::vector<Case> cases() {
  const auto rule = softplus_and_rule;
  const auto soft = rule(Discretisation::mamba);
  const std::vector<std::string_view> bare = {"skip", "z", "dt_bias"};
  const auto dims = [](std::int64_t D, std::int64_t N, std::int64_t G) {
    return std::vector<std::pair<char, std::int64_t>>{{'D', D}, {'N', N}, {'G', G}};
  };
  std::vector<Case> list = {
      {"one", dims(1, 1, 1), {1}, bare},
      {"mamba-130m", dims(1536, 16, 1), {64}, {}, soft},
      {"mamba-130m-step", dims(1536, 16, 1), {1}, {}, soft},
      {"mamba-2.8b-step", dims(5120, 16, 1), {1}, {}, soft},
      {"steps", dims(70, 16, 1), {1, 1, 1, 1, 1}, {}, soft, Slots::shuffled},
      {"bare",
       dims(40, 16, 1),
       {33},
       bare,
       {},
       Slots::in_place,
       Layout::dense,
       {{"dt", Range{0.001, 0.1}}}},
      {"no-skip", dims(40, 16, 1), {9}, {"skip"}, soft},
      {"no-gate", dims(40, 16, 1), {9}, {"z"}, soft},
      {"long", dims(17, 16, 1), {1031}, {}, soft},
      {"ragged", dims(37, 16, 1), {5, 0, 1, 13, 2}, {}, soft, Slots::shuffled},
      {"fork", dims(20, 8, 1), {3, 1, 6}, {}, soft, Slots::fork},
      {"fresh", dims(33, 16, 1), {2, 7}, {}, soft, Slots::fresh},
      {"discard", dims(33, 16, 1), {2, 7}, {}, soft, Slots::discard},
      {"mixed", dims(29, 16, 1), {3, 5, 0, 2, 1, 4, 1}, {}, soft, Slots::mixed},
      {"mixed-steps", dims(83, 16, 1), {1, 1, 1, 1, 1, 1, 1}, {}, soft, Slots::mixed},
      {"prime", dims(101, 13, 1), {17}, {}, soft},
      {"groups", dims(48, 16, 3), {11, 4}, {}, soft},
      {"group-steps", dims(48, 16, 3), {1, 1, 1}, {}, soft, Slots::shuffled},
      {"per-channel", dims(24, 16, 24), {11}, {}, soft},
      {"odd-groups", dims(35, 5, 5), {11}, {}, soft},
      {"state-1", dims(37, 1, 1), {12}, {}, soft},
      {"state-3", dims(37, 3, 1), {12}, {}, soft},
      {"state-2", dims(37, 2, 1), {12}, {}, soft},
      {"state-4", dims(37, 4, 1), {12}, {}, soft},
      {"state-8", dims(37, 8, 1), {12}, {}, soft},
      {"state-17", dims(37, 17, 1), {12}, {}, soft},
      {"state-32", dims(20, 32, 1), {12}, {}, soft},
      {"state-64", dims(20, 64, 2), {12}, {}, soft},
      {"state-128", dims(18, 128, 1), {9}, {}, soft},
      {"state-256", dims(18, 256, 1), {9}, {}, soft},
      {"state-256-step", dims(18, 256, 2), {1}, {}, soft},
      {"state-8-steps", dims(37, 8, 1), {1, 1, 1}, {}, soft, Slots::shuffled},
      {"state-64-steps", dims(20, 64, 2), {1, 1, 1, 1, 1}, {}, soft, Slots::shuffled},
      {"state-128-steps", dims(18, 128, 1), {1, 1}, {}, soft, Slots::shuffled},
      {"zoh", dims(36, 16, 1), {21}, {}, rule(Discretisation::zoh)},
      {"zoh-tiny",
       dims(36, 16, 1),
       {21},
       {},
       rule(Discretisation::zoh),
       Slots::in_place,
       Layout::dense,
       {{"dt", Range{-40, -8}}}},
      {"euler", dims(36, 16, 1), {21}, {}, rule(Discretisation::euler)},
      {"bilinear", dims(36, 16, 1), {21}, {}, rule(Discretisation::bilinear)},
      {"time-invariant", dims(36, 16, 1), {21}, {}, soft, Slots::in_place, Layout::time_invariant},
      {"strided", dims(50, 16, 2), {7, 4}, {}, soft, Slots::in_place, Layout::strided},
      {"misaligned", dims(51, 16, 1), {7, 4}, {}, soft, Slots::in_place, Layout::misaligned},
      {"strided-step", dims(50, 16, 2), {1, 1}, {}, soft, Slots::in_place, Layout::strided},
      {"no-tokens", dims(8, 16, 1), {0, 0}, {}, soft},
      {"no-sequences", dims(8, 16, 1), {}, {}, soft},
      {"dt-tiny",
       dims(34, 16, 1),
       {9},
       {},
       soft,
       Slots::in_place,
       Layout::dense,
       {{"dt", Range{-30, -29}}}},
      {"dt-large",
       dims(34, 16, 1),
       {9},
       {},
       soft,
       Slots::in_place,
       Layout::dense,
       {{"dt", Range{19, 21}}}},
      {"dt-huge",
       dims(34, 16, 1),
       {9},
       {},
       soft,
       Slots::in_place,
       Layout::dense,
       {{"dt", Range{87, 89}}}},
      {.name = "nan",
       .dims = dims(33, 16, 1),
       .lengths = {9},
       .attrs = soft,
       .plant = {{"u", NAN}}},
      {.name = "nan-dt",
       .dims = dims(33, 16, 1),
       .lengths = {9},
       .attrs = soft,
       .plant = {{"dt", NAN}}},
      {.name = "nan-B",
       .dims = dims(33, 16, 1),
       .lengths = {9},
       .attrs = soft,
       .plant = {{"B", NAN}}},
      {.name = "infinite-dt",
       .dims = dims(33, 16, 1),
       .lengths = {9},
       .attrs = soft,
       .plant = {{"dt", INFINITY}}},
      {.name = "dt-minus-infinity",
       .dims = dims(33, 16, 1),
       .lengths = {9},
       .attrs = soft,
       .plant = {{"dt", -INFINITY}}},
      {.name = "nan-state",
       .dims = dims(33, 16, 1),
       .lengths = {9},
       .attrs = soft,
       .plant = {{"state", NAN}}},
      {.name = "infinity",
       .dims = dims(33, 16, 1),
       .lengths = {9},
       .attrs = soft,
       .plant = {{"u", INFINITY}}},
      {.name = "wrong-B",
       .dims = dims(8, 16, 1),
       .lengths = {4},
       .attrs = soft,
       .bad_shape = {"B", {4, 16}},
       .error = "B: expected [4, G, 16], got [4, 16]"},
      {.name = "bad-groups",
       .dims = dims(10, 4, 3),
       .lengths = {2},
       .attrs = soft,
       .error = "G: expected a divisor of D = 10, got 3"},
  };
  return list;
}

}  // namespace

const Op selective_scan_op{
    .name = "selective_scan",
    .summary =
        "h ← Ā h + B̄ u; y = C·h, over each sequence from its state on; skip, gate, dt bias and "
        "softplus",
    .inputs = {{"u", "T D"},
               {"dt", "T D", Role::wide, false, {-4, 1}},
               {"A", "D N", Role::wide, false, {-4, -0.05}},
               {"B", "T G N"},
               {"C", "T G N"},
               {"skip", "D", Role::wide, true},
               {"z", "T D", Role::activation, true, {-4, 4}},
               {"dt_bias", "D", Role::wide, true},
               {"state", "C D N", Role::state},
               {"starts", "S+1", Role::index},
               {"slot_in", "S", Role::index},
               {"slot_out", "S", Role::index}},
    .outputs = {{"y", "T D", Role::activation, "u"}, {"state", "C D N", Role::state, "state"}},
    .attrs = {{"dt_softplus", 0}, {"discretisation", 0, kDiscretisations}},
    .check = [](const Bindings& dims, const Attrs&) -> Status {
      if (dims['G'] < 1 || dims['D'] % dims['G'] != 0) {
        return invalid("G: expected a divisor of D = ", dims['D'], ", got ", dims['G']);
      }
      return {};
    },
    .reference = reference,
    // Per step: dt (softplus 8, bias 1), exp (4), and two roundings of h; the errors of earlier
    // steps decay with the state, so what is alive is a random walk over at most L steps; then N
    // products summed, silu (8).
    .roundings =
        [](const Call& call) {
          const double L = static_cast<double>(call.inputs[0].dim[0]);
          const double N = static_cast<double>(call.inputs[2].dim[1]);
          return 24 + 16 * std::sqrt(std::min(L, 64.0)) + 2 * std::sqrt(N);
        },
    // Per token, channel and state: dt·A, exp, ·h, dt·u·B (two shared), +, ·C, +.
    .cost =
        [](const Call& call) {
          const double rows = static_cast<double>(call.outputs[0].elements());
          const double N = static_cast<double>(call.inputs[2].dim[1]);
          const double special = (call.flag("dt_softplus") ? 2 : 0) + (call.inputs[6] ? 2 : 0);
          return Cost{-1, rows * (6 * N + 6), rows * (N + special)};
        },
    .cases = cases,
};

}  // namespace krait
