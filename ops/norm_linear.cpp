// norm_linear: a normalisation and the matrix product after it.
#include <cmath>

#include "ops/case.h"
#include "ops/compose.h"
#include "ops/enums.h"

namespace krait {

const Op norm_linear_op{
    .name = "norm_linear",
    .summary = "(x / rms(x) · norm_weight) wᵀ + bias: rms_norm and the linear after it",
    .inputs = {{"x", "T I", Role::wide},
               {"norm_weight", "I", Role::wide},
               {"w", "O I", Role::weight},
               {"bias", "O", Role::wide, true}},
    .outputs = {{"y", "T O", Role::activation, "x"}},
    .attrs = {{"eps", 1e-5}, {"dtype", -1, kDTypes}},
    .reference =
        [](const Call64& call) {
          const auto [x, norm_weight, w, bias] = call.in<4>();
          Scratch64 normed({x.dim[0], x.dim[1]});
          run_part(rms_norm_op, {x, norm_weight}, {normed.tensor}, {{"eps", call.attr("eps")}});
          run_part(linear_op, {normed.tensor, w, bias}, {call.outputs[0]});
        },
    // Those of rms_norm (12 + √I), which every term of the product has, and of linear (4 + 4 √I).
    .roundings =
        [](const Call& call) {
          return 16 + 5 * std::sqrt(static_cast<double>(call.inputs[2].dim[1]));
        },
    .cost =
        [](const Call& call) {
          const auto elements = static_cast<double>(call.outputs[0].elements());
          return Cost{-1,
                      2 * elements * static_cast<double>(call.inputs[2].dim[1]) +
                          4 * static_cast<double>(call.inputs[0].elements()),
                      0};
        },
    .cases = []() -> std::vector<Case> {
      return {
          {"one", {{'I', 1}, {'O', 1}}, {1}},
          {"odd", {{'I', 37}, {'O', 29}}, {3}},
          {"blocks", {{'I', 256}, {'O', 65}}, {2}},
          {"small-blocks", {{'I', 96}, {'O', 37}}, {6}},
          {"mamba-130m-head", {{'I', 768}, {'O', 2011}}, {1}, {"bias"}},
          {"batch", {{'I', 512}, {'O', 129}}, {1, 1, 1, 1, 1, 1, 1}, {"bias"}, {{"eps", 1e-6}}},
          {"many", {{'I', 96}, {'O', 64}}, {33}, {"bias"}},
          {"mamba-130m-head-batch", {{'I', 768}, {'O', 500}}, {20}},
          {.name = "strided",
           .dims = {{'I', 64}, {'O', 48}},
           .lengths = {5},
           .layout = Layout::strided},
          {.name = "misaligned",
           .dims = {{'I', 64}, {'O', 50}},
           .lengths = {2},
           .layout = Layout::misaligned},
          {"no-tokens", {{'I', 32}, {'O', 32}}, {0}},
          {.name = "zeros",
           .dims = {{'I', 64}, {'O', 20}},
           .lengths = {2},
           .ranges = {{"x", Range{0, 0}}}},
          {.name = "nan", .dims = {{'I', 64}, {'O', 33}}, .lengths = {3}, .plant = {{"x", NAN}}},
          {.name = "wrong-norm",
           .dims = {{'I', 32}, {'O', 16}},
           .lengths = {2},
           .bad_shape = {"norm_weight", {31}},
           .error = "norm_weight: expected [32], got [31]"},
      };
    },
    .fused = true,
};

}  // namespace krait
