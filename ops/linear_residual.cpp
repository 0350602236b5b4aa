// linear_residual: a matrix product added to the residual stream.
#include <cmath>

#include "ops/case.h"
#include "ops/compose.h"
#include "ops/enums.h"

namespace krait {

const Op linear_residual_op{
    .name = "linear_residual",
    .summary = "residual + x wᵀ + bias: linear and the residual addition after it",
    .inputs = {{"x", "T I"},
               {"w", "O I", Role::weight},
               {"bias", "O", Role::wide, true},
               {"residual", "T O", Role::wide}},
    .outputs = {{"y", "T O", Role::wide, "residual"}},
    .reference =
        [](const Call64& call) {
          const auto [x, w, bias, residual] = call.in<4>();
          const Tensor64& y = call.outputs[0];
          Scratch64 product({x.dim[0], w.dim[0]});
          run_part(linear_op, {x, w, bias}, {product.tensor});
          for (std::int64_t t = 0; t < x.dim[0]; ++t) {
            for (std::int64_t o = 0; o < w.dim[0]; ++o)
              y(t, o) = residual(t, o) + product.tensor(t, o);
          }
        },
    // Those of linear, and one addition.
    .roundings =
        [](const Call& call) {
          return 5 + 4 * std::sqrt(static_cast<double>(call.inputs[1].dim[1]));
        },
    .cost =
        [](const Call& call) {
          const auto elements = static_cast<double>(call.outputs[0].elements());
          return Cost{-1, elements * (2 * static_cast<double>(call.inputs[1].dim[1]) + 1), 0};
        },
    .cases = []() -> std::vector<Case> {
      return {
          {"one", {{'I', 1}, {'O', 1}}, {1}},
          {"odd", {{'I', 37}, {'O', 29}}, {3}},
          {"blocks", {{'I', 256}, {'O', 65}}, {2}},
          {"small-blocks", {{'I', 96}, {'O', 37}}, {6}},
          {"mamba-130m-out-proj", {{'I', 1536}, {'O', 768}}, {1}, {"bias"}},
          {"mamba-2.8b-out-proj", {{'I', 5120}, {'O', 320}}, {1}, {"bias"}},
          {"batch", {{'I', 512}, {'O', 129}}, {1, 1, 1, 1, 1, 1, 1}, {"bias"}},
          {"many", {{'I', 96}, {'O', 64}}, {33}, {"bias"}},
          {"mamba-2.8b-out-proj-batch", {{'I', 5120}, {'O', 160}}, {9}},
          {"batch-tail", {{'I', 1544}, {'O', 333}}, {20}, {"bias"}},
          {.name = "batch-nan",
           .dims = {{'I', 64}, {'O', 33}},
           .lengths = {9},
           .plant = {{"x", NAN}}},
          {.name = "batch-infinity",
           .dims = {{'I', 64}, {'O', 33}},
           .lengths = {9},
           .plant = {{"x", INFINITY}}},
          {.name = "strided",
           .dims = {{'I', 64}, {'O', 48}},
           .lengths = {5},
           .layout = Layout::strided},
          {.name = "misaligned",
           .dims = {{'I', 64}, {'O', 50}},
           .lengths = {2},
           .layout = Layout::misaligned},
          {"no-tokens", {{'I', 32}, {'O', 32}}, {0}},
          {.name = "nan", .dims = {{'I', 64}, {'O', 33}}, .lengths = {3}, .plant = {{"x", NAN}}},
          {.name = "infinity",
           .dims = {{'I', 64}, {'O', 33}},
           .lengths = {3},
           .plant = {{"residual", INFINITY}}},
          {.name = "wrong-residual",
           .dims = {{'I', 32}, {'O', 16}},
           .lengths = {2},
           .bad_shape = {"residual", {2, 15}},
           .error = "residual: expected [2, 16], got [2, 15]"},
      };
    },
    .fused = true,
};

}  // namespace krait
