// rms_norm: root-mean-square normalisation with an optional residual addition and gate.
#include <cmath>

#include "ops/case.h"
#include "ops/enums.h"
#include "ops/math.h"
#include "ops/op.h"
#include "runtime/core/try.h"

namespace krait {

const Op rms_norm_op{
    .name = "rms_norm",
    .summary = "x / rms(x) · weight, in groups; adds a residual before, multiplies silu(gate)",
    .inputs = {{"x", "T D"},
               {"weight", "D", Role::wide, true},
               {"residual", "T D", Role::wide, true},
               {"gate", "T D", Role::activation, true, {-4, 4}}},
    .outputs = {{"y", "T D", Role::activation, "x"},
                {"sum", "T D", Role::wide, "residual", "residual"}},
    .attrs = {{"eps", 1e-5}, {"groups", 1}, {"norm_before_gate", 0}, {"dtype", -1, kDTypes}},
    .check = [](const Bindings& dims, const Attrs& attrs) -> Status {
      const auto groups = static_cast<std::int64_t>(attrs[1]);
      if (groups < 1 || dims['D'] % groups != 0) {
        return invalid("groups: expected a divisor of D = ", dims['D'], ", got ", attrs[1]);
      }
      return {};
    },
    // s = x + residual;  v = s·silu(gate) unless norm_before_gate
    // y = v / √(mean over the group of v² + eps) · weight, then ·silu(gate) if norm_before_gate
    .reference =
        [](const Call64& call) {
          const auto [x, weight, residual, gate] = call.in<4>();
          const double eps = call.attr("eps");
          const bool gate_after = call.flag("norm_before_gate");
          const std::int64_t width = x.dim[1] / static_cast<std::int64_t>(call.attr("groups"));
          std::vector<double> v(static_cast<std::size_t>(x.dim[1]));
          for (std::int64_t t = 0; t < x.dim[0]; ++t) {
            for (std::int64_t d = 0; d < x.dim[1]; ++d) {
              double& value = v[static_cast<std::size_t>(d)];
              value = x(t, d) + (residual ? residual(t, d) : 0);
              if (residual) call.outputs[1](t, d) = value;
              if (gate && !gate_after) value *= silu64(gate(t, d));
            }
            for (std::int64_t d = 0; d < x.dim[1]; ++d) {
              double squares = 0;
              const std::int64_t first = d / width * width;
              for (std::int64_t i = first; i < first + width; ++i) {
                squares += v[static_cast<std::size_t>(i)] * v[static_cast<std::size_t>(i)];
              }
              double y = v[static_cast<std::size_t>(d)] /
                         std::sqrt(squares / static_cast<double>(width) + eps);
              if (weight) y *= weight(d);
              if (gate && gate_after) y *= silu64(gate(t, d));
              call.outputs[0](t, d) = y;
            }
          }
        },
    // A sum of D positive squares loses about √D roundings of its own size, halved by the root;
    // silu 8, root, division and products 4.
    .roundings =
        [](const Call& call) { return 12 + std::sqrt(static_cast<double>(call.inputs[0].dim[1])); },
    .cost =
        [](const Call& call) {
          const auto elements = static_cast<double>(call.outputs[0].elements());
          return Cost{-1, 4 * elements, call.inputs[3] ? 2 * elements : 0};
        },
    .cases = []() -> std::vector<Case> {
      return {
          {"one", {{'D', 1}}, {1}, {"residual", "gate"}},
          {"plain", {{'D', 768}}, {5}, {"residual", "gate"}},
          {"weightless", {{'D', 48}}, {9}, {"weight", "residual", "gate"}, {{"eps", 1e-6}}},
          {"residual", {{'D', 768}}, {17}, {"gate"}},
          {"odd-residual", {{'D', 67}}, {3}, {"gate"}},
          {"gate-first", {{'D', 1536}}, {4}, {"residual"}},
          {"norm-first", {{'D', 96}}, {4}, {"residual"}, {{"norm_before_gate", 1}}},
          {"groups", {{'D', 120}}, {6}, {"residual"}, {{"groups", 8}}},
          {"everything", {{'D', 64}}, {3}, {}, {{"groups", 4}, {"norm_before_gate", 1}}},
          {.name = "strided", .dims = {{'D', 50}}, .lengths = {7}, .layout = Layout::strided},
          {.name = "misaligned", .dims = {{'D', 51}}, .lengths = {7}, .layout = Layout::misaligned},
          {"no-tokens", {{'D', 8}}, {0}},
          {.name = "zeros",
           .dims = {{'D', 32}},
           .lengths = {2},
           .omit = {"residual", "gate"},
           .ranges = {{"x", Range{0, 0}}}},
          {.name = "nan",
           .dims = {{'D', 33}},
           .lengths = {3},
           .omit = {"gate"},
           .plant = {{"x", NAN}}},
          {.name = "infinity",
           .dims = {{'D', 33}},
           .lengths = {3},
           .omit = {"gate"},
           .plant = {{"x", INFINITY}}},
          {.name = "bad-groups",
           .dims = {{'D', 10}},
           .lengths = {2},
           .attrs = {{"groups", 3}},
           .error = "groups: expected a divisor of D = 10, got 3"},
      };
    },
};

}  // namespace krait
