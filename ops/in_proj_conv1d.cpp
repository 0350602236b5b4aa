// in_proj_conv1d: the first half of a Mamba block: normalisation, input projection, and the causal
// convolution of the projection's first D columns.
#include <cmath>

#include "ops/case.h"
#include "ops/compose.h"
#include "ops/enums.h"
#include "runtime/core/try.h"

namespace krait {

const Op in_proj_conv1d_op{
    .name = "in_proj_conv1d",
    .summary = "norm_linear, then causal_conv1d over the first D of its columns",
    .inputs = {{"x", "T I", Role::wide},
               {"norm_weight", "I", Role::wide},
               {"w", "O I", Role::weight},
               {"bias", "O", Role::wide, true},
               {"conv_w", "D K", Role::wide},
               {"conv_bias", "D", Role::wide, true},
               {"state", "C D K-1", Role::state},
               {"starts", "S+1", Role::index},
               {"slot_in", "S", Role::index},
               {"slot_out", "S", Role::index}},
    .outputs = {{"y", "T O", Role::activation, "x"}, {"state", "C D K-1", Role::state, "state"}},
    .attrs = {{"eps", 1e-5}, {"activation", 0, kActivations}, {"dtype", -1, kDTypes}},
    .check = [](const Bindings& dims, const Attrs&) -> Status {
      if (dims['D'] > dims['O']) {
        return invalid("D: expected at most O = ", dims['O'], ", got ", dims['D']);
      }
      return {};
    },
    .reference =
        [](const Call64& call) {
          const auto [x, norm_weight, w, bias, conv_w, conv_bias, state, starts, slot_in,
                      slot_out] = call.in<10>();
          const Tensor64& y = call.outputs[0];
          const std::int64_t T = x.dim[0], D = conv_w.dim[0];
          run_part(norm_linear_op, {x, norm_weight, w, bias}, {y}, {{"eps", call.attr("eps")}});
          Scratch64 before({T, D}), after({T, D});
          for (std::int64_t t = 0; t < T; ++t) {
            for (std::int64_t d = 0; d < D; ++d) before.tensor(t, d) = y(t, d);
          }
          run_part(causal_conv1d_op,
                   {before.tensor, conv_w, conv_bias, state, starts, slot_in, slot_out},
                   {after.tensor, state}, {{"activation", call.attr("activation")}});
          for (std::int64_t t = 0; t < T; ++t) {
            for (std::int64_t d = 0; d < D; ++d) y(t, d) = after.tensor(t, d);
          }
        },
    // Those of norm_linear (16 + 5 √I) in each of the K inputs of the convolution, whose sum is √K
    // of one; then the convolution's own (8 + 2 K).
    .roundings =
        [](const Call& call) {
          const auto I = static_cast<double>(call.inputs[2].dim[1]);
          const auto K = static_cast<double>(call.inputs[4].dim[1]);
          return std::sqrt(K) * (16 + 5 * std::sqrt(I)) + 8 + 2 * K;
        },
    .cost =
        [](const Call& call) {
          const auto elements = static_cast<double>(call.outputs[0].elements());
          const auto T = static_cast<double>(call.inputs[0].dim[0]);
          const auto I = static_cast<double>(call.inputs[2].dim[1]);
          const auto D = static_cast<double>(call.inputs[4].dim[0]);
          const auto K = static_cast<double>(call.inputs[4].dim[1]);
          return Cost{-1, 2 * elements * I + 4 * T * I + 2 * T * D * K,
                      call.flag("activation") ? 2 * T * D : 0};
        },
    .cases = []() -> std::vector<Case> {
      const std::vector<std::pair<std::string_view, double>> silu = {{"activation", 1}};
      const auto dims = [](std::int64_t I, std::int64_t O, std::int64_t D, std::int64_t K) {
        return std::vector<std::pair<char, std::int64_t>>{{'I', I}, {'O', O}, {'D', D}, {'K', K}};
      };
      return {
          {"one", dims(1, 1, 1, 4), {1}},
          {"odd", dims(37, 29, 13, 4), {1}, {}, silu},
          {"mamba-130m-step", dims(768, 3072, 1536, 4), {1}, {"bias"}, silu},
          {"blocks", dims(256, 66, 33, 4), {1, 1}, {"bias"}, silu},
          {"small-blocks", dims(96, 40, 20, 4), {1, 1, 1}, {}, silu},
          {"steps", dims(64, 140, 70, 4), {1, 1, 1, 1, 1}, {"bias"}, silu, Slots::shuffled},
          {"mixed-steps", dims(64, 84, 42, 4), {1, 1, 1, 1, 1, 1, 1}, {}, silu, Slots::mixed},
          {"batch-steps",
           dims(768, 264, 132, 4),
           std::vector<std::int64_t>(13, 1),
           {"bias"},
           silu,
           Slots::shuffled},
          {"mixed-batch",
           dims(96, 84, 42, 4),
           std::vector<std::int64_t>(16, 1),
           {},
           silu,
           Slots::mixed},
          {"fork", dims(32, 40, 20, 4), {1, 1, 1}, {}, {}, Slots::fork},
          {"fresh", dims(32, 40, 20, 4), {1, 1}, {}, {}, Slots::fresh},
          {"discard", dims(32, 40, 20, 4), {1, 1}, {}, {}, Slots::discard},
          {"all-columns", dims(32, 40, 40, 4), {1}, {}, silu},
          {"two-taps", dims(32, 40, 20, 2), {1, 1}},
          {"one-tap", dims(32, 40, 20, 1), {1, 1}},
          {"ragged", dims(32, 40, 20, 4), {5, 0, 1, 13, 2}, {}, silu, Slots::shuffled},
          {.name = "strided",
           .dims = dims(64, 48, 24, 4),
           .lengths = {1, 1, 1},
           .layout = Layout::strided},
          {.name = "misaligned",
           .dims = dims(64, 50, 25, 4),
           .lengths = {1, 1},
           .layout = Layout::misaligned},
          {"no-tokens", dims(32, 32, 16, 4), {}},
          {.name = "nan-state",
           .dims = dims(32, 40, 20, 4),
           .lengths = {1},
           .plant = {{"state", NAN}}},
          {.name = "too-wide",
           .dims = dims(32, 40, 41, 4),
           .lengths = {1},
           .error = "D: expected at most O = 40, got 41"},
      };
    },
    .fused = true,
};

}  // namespace krait
