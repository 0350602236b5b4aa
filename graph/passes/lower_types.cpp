// lower_types: every value gets the one dtype it is computed in. Wide (float32) are the residual
// stream, dt, logits and whatever an op takes in float32 only; other activations get the plan's
// activation type.
#include "graph/passes/match.h"
#include "runtime/core/try.h"

namespace krait::ir {
namespace {

/// Ops that start the residual stream.
bool starts_residual(const Op& op) {
  return op.name == "embedding";
}

/// Whether the op's output type is an attribute that this pass may set.
bool chooses_dtype(const Op& op) {
  if (op.name == "cast") return false;
  for (const AttrDef& attr : op.attrs) {
    if (attr.name == "dtype") return true;
  }
  return false;
}

/// Marks the values that must be wide: from their users backwards.
std::vector<char> wide_values(const Graph& graph) {
  std::vector<char> wide(graph.values.size());
  for (const Output& output : graph.outputs) wide[static_cast<std::size_t>(output.value)] = 1;
  for (auto node = graph.nodes.rbegin(); node != graph.nodes.rend(); ++node) {
    for (std::size_t o = 0; o < node->outputs.size(); ++o) {
      // An op that cannot choose its output's type passes the wish on to the input it follows.
      if (node->outputs[o] == kNone || !wide[static_cast<std::size_t>(node->outputs[o])]) continue;
      if (chooses_dtype(*node->op) || node->op->outputs[o].like.empty()) continue;
      const Id source =
          node->inputs[static_cast<std::size_t>(input_index(*node->op, node->op->outputs[o].like))];
      wide[static_cast<std::size_t>(source)] = 1;
    }
    for (std::size_t i = 0; i < node->inputs.size(); ++i) {
      if (node->inputs[i] != kNone && node->op->inputs[i].role == Role::wide) {
        wide[static_cast<std::size_t>(node->inputs[i])] = 1;
      }
    }
  }
  return wide;
}

}  // namespace

Status lower_types(Graph& graph, const PassContext& context) {
  const std::vector<char> wide = wide_values(graph);
  for (Node& node : graph.nodes) {
    if (!node.constant && chooses_dtype(*node.op)) {
      const bool is_wide =
          starts_residual(*node.op) || wide[static_cast<std::size_t>(node.outputs[0])];
      const DType want = is_wide ? context.wide : context.activation;
      KRAIT_TRY(set_attr(*node.op, node.attrs, "dtype", -1.0));
      KRAIT_TRY(retype(graph, node));  // the type it has without choosing
      if (graph[node.outputs[0]].type.dtype != want) {
        KRAIT_TRY(set_attr(*node.op, node.attrs, "dtype", static_cast<double>(want)));
      }
    }
    KRAIT_TRY(retype(graph, node));
  }
  return {};
}

}  // namespace krait::ir
