// x_proj_scan: a selective scan that projects its dt, B and C from its own inputs: the second half
// of a Mamba block, up to the output projection.
#include <algorithm>
#include <cmath>

#include "ops/case.h"
#include "ops/compose.h"
#include "ops/enums.h"
#include "ops/scan_case.h"
#include "runtime/core/try.h"

namespace krait {
namespace {

/// Columns [from, from + to.dim[1]) of x, or with three dimensions as many as the last two have.
void copy_columns(const Tensor64& x, std::int64_t from, const Tensor64& to) {
  const std::int64_t columns = to.rank == 2 ? to.dim[1] : to.dim[1] * to.dim[2];
  for (std::int64_t t = 0; t < x.dim[0]; ++t)
    std::copy_n(x.row(t) + from, columns, to.data + t * columns);
}

std::vector<Case> cases() {
  const auto rule = softplus_and_rule;
  const auto soft = rule(Discretisation::mamba);
  // P is R + 2 N G.
  const auto dims = [](std::int64_t R, std::int64_t D, std::int64_t N, std::int64_t G = 1) {
    return std::vector<std::pair<char, std::int64_t>>{
        {'R', R}, {'D', D}, {'N', N}, {'P', R + 2 * N * G}};
  };
  return {
      {"one", dims(1, 1, 1), {1}, {}, soft},
      {"mamba-130m-step", dims(48, 1536, 16), {1}, {}, soft},
      {"mamba-370m-step", dims(64, 2048, 16), {1}, {}, soft},
      {"mamba-790m-step", dims(96, 3072, 16), {1}, {}, soft},
      {"mamba-2.8b-step", dims(160, 5120, 16), {1}, {}, soft},
      {"blocks", dims(256, 256, 16), {1}, {}, soft},
      {"small-blocks", dims(32, 96, 16), {1, 1}, {}, soft},
      {"odd", dims(13, 83, 7), {1}, {}, soft},
      {"odd-many-channels", dims(21, 2700, 11), {1}, {}, soft},
      {"wide", dims(224, 700, 16), {1}, {}, soft},
      {"steps", dims(5, 70, 16), {1, 1, 1, 1, 1}, {}, soft, Slots::shuffled},
      {"mixed-steps", dims(8, 83, 16), {1, 1, 1, 1, 1, 1, 1}, {}, soft, Slots::mixed},
      {"fresh-step", dims(16, 160, 16), {1}, {}, soft, Slots::fresh},
      {"discard-step", dims(16, 160, 16), {1}, {}, soft, Slots::discard},
      {"shuffled-step", dims(16, 160, 16), {1}, {}, soft, Slots::shuffled},
      {"bare", dims(16, 40, 16), {1}, {"skip", "z", "dt_bias"}, soft},
      {.name = "groups",
       .dims = dims(24, 48, 16, 3),
       .lengths = {1},
       .attrs = {{"dt_softplus", 1}, {"groups", 3}}},
      {"state-1", dims(8, 37, 1), {1}, {}, soft},
      {"state-8", dims(8, 37, 8), {1}, {}, soft},
      {"state-64", dims(8, 20, 64), {1}, {}, soft},
      {"zoh", dims(8, 36, 16), {1}, {}, rule(Discretisation::zoh)},
      {"euler", dims(8, 36, 16), {1}, {}, rule(Discretisation::euler)},
      {"bilinear", dims(8, 36, 16), {1}, {}, rule(Discretisation::bilinear)},
      {"ragged", dims(8, 37, 16), {5, 0, 1, 13, 2}, {}, soft, Slots::shuffled},
      {.name = "strided",
       .dims = dims(16, 50, 16),
       .lengths = {1},
       .attrs = soft,
       .layout = Layout::strided},
      {.name = "misaligned",
       .dims = dims(16, 51, 16),
       .lengths = {1},
       .attrs = soft,
       .layout = Layout::misaligned},
      {"no-sequences", dims(8, 8, 16), {}, {}, soft},
      {.name = "nan-state",
       .dims = dims(8, 33, 16),
       .lengths = {1},
       .attrs = soft,
       .plant = {{"state", NAN}}},
      {.name = "nan-weight",
       .dims = dims(8, 33, 16),
       .lengths = {1},
       .attrs = soft,
       .plant = {{"x_w", NAN}}},
      {.name = "wrong-columns",
       .dims = dims(8, 16, 4),
       .lengths = {2},
       .attrs = soft,
       .bad_shape = {"x_w", {17, 16}},
       .error = "x_w: expected 16 rows (R + 2 groups N), got 17"},
  };
}

}  // namespace

const Op x_proj_scan_op{
    .name = "x_proj_scan",
    .summary = "dt_proj_scan whose dt_low, B and C are the columns of u x_wᵀ",
    .inputs = {{"u", "T D"},
               {"x_w", "P D", Role::weight, false, {-0.1, 0.1}},
               {"dt_w", "D R", Role::weight},
               {"A", "D N", Role::wide, false, {-4, -0.05}},
               {"skip", "D", Role::wide, true},
               {"z", "T D", Role::activation, true, {-4, 4}},
               {"dt_bias", "D", Role::wide, true},
               {"state", "C D N", Role::state},
               {"starts", "S+1", Role::index},
               {"slot_in", "S", Role::index},
               {"slot_out", "S", Role::index}},
    .outputs = {{"y", "T D", Role::activation, "u"}, {"state", "C D N", Role::state, "state"}},
    .attrs = {{"dt_softplus", 0}, {"discretisation", 0, kDiscretisations}, {"groups", 1}},
    .check = [](const Bindings& dims, const Attrs& attrs) -> Status {
      const auto groups = static_cast<std::int64_t>(attrs[2]);
      if (groups < 1 || dims['D'] % groups != 0)
        return invalid("groups: expected a divisor of D = ", dims['D'], ", got ", groups);
      const std::int64_t rows = dims['R'] + 2 * groups * dims['N'];
      if (dims['P'] != rows)
        return invalid("x_w: expected ", rows, " rows (R + 2 groups N), got ", dims['P']);
      return {};
    },
    .reference =
        [](const Call64& call) {
          const auto [u, x_w, dt_w, A, skip, z, dt_bias, state, starts, slot_in, slot_out] =
              call.in<11>();
          const std::int64_t T = u.dim[0], R = dt_w.dim[1], N = A.dim[1];
          const auto G = static_cast<std::int64_t>(call.attr("groups"));
          Scratch64 columns({T, x_w.dim[0]}), dt_low({T, R}), B({T, G, N}), C({T, G, N});
          run_part(linear_op, {u, x_w}, {columns.tensor});
          copy_columns(columns.tensor, 0, dt_low.tensor);
          copy_columns(columns.tensor, R, B.tensor);
          copy_columns(columns.tensor, R + G * N, C.tensor);
          run_part(dt_proj_scan_op,
                   {u, dt_low.tensor, dt_w, A, B.tensor, C.tensor, skip, z, dt_bias, state, starts,
                    slot_in, slot_out},
                   {call.outputs[0], state},
                   {{"dt_softplus", call.attr("dt_softplus")},
                    {"discretisation", call.attr("discretisation")}});
        },
    // Those of dt_proj_scan; and the error of the columns, which is that of linear (4 + 4 √D): it
    // enters dt, and with it each step twice, as dt_proj_scan's own, and through B and through C
    // once.
    .roundings =
        [](const Call& call) {
          const double L = std::min(static_cast<double>(call.inputs[0].dim[0]), 64.0);
          const auto D = static_cast<double>(call.inputs[1].dim[1]);
          const auto R = static_cast<double>(call.inputs[2].dim[1]);
          const auto N = static_cast<double>(call.inputs[3].dim[1]);
          const double column = 4 + 4 * std::sqrt(D);
          return 24 + std::sqrt(L) * (16 + 2 * (4 + 4 * std::sqrt(R)) + 3 * column) + column +
                 2 * std::sqrt(N);
        },
    .cost =
        [](const Call& call) {
          const auto rows = static_cast<double>(call.outputs[0].elements());
          const auto P = static_cast<double>(call.inputs[1].dim[0]);
          const auto R = static_cast<double>(call.inputs[2].dim[1]);
          const auto N = static_cast<double>(call.inputs[3].dim[1]);
          const double special = (call.flag("dt_softplus") ? 2 : 0) + (call.inputs[5] ? 2 : 0);
          return Cost{-1, rows * (2 * P + 2 * R + 6 * N + 6), rows * (N + special)};
        },
    .cases = cases,
    .fused = true,
};

}  // namespace krait
