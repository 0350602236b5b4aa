// Ops that pick rows or positions: embedding, gather_rows, argmax, top_k.
#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "ops/case.h"
#include "ops/enums.h"
#include "ops/op.h"
#include "runtime/core/try.h"

namespace krait {
namespace {

/// y[t,d] = table[index[t],d]
void pick_rows(const Tensor64& table, const Tensor64& index, const Tensor64& y) {
  for (std::int64_t t = 0; t < index.dim[0]; ++t) {
    for (std::int64_t d = 0; d < table.dim[1]; ++d) {
      y(t, d) = table(static_cast<std::int64_t>(index(t)), d);
    }
  }
}

/// A row is read and written, and its index read.
Cost rows_cost(const TensorView& table, const TensorView& y) {
  const auto row =
      static_cast<double>(bytes_of(table.dtype, y.dim[1]) + bytes_of(y.dtype, y.dim[1]) + 4);
  return {static_cast<double>(y.dim[0]) * row, 0, 0};
}

/// Positions of row `m` of x by falling value, ties by rising position; NaN counts as −∞.
std::vector<std::int64_t> ranked(const Tensor64& x, std::int64_t m) {
  std::vector<std::int64_t> order(static_cast<std::size_t>(x.dim[1]));
  std::iota(order.begin(), order.end(), 0);
  const auto key = [&](std::int64_t i) {
    return std::isnan(x(m, i)) ? -std::numeric_limits<double>::infinity() : x(m, i);
  };
  std::stable_sort(order.begin(), order.end(),
                   [&](std::int64_t a, std::int64_t b) { return key(a) > key(b); });
  return order;
}

std::vector<Case> argmax_cases() {
  return {
      {"one", {{'M', 1}, {'V', 1}}, {}},
      {"vocabulary", {{'M', 3}, {'V', 50280}}, {}},
      {"prime", {{'M', 5}, {'V', 257}}, {}},
      {.name = "strided", .dims = {{'M', 4}, {'V', 100}}, .layout = Layout::strided},
      {.name = "misaligned", .dims = {{'M', 4}, {'V', 101}}, .layout = Layout::misaligned},
      {.name = "ties", .dims = {{'M', 4}, {'V', 300}}, .ranges = {{"x", Range{2, 2}}}},
      {.name = "nan", .dims = {{'M', 1}, {'V', 64}}, .plant = {{"x", NAN}}},
      {.name = "all-nan", .dims = {{'M', 2}, {'V', 37}}, .ranges = {{"x", Range{NAN, NAN}}}},
      {.name = "infinity", .dims = {{'M', 2}, {'V', 64}}, .plant = {{"x", INFINITY}}},
      {.name = "no-rows", .dims = {{'M', 0}, {'V', 64}}},
  };
}

std::vector<Case> top_k_cases() {
  std::vector<Case> list = argmax_cases();
  for (Case& c : list) {
    c.attrs = {{"k", std::min<double>(40, static_cast<double>(extent(c, 'V')))}};
  }
  list.push_back({.name = "largest", .dims = {{'M', 3}, {'V', 129}}});  // k = 1
  list.push_back({.name = "everything", .dims = {{'M', 3}, {'V', 19}}, .attrs = {{"k", 19}}});
  list.push_back({.name = "too-many",
                  .dims = {{'M', 1}, {'V', 8}},
                  .attrs = {{"k", 9}},
                  .error = "k: expected 1 to 8, got 9"});
  return list;
}

}  // namespace

const Op embedding_op{
    .name = "embedding",
    .summary = "row ids[t] of the table for every token; ids outside the table are refused",
    .inputs = {{.name = "ids", .dims = "T", .role = Role::index, .below = 'V'},
               {"table", "V D", Role::weight}},
    .outputs = {{"y", "T D"}},
    .attrs = {{"dtype", -1, kDTypes}},  // float32 unless chosen
    .reference =
        [](const Call64& call) {
          const auto [ids, table] = call.in<2>();
          pick_rows(table, ids, call.outputs[0]);
        },
    .cost = [](const Call& call) { return rows_cost(call.inputs[1], call.outputs[0]); },
    .cases = []() -> std::vector<Case> {
      return {
          {"one", {{'V', 1}, {'D', 1}}, {1}},
          {"odd", {{'V', 11}, {'D', 37}}, {9}},
          // The width of mamba-130m; all of its 50280 rows would take seconds per storage type.
          {"mamba-130m-width", {{'V', 2011}, {'D', 768}}, {4}},
          {"blocks", {{'V', 77}, {'D', 512}}, {65}},
          {"small-blocks", {{'V', 19}, {'D', 96}}, {7}},
          {.name = "strided-blocks",
           .dims = {{'V', 20}, {'D', 256}},
           .lengths = {6},
           .layout = Layout::strided},
          {.name = "strided",
           .dims = {{'V', 20}, {'D', 33}},
           .lengths = {6},
           .layout = Layout::strided},
          {"no-tokens", {{'V', 5}, {'D', 8}}, {0}},
          {.name = "wrong-ids",
           .dims = {{'V', 5}, {'D', 8}},
           .lengths = {3},
           .bad_shape = {"ids", {3, 1}},
           .error = "ids: expected [T], got [3, 1]"},
      };
    },
};

const Op gather_rows_op{
    .name = "gather_rows",
    .summary = "rows rows[m] of x, such as those that need logits",
    .inputs = {{"x", "T D"}, {.name = "rows", .dims = "M", .role = Role::index, .below = 'T'}},
    .outputs = {{"y", "M D", Role::activation, "x"}},
    .reference =
        [](const Call64& call) {
          const auto [x, rows] = call.in<2>();
          pick_rows(x, rows, call.outputs[0]);
        },
    .cost = [](const Call& call) { return rows_cost(call.inputs[0], call.outputs[0]); },
    .cases = []() -> std::vector<Case> {
      return {
          {"last", {{'D', 768}, {'M', 1}}, {512}},
          {"some", {{'D', 37}, {'M', 5}}, {11}},
          {.name = "strided",
           .dims = {{'D', 33}, {'M', 7}},
           .lengths = {6},
           .layout = Layout::strided},
          {.name = "misaligned",
           .dims = {{'D', 33}, {'M', 2}},
           .lengths = {6},
           .layout = Layout::misaligned},
          {"none", {{'D', 8}, {'M', 0}}, {4}},
      };
    },
};

const Op argmax_op{
    .name = "argmax",
    .summary = "position of the largest value of every row; the first of equals, NaN counts as −∞",
    .inputs = {{"x", "M V"}},
    .outputs = {{"ids", "M", Role::index}},
    .check = [](const Bindings& dims, const Attrs&) -> Status {
      return dims['V'] ? Status() : invalid("V: expected at least 1, got 0");
    },
    .reference =
        [](const Call64& call) {
          const auto [x] = call.in<1>();
          for (std::int64_t m = 0; m < x.dim[0]; ++m) {
            call.outputs[0](m) = static_cast<double>(ranked(x, m).front());
          }
        },
    .cases = argmax_cases,
};

const Op top_k_op{
    .name = "top_k",
    .summary = "the k largest values of every row, falling, and their positions",
    .inputs = {{"x", "M V"}},
    .outputs = {{"values", "M @k", Role::activation, "x"}, {"ids", "M @k", Role::index}},
    .attrs = {{"k", 1}},
    .check = [](const Bindings& dims, const Attrs& attrs) -> Status {
      if (!(attrs[0] >= 1 && attrs[0] <= static_cast<double>(dims['V']))) {
        return invalid("k: expected 1 to ", dims['V'], ", got ", attrs[0]);
      }
      return {};
    },
    .reference =
        [](const Call64& call) {
          const auto [x] = call.in<1>();
          for (std::int64_t m = 0; m < x.dim[0]; ++m) {
            const std::vector<std::int64_t> order = ranked(x, m);
            for (std::int64_t i = 0; i < call.outputs[0].dim[1]; ++i) {
              const std::int64_t position = order[static_cast<std::size_t>(i)];
              call.outputs[0](m, i) = x(m, position);
              call.outputs[1](m, i) = static_cast<double>(position);
            }
          }
        },
    .cases = top_k_cases,
};

}  // namespace krait
