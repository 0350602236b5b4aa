// fold_constants: A = −exp(A_log) and the like depend on weights alone; such nodes are marked
// constant and computed once, when the weights are packed. The node stays as the recipe.
#include "graph/passes/match.h"

namespace krait::ir {

Status fold_constants(Graph& graph, const PassContext&) {
  std::vector<char> constant(graph.values.size());
  for (std::size_t id = 0; id < graph.values.size(); ++id) {
    constant[id] = static_cast<char>(graph.values[id].kind == Kind::weight);
  }
  for (Node& node : graph.nodes) {
    node.constant = true;
    for (const Id id : node.inputs) {
      if (id != kNone && !constant[static_cast<std::size_t>(id)]) node.constant = false;
    }
    for (const Id id : node.outputs) {
      if (id != kNone) constant[static_cast<std::size_t>(id)] = static_cast<char>(node.constant);
    }
  }
  return {};
}

}  // namespace krait::ir
