// Elementwise ops: cast, add, mul, neg, exp, silu, softplus.
#include <cmath>

#include "ops/case.h"
#include "ops/enums.h"
#include "ops/math.h"
#include "ops/op.h"

namespace krait {
namespace {

std::vector<Case> cases() {
  return {
      {"one", {{'D', 1}}, {1}},
      {"prime", {{'D', 37}}, {13}},
      {"strided", {{'D', 50}}, {7}, {}, {}, Slots::in_place, Layout::strided},
      {"misaligned", {{'D', 67}}, {5}, {}, {}, Slots::in_place, Layout::misaligned},
      {"mamba-130m", {{'D', 1536}}, {64}},
      {"no-tokens", {{'D', 8}}, {0}},
      {.name = "nan", .dims = {{'D', 33}}, .lengths = {3}, .plant = {{"x", NAN}}},
      {.name = "infinity", .dims = {{'D', 33}}, .lengths = {3}, .plant = {{"x", INFINITY}}},
      {.name = "minus-infinity", .dims = {{'D', 33}}, .lengths = {3}, .plant = {{"x", -INFINITY}}},
  };
}

std::vector<Case> binary_cases() {
  std::vector<Case> list = cases();
  list.push_back({.name = "row", .dims = {{'D', 45}}, .lengths = {9}, .alternatives = {{"y", 1}}});
  list.push_back({.name = "wrong-shape",
                  .dims = {{'D', 8}},
                  .lengths = {4},
                  .bad_shape = {"y", {4, 7}},
                  .error = "y: expected [4, 8] or [8], got [4, 7]"});
  return list;
}

std::vector<Case> wide_range_cases() {
  std::vector<Case> list = cases();
  list.push_back({.name = "extreme",
                  .dims = {{'D', 64}},
                  .lengths = {8},
                  .ranges = {{"x", Range{-100, 100}}}});
  return list;
}

std::int64_t count(const Tensor64& tensor) {
  std::int64_t product = 1;
  for (int axis = 0; axis < tensor.rank; ++axis)
    product *= tensor.dim[static_cast<std::size_t>(axis)];
  return product;
}

template <double (*function)(double)>
void map(const Call64& call) {
  const auto [x] = call.in<1>();
  for (std::int64_t i = 0; i < count(x); ++i) call.outputs[0].data[i] = function(x.data[i]);
}

/// z[t,d] = x[t,d] ∘ y[t,d], or y[d] for all t.
template <class Function>
void combine(const Call64& call, Function function) {
  const auto [x, y] = call.in<2>();
  for (std::int64_t i = 0; i < count(x); ++i) {
    call.outputs[0].data[i] = function(x.data[i], y.data[i % count(y)]);
  }
}

Cost cost_of(const Call& call, double flops, double special) {
  const auto elements = static_cast<double>(call.outputs[0].elements());
  return {-1, flops * elements, special * elements};
}

double identity(double x) {
  return x;
}
double negate(double x) {
  return -x;
}
double exponential(double x) {
  return std::exp(x);
}

}  // namespace

const Op cast_op{
    .name = "cast",
    .summary = "x in another type",
    .inputs = {{"x", "*", Role::weight}},
    .outputs = {{"y", "*", Role::activation, "x"}},
    .attrs = {{"dtype", -1, kDTypes}},
    .reference = map<identity>,
    .cost = [](const Call& call) { return cost_of(call, 0, 0); },
    .cases =
        [] {
          std::vector<Case> list;
          for (const Case& c : cases()) {
            for (const DType to : {DType::f32, DType::f16, DType::bf16}) {
              Case one = c;
              one.name += "-to-" + std::string(name(to));
              one.attrs = {{"dtype", static_cast<double>(to)}};
              list.push_back(one);
            }
          }
          return list;
        },
};

const Op add_op{
    .name = "add",
    .summary = "x + y; y may be one row for all tokens",
    .inputs = {{"x", "T D"}, {"y", "T D|D"}},
    .outputs = {{"sum", "T D", Role::activation, "x"}},
    .reference =
        [](const Call64& call) { combine(call, [](double x, double y) { return x + y; }); },
    .roundings = [](const Call&) { return 1.0; },
    .cost = [](const Call& call) { return cost_of(call, 1, 0); },
    .cases = binary_cases,
};

const Op mul_op{
    .name = "mul",
    .summary = "x · y; y may be one row for all tokens",
    .inputs = {{"x", "T D"}, {"y", "T D|D"}},
    .outputs = {{"product", "T D", Role::activation, "x"}},
    .reference =
        [](const Call64& call) { combine(call, [](double x, double y) { return x * y; }); },
    .roundings = [](const Call&) { return 1.0; },
    .cost = [](const Call& call) { return cost_of(call, 1, 0); },
    .cases = binary_cases,
};

const Op neg_op{
    .name = "neg",
    .summary = "−x",
    .inputs = {{"x", "*"}},
    .outputs = {{"y", "*", Role::activation, "x"}},
    .reference = map<negate>,
    .cost = [](const Call& call) { return cost_of(call, 1, 0); },
    .cases = cases,
};

// exp in float32 is allowed 4 units in the last place here; library and vector versions reach 1
// to 2.
const Op exp_op{
    .name = "exp",
    .summary = "eˣ",
    .inputs = {{"x", "*", Role::activation, false, {-5, 5}}},
    .outputs = {{"y", "*", Role::activation, "x"}},
    .reference = map<exponential>,
    .roundings = [](const Call&) { return 4.0; },
    .cost = [](const Call& call) { return cost_of(call, 0, 1); },
    .cases = cases,
};

// x/(1+e⁻ˣ): exp, an addition and a division, each within a few units in the last place.
const Op silu_op{
    .name = "silu",
    .summary = "x·sigmoid(x)",
    .inputs = {{"x", "*", Role::activation, false, {-6, 6}}},
    .outputs = {{"y", "*", Role::activation, "x"}},
    .reference = map<silu64>,
    .roundings = [](const Call&) { return 8.0; },
    .cost = [](const Call& call) { return cost_of(call, 2, 2); },
    .cases = wide_range_cases,
};

const Op softplus_op{
    .name = "softplus",
    .summary = "log(1 + eˣ), x itself above 20",
    .inputs = {{"x", "*", Role::activation, false, {-6, 6}}},
    .outputs = {{"y", "*", Role::activation, "x"}},
    .reference = map<softplus64>,
    .roundings = [](const Call&) { return 8.0; },
    .cost = [](const Call& call) { return cost_of(call, 1, 2); },
    .cases = wide_range_cases,
};

}  // namespace krait
