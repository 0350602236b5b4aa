// dt_proj_scan: the projection of dt from its low rank and the scan that it drives.
#include <algorithm>
#include <cmath>

#include "ops/case.h"
#include "ops/compose.h"
#include "ops/enums.h"
#include "ops/scan_case.h"
#include "runtime/core/try.h"

namespace krait {
namespace {

std::vector<Case> cases() {
  const auto rule = softplus_and_rule;
  const auto soft = rule(Discretisation::mamba);
  const auto dims = [](std::int64_t R, std::int64_t D, std::int64_t N, std::int64_t G) {
    return std::vector<std::pair<char, std::int64_t>>{{'R', R}, {'D', D}, {'N', N}, {'G', G}};
  };
  return {
      {"one", dims(1, 1, 1, 1), {1}, {}, soft},
      {"mamba-130m-step", dims(48, 1536, 16, 1), {1}, {}, soft},
      {"mamba-2.8b-step", dims(160, 5120, 16, 1), {1}, {}, soft},
      {"blocks", dims(256, 37, 16, 1), {1, 1}, {}, soft},
      // Half of a pack of dt_w is behind a row's end, and there dt_low has a NaN of the next token:
      // by this name it falls among the first four of one.
      {.name = "half-pack-nan",
       .dims = dims(12, 36, 16, 1),
       .lengths = {1, 1, 1, 1, 1, 1},
       .attrs = soft,
       .plant = {{"dt_low", NAN}}},
      {"small-blocks", dims(32, 37, 16, 1), {1, 1}, {}, soft},
      {"steps", dims(5, 70, 16, 1), {1, 1, 1, 1, 1}, {}, soft, Slots::shuffled},
      {"mixed-steps", dims(8, 83, 16, 1), {1, 1, 1, 1, 1, 1, 1}, {}, soft, Slots::mixed},
      {"mamba-2.8b-batch",
       dims(160, 328, 16, 1),
       std::vector<std::int64_t>(8, 1),
       {},
       soft,
       Slots::shuffled},
      {"many-channels",
       dims(168, 4100, 16, 1),
       std::vector<std::int64_t>(9, 1),
       {},
       soft,
       Slots::mixed},
      {"odd-batch", dims(13, 51, 16, 1), std::vector<std::int64_t>(11, 1), {}, soft, Slots::mixed},
      {"batch-groups",
       dims(40, 96, 16, 3),
       std::vector<std::int64_t>(33, 1),
       {},
       soft,
       Slots::mixed},
      {"large-batch", dims(100, 50, 16, 1), std::vector<std::int64_t>(64, 1), {}, soft},
      {.name = "nan-batch",
       .dims = dims(8, 40, 16, 1),
       .lengths = std::vector<std::int64_t>(20, 1),
       .attrs = soft,
       .plant = {{"state", NAN}}},
      {"long-rank", dims(200, 72, 16, 3), std::vector<std::int64_t>(6, 1), {}, soft, Slots::mixed},
      {"bare", dims(16, 40, 16, 1), {1}, {"skip", "z", "dt_bias"}, soft},
      {"group-steps", dims(24, 48, 16, 3), {1, 1, 1}, {}, soft, Slots::shuffled},
      {"state-1", dims(8, 37, 1, 1), {1}, {}, soft},
      {"state-8", dims(8, 37, 8, 1), {1}, {}, soft},
      {"state-13", dims(8, 37, 13, 1), {1}, {}, soft},
      {"state-64", dims(8, 20, 64, 1), {1}, {}, soft},
      {"zoh", dims(8, 36, 16, 1), {1, 1}, {}, rule(Discretisation::zoh)},
      {"euler", dims(8, 36, 16, 1), {1, 1}, {}, rule(Discretisation::euler)},
      {"bilinear", dims(8, 36, 16, 1), {1, 1}, {}, rule(Discretisation::bilinear)},
      {"ragged", dims(8, 37, 16, 1), {5, 0, 1, 13, 2}, {}, soft, Slots::shuffled},
      {.name = "strided",
       .dims = dims(16, 50, 16, 2),
       .lengths = {1, 1},
       .attrs = soft,
       .layout = Layout::strided},
      {.name = "misaligned",
       .dims = dims(16, 51, 16, 1),
       .lengths = {1, 1},
       .attrs = soft,
       .layout = Layout::misaligned},
      {"no-sequences", dims(8, 8, 16, 1), {}, {}, soft},
      {.name = "nan-state",
       .dims = dims(8, 33, 16, 1),
       .lengths = {1},
       .attrs = soft,
       .plant = {{"state", NAN}}},
      {.name = "wrong-rank",
       .dims = dims(8, 16, 4, 1),
       .lengths = {2},
       .attrs = soft,
       .bad_shape = {"dt_w", {16, 9}},
       .error = "dt_w: expected [16, 8], got [16, 9]"},
  };
}

}  // namespace

const Op dt_proj_scan_op{
    .name = "dt_proj_scan",
    .summary = "selective_scan whose dt is dt_low dt_wᵀ",
    .inputs = {{"u", "T D"},
               {"dt_low", "T R"},
               {"dt_w", "D R", Role::weight},
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
    .reference =
        [](const Call64& call) {
          const auto [u, dt_low, dt_w, A, B, C, skip, z, dt_bias, state, starts, slot_in,
                      slot_out] = call.in<13>();
          Scratch64 dt({u.dim[0], u.dim[1]});
          run_part(linear_op, {dt_low, dt_w}, {dt.tensor});
          run_part(selective_scan_op,
                   {u, dt.tensor, A, B, C, skip, z, dt_bias, state, starts, slot_in, slot_out},
                   {call.outputs[0], state},
                   {{"dt_softplus", call.attr("dt_softplus")},
                    {"discretisation", call.attr("discretisation")}});
        },
    // Those of selective_scan (24 + 16 √L + 2 √N with L of at most 64 steps), and the error of dt,
    // which is that of linear (4 + 4 √R). It enters a step twice: B̄ is proportional to dt, and
    // Ā = exp(dt·A) changes by |dt·A|·exp(dt·A) ≤ 1/e of it; over the steps that are alive it is a
    // random walk like the others.
    .roundings =
        [](const Call& call) {
          const double L = std::min(static_cast<double>(call.inputs[0].dim[0]), 64.0);
          const auto R = static_cast<double>(call.inputs[2].dim[1]);
          const auto N = static_cast<double>(call.inputs[3].dim[1]);
          return 24 + std::sqrt(L) * (16 + 2 * (4 + 4 * std::sqrt(R))) + 2 * std::sqrt(N);
        },
    .cost =
        [](const Call& call) {
          const auto rows = static_cast<double>(call.outputs[0].elements());
          const auto R = static_cast<double>(call.inputs[2].dim[1]);
          const auto N = static_cast<double>(call.inputs[3].dim[1]);
          const double special = (call.flag("dt_softplus") ? 2 : 0) + (call.inputs[7] ? 2 : 0);
          return Cost{-1, rows * (2 * R + 6 * N + 6), rows * (N + special)};
        },
    .cases = cases,
    .fused = true,
};

}  // namespace krait
