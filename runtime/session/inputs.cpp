#include "runtime/session/inputs.h"

#include <cstring>
#include <utility>

#include "runtime/core/try.h"

namespace krait {
namespace {

/// The inputs that sessions write themselves.
const std::pair<std::string_view, Shape> kOwnInputs[] = {{"starts", {dims::starts}},
                                                         {"slot_in", {dims::S}},
                                                         {"slot_out", {dims::S}},
                                                         {"rows", {dims::M}}};

Status check_names(const ir::Graph& graph) {
  for (const ir::Value& value : graph.values) {
    if (value.kind == ir::Kind::state && value.name == "tokens") {
      return invalid(
          "state tokens: state files hold the token ids under this name; choose another");
    }
    if (value.kind != ir::Kind::input) continue;
    for (const auto& [name, shape] : kOwnInputs) {
      const Type want{DType::i32, shape};
      if (value.name == name && value.type != want) {
        return invalid("input ", name, ": expected ", to_string(want), ", got ",
                       to_string(value.type), "; sessions write this input themselves");
      }
    }
  }
  return {};
}

/// starts and slots must be the session's own, and run over the tokens of the call.
Status check_sequences(const ir::Graph& graph, const ir::Node& node) {
  for (const std::string_view name : {"starts", "slot_in", "slot_out"}) {
    const ir::Value& value =
        graph[node.inputs[static_cast<std::size_t>(input_index(*node.op, name))]];
    if (value.kind != ir::Kind::input || value.name != name) {
      return invalid("[", node.op->name, "] ", name, ": expected the input named ", name,
                     ", which sessions write");
    }
  }
  const Shape& x = graph[node.inputs[0]].type.shape;
  if (x[0] != dims::T) {
    return invalid("[", node.op->name, "] ", node.op->inputs[0].name,
                   ": expected the T tokens of a call, got ", to_string(x));
  }
  return {};
}

/// The extent that indices called `below` in the op's dims must stay under.
Dim table_rows(const ir::Graph& graph, const ir::Node& node, char below) {
  for (std::size_t i = 0; i < node.inputs.size(); ++i) {
    if (node.inputs[i] != ir::kNone && node.op->inputs[i].dims.front() == below) {
      return graph[node.inputs[i]].type.shape[0];
    }
  }
  return Dim(0);
}

/// Whether a node yields positions in rows of at most `below` columns.
bool yields_positions(const ir::Graph& graph, const ir::Node& node, const Dim& below) {
  if (node.op->name != "argmax" && node.op->name != "top_k") return false;
  const Dim& columns = graph[node.inputs[0]].type.shape[1];
  return !columns.symbolic() && !below.symbolic() && columns.value <= below.value;
}

}  // namespace

Result<std::vector<IndexBound>> index_bounds(const ir::Graph& graph) {
  KRAIT_TRY(check_names(graph));
  std::vector<IndexBound> bounds;
  const std::vector<int> made_by = ir::producers(graph);
  for (const ir::Node& node : graph.nodes) {
    if (node.constant) continue;  // checked when it is evaluated
    if (input_index(*node.op, "starts") >= 0) {
      KRAIT_TRY(check_sequences(graph, node));
      continue;
    }
    for (std::size_t i = 0; i < node.inputs.size(); ++i) {
      const Input& want = node.op->inputs[i];
      const ir::Id id = node.inputs[i];
      if (want.role != Role::index || id == ir::kNone) continue;
      const Dim below = table_rows(graph, node, want.below);
      const int producer = made_by[static_cast<std::size_t>(id)];
      if (graph[id].kind == ir::Kind::input) {
        bounds.push_back({id, below, cat("[", node.op->name, "] ", want.name)});
      } else if (producer < 0 ||
                 !yields_positions(graph, graph.nodes[static_cast<std::size_t>(producer)], below)) {
        return unsupported("[", node.op->name, "] ", want.name,
                           ": expected an input of the graph, or positions from argmax or top_k "
                           "over at most ",
                           to_string(below), " columns");
      }
    }
  }
  return bounds;
}

Status check_bounds(const ir::Graph& graph, std::span<const IndexBound> bounds, const Sizes& sizes,
                    std::span<const void* const> values) {
  for (const IndexBound& bound : bounds) {
    const std::int64_t below = resolve(Shape{bound.below}, sizes)[0].value;
    const ir::Value& input = graph[bound.input];
    const auto* memory =
        static_cast<const std::byte*>(values[static_cast<std::size_t>(bound.input)]);
    const std::int64_t count = resolve(input.type.shape, sizes).elements();
    for (std::int64_t i = 0; i < count; ++i) {
      std::int32_t index = 0;  // an embedder's array may lie anywhere
      std::memcpy(&index, memory + i * 4, sizeof index);
      if (index >= 0 && index < below) continue;
      return invalid(bound.operand, ": ", input.name, "[", i, "]: expected 0 to ", below - 1,
                     ", got ", index);
    }
  }
  return {};
}

}  // namespace krait
