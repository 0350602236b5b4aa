// causal_conv1d: depthwise causal convolution over each sequence's tokens, continuing from a state.
#include <cmath>

#include "ops/case.h"
#include "ops/enums.h"
#include "ops/math.h"
#include "ops/op.h"

namespace krait {

const Op causal_conv1d_op{
    .name = "causal_conv1d",
    .summary = "depthwise causal convolution over each sequence, from its last K−1 inputs on",
    .inputs = {{"x", "T D"},
               {"w", "D K", Role::wide},
               {"bias", "D", Role::wide, true},
               {"state", "C D K-1", Role::state},
               {"starts", "S+1", Role::index},
               {"slot_in", "S", Role::index},
               {"slot_out", "S", Role::index}},
    .outputs = {{"y", "T D", Role::activation, "x"}, {"state", "C D K-1", Role::state, "state"}},
    .attrs = {{"activation", 0, kActivations}},
    // y[t,d] = act(bias[d] + Σ_k w[d,k] x[t−(K−1)+k, d]); inputs before the sequence's first token
    // come from the state, which holds the last K−1 of them, oldest first.
    .reference =
        [](const Call64& call) {
          const auto [x, w, bias, state, starts, slot_in, slot_out] = call.in<7>();
          const bool silu = call.flag("activation");
          const std::int64_t taps = w.dim[1];
          std::vector<double> history(
              static_cast<std::size_t>(taps));  // the K latest, oldest first
          for (std::int64_t s = 0; s < slot_in.dim[0]; ++s) {
            const auto from = static_cast<std::int64_t>(slot_in(s));
            const auto to = static_cast<std::int64_t>(slot_out(s));
            for (std::int64_t d = 0; d < x.dim[1]; ++d) {
              for (std::int64_t k = 0; k + 1 < taps; ++k) {
                history[static_cast<std::size_t>(k + 1)] = from < 0 ? 0 : state(from, d, k);
              }
              for (auto t = static_cast<std::int64_t>(starts(s));
                   t < static_cast<std::int64_t>(starts(s + 1)); ++t) {
                history.erase(history.begin());
                history.push_back(x(t, d));
                double sum = bias ? bias(d) : 0;
                for (std::int64_t k = 0; k < taps; ++k)
                  sum += w(d, k) * history[static_cast<std::size_t>(k)];
                call.outputs[0](t, d) = silu ? silu64(sum) : sum;
              }
              for (std::int64_t k = 0; to >= 0 && k + 1 < taps; ++k) {
                state(to, d, k) = history[static_cast<std::size_t>(k + 1)];
              }
            }
          }
        },
    // K products and K additions, then silu (8).
    .roundings =
        [](const Call& call) { return 8 + 2 * static_cast<double>(call.inputs[1].dim[1]); },
    .cost =
        [](const Call& call) {
          const auto elements = static_cast<double>(call.outputs[0].elements());
          return Cost{-1, 2 * elements * static_cast<double>(call.inputs[1].dim[1]),
                      call.flag("activation") ? 2 * elements : 0};
        },
    .cases = []() -> std::vector<Case> {
      return {
          {"one", {{'D', 1}, {'K', 4}}, {1}},
          {"mamba-130m", {{'D', 1536}, {'K', 4}}, {70}, {}, {{"activation", 1}}},
          {"mamba-130m-step", {{'D', 1536}, {'K', 4}}, {1}, {}, {{"activation", 1}}},
          {"steps",
           {{'D', 70}, {'K', 4}},
           {1, 1, 1, 1, 1},
           {"bias"},
           {{"activation", 1}},
           Slots::shuffled},
          {"ragged",
           {{'D', 37}, {'K', 4}},
           {5, 0, 1, 13, 2},
           {},
           {{"activation", 1}},
           Slots::shuffled},
          {"fork", {{'D', 20}, {'K', 4}}, {3, 1, 6}, {}, {}, Slots::fork},
          {"fresh", {{'D', 33}, {'K', 4}}, {2, 7}, {}, {}, Slots::fresh},
          {"discard", {{'D', 33}, {'K', 4}}, {2, 7}, {}, {}, Slots::discard},
          {"mixed", {{'D', 29}, {'K', 4}}, {3, 5, 0, 2, 1, 4, 1}, {}, {}, Slots::mixed},
          {"mixed-steps",
           {{'D', 83}, {'K', 4}},
           {1, 1, 1, 1, 1, 1, 1},
           {},
           {{"activation", 1}},
           Slots::mixed},
          {"five-taps", {{'D', 31}, {'K', 5}}, {1, 7}, {}, {}, Slots::shuffled},
          {"one-tap", {{'D', 19}, {'K', 1}}, {4, 3}},
          {"two-taps", {{'D', 19}, {'K', 2}}, {4, 1}},
          {"three-taps", {{'D', 48}, {'K', 3}}, {9}},
          {"eight-taps", {{'D', 21}, {'K', 8}}, {4, 11}},
          {"one-tap-steps", {{'D', 19}, {'K', 1}}, {1, 1}},
          {"three-taps-steps", {{'D', 48}, {'K', 3}}, {1, 1, 1, 1, 1}, {}, {}, Slots::shuffled},
          {"five-taps-steps",
           {{'D', 31}, {'K', 5}},
           {1, 1, 1},
           {},
           {{"activation", 1}},
           Slots::shuffled},
          {.name = "strided",
           .dims = {{'D', 50}, {'K', 4}},
           .lengths = {7, 4},
           .layout = Layout::strided},
          {.name = "misaligned",
           .dims = {{'D', 51}, {'K', 4}},
           .lengths = {7, 4},
           .layout = Layout::misaligned},
          {"no-tokens", {{'D', 8}, {'K', 4}}, {0, 0}},
          {"no-sequences", {{'D', 8}, {'K', 4}}, {}},
          {.name = "nan", .dims = {{'D', 33}, {'K', 4}}, .lengths = {9}, .plant = {{"x", NAN}}},
          {.name = "nan-state",
           .dims = {{'D', 33}, {'K', 4}},
           .lengths = {9},
           .plant = {{"state", NAN}}},
          {.name = "infinity",
           .dims = {{'D', 33}, {'K', 4}},
           .lengths = {9},
           .plant = {{"x", INFINITY}}},
          {.name = "wrong-state",
           .dims = {{'D', 8}, {'K', 4}},
           .lengths = {2},
           .bad_shape = {"state", {3, 8, 4}},
           .error = "state: expected [C, 8, 3], got [3, 8, 4]"},
      };
    },
};

}  // namespace krait
