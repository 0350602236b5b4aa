// Graphs for tests, written as text.
#pragma once

#include <array>
#include <cstdint>
#include <initializer_list>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "graph/ir.h"
#include "tests/helpers/expect.h"
#include <krait/session.h>

namespace krait::test {

/// What "f32[T, 768]" spells.
inline Type type(const std::string& text) {
  return must(ir::parse("graph g {\n  input x: " + text + "\n}\n")).values[0].type;
}

/// infer() with operands by name and type: {{"x", "f32[T, 8]"}, {"y", "f32[8]"}}. The outputs'
/// types as text, apart by ", "; "-" where an output is absent.
inline Result<std::string> infer_text(
    std::string_view op_name,
    std::initializer_list<std::pair<std::string_view, std::string>> operands,
    std::initializer_list<std::pair<std::string_view, double>> attributes = {}) {
  const Op& op = *find_op(op_name);
  std::array<Type, kMaxInputs> types;
  std::array<const Type*, kMaxInputs> pointers{};
  for (const auto& [name, text] : operands) {
    const auto at = static_cast<std::size_t>(input_index(op, name));
    types[at] = type(text);
    pointers[at] = &types[at];
  }
  Attrs attrs = default_attrs(op);
  for (const auto& [name, value] : attributes) {
    if (Status status = set_attr(op, attrs, name, value); !status.ok()) return status;
  }
  const Result<InferredTypes> inferred = infer(op, pointers, attrs);
  if (!inferred.ok()) return inferred.status();
  std::string text;
  for (std::size_t o = 0; o < op.outputs.size(); ++o) {
    text += (o ? ", " : "") + (inferred->present[o] ? to_string(inferred->types[o]) : "-");
  }
  return text;
}

/// Weights by name, with values that differ from each other: w[i] = scale · (i·7 mod 11 − 5) / 11.
struct Weights {
  std::vector<std::pair<std::string, std::vector<float>>> memory;
  std::vector<Shape> shapes;

  Weights& add(std::string name, const Shape& shape, float scale = 1) {
    std::vector<float> values(static_cast<std::size_t>(shape.elements()));
    for (std::size_t i = 0; i < values.size(); ++i) {
      values[i] = scale * (static_cast<float>(i * 7 % 11) - 5) / 11;
    }
    memory.emplace_back(std::move(name), std::move(values));
    shapes.push_back(shape);
    return *this;
  }
  std::vector<Weight> list() {
    std::vector<Weight> result;
    for (std::size_t i = 0; i < memory.size(); ++i) {
      result.push_back(
          {memory[i].first, dense_view(memory[i].second.data(), DType::f32, shapes[i])});
    }
    return result;
  }
};

/// A model of a graph's text; every weight it declares gets values as Weights gives them.
inline Model model_of(const std::string& text) {
  const Graph graph = must(Graph::parse(text));
  Weights weights;
  for (const ir::Value& value : graph.ir().values) {
    if (value.kind == ir::Kind::weight) weights.add(value.name, value.type.shape);
  }
  return must(Model::from_graph(graph, weights.list()));
}

/// A recurrent layer over continuous features, as an embedder would write it: convolution, scan
/// with every optional operand, residual and norm.
inline const char* const kSmallSsm = R"(graph small {
  input x: f32[T, 8]
  input starts: i32[S+1]
  input slot_in: i32[S]
  input slot_out: i32[S]
  input rows: i32[M]
  weight in: f32[16, 8]
  weight conv: f32[8, 4]
  weight conv_bias: f32[8]
  weight dt: f32[8, 8]
  weight dt_bias: f32[8]
  weight A_log: f32[8, 4]
  weight BC: f32[8, 8]
  weight D: f32[8]
  weight norm: f32[8]
  state conv_state: f32[C, 8, 3]
  state ssm_state: f32[C, 8, 4]
  %0: f32[T, 16] = linear(x: x, w: in)
  %1: f32[T, 8] = slice(x: %0) {size = 8}
  %2: f32[T, 8] = slice(x: %0) {offset = 8, size = 8}
  %3: f32[T, 8], %4: f32[C, 8, 3] = causal_conv1d(x: %1, w: conv, bias: conv_bias, state: conv_state, starts: starts, slot_in: slot_in, slot_out: slot_out)
  %5: f32[T, 8] = silu(x: %3)
  %6: f32[T, 8] = linear(x: %5, w: dt)
  %7: f32[T, 8] = add(x: %6, y: dt_bias)
  %8: f32[T, 8] = softplus(x: %7)
  %9: f32[8, 4] = exp(x: A_log)
  %10: f32[8, 4] = neg(x: %9)
  %11: f32[T, 8] = linear(x: %5, w: BC)
  %12: f32[T, 4] = slice(x: %11) {size = 4}
  %13: f32[T, 1, 4] = split(x: %12)
  %14: f32[T, 4] = slice(x: %11) {offset = 4, size = 4}
  %15: f32[T, 1, 4] = split(x: %14)
  %16: f32[T, 8], %17: f32[C, 8, 4] = selective_scan(u: %5, dt: %8, A: %10, B: %13, C: %15, state: ssm_state, starts: starts, slot_in: slot_in, slot_out: slot_out)
  %18: f32[T, 8] = mul(x: %5, y: D)
  %19: f32[T, 8] = add(x: %16, y: %18)
  %20: f32[T, 8] = silu(x: %2)
  %21: f32[T, 8] = mul(x: %19, y: %20)
  %22: f32[T, 8] = add(x: x, y: %21)
  %23: f32[T, 8] = rms_norm(x: %22, weight: norm)
  %24: f32[M, 8] = gather_rows(x: %23, rows: rows)
  output y = %24
  output all = %23
}
)";

}  // namespace krait::test
