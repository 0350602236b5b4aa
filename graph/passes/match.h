// What fusing passes share: finding producers and sole users, and changing a node only if the
// device has a kernel for what it becomes.
#pragma once

#include <vector>

#include "graph/ir.h"

namespace krait::ir {

/// A graph's producers and uses, as they were when this was made.
class Matcher {
 public:
  explicit Matcher(const Graph& graph)
      : graph_(graph), producers_(producers(graph)), uses_(use_counts(graph)) {}

  /// The node that yields `id`, if it is an `op`; −1 otherwise. `sole`: only if nothing but the
  /// asking node uses the value (outputs and taps count as uses).
  int producer(Id id, std::string_view op, bool sole = true) const {
    if (id == kNone) return -1;
    const int node = producers_[static_cast<std::size_t>(id)];
    if (node < 0 || graph_.nodes[static_cast<std::size_t>(node)].op->name != op) return -1;
    return sole && uses_[static_cast<std::size_t>(id)] != 1 ? -1 : node;
  }
  /// How often `id` is used; outputs and taps count.
  int uses(Id id) const { return uses_[static_cast<std::size_t>(id)]; }
  /// The one node that uses `id`, if nothing else does; −1 otherwise.
  int sole_user(Id id) const {
    if (id == kNone || uses_[static_cast<std::size_t>(id)] != 1) return -1;
    for (std::size_t n = 0; n < graph_.nodes.size(); ++n) {
      for (const Id input : graph_.nodes[n].inputs) {
        if (input == id) return static_cast<int>(n);
      }
    }
    return -1;
  }
  /// Whether a value is known when the weights are: a weight or the result of a constant node.
  bool constant(Id id) const {
    if (graph_[id].kind == Kind::weight) return true;
    const int node = producers_[static_cast<std::size_t>(id)];
    return node >= 0 && graph_.nodes[static_cast<std::size_t>(node)].constant;
  }
  /// Whether it is a float32 (or, on the reference, float64) vector of constants.
  bool parameter(Id id) const {
    const Type& type = graph_[id].type;
    return type.shape.rank() == 1 && (type.dtype == DType::f32 || type.dtype == DType::f64) &&
           constant(id);
  }

 private:
  const Graph& graph_;
  std::vector<int> producers_;
  std::vector<int> uses_;
};

/// Whether the node as it is makes sense and the device has a kernel for it.
inline bool supported(const Graph& graph, const Node& node, const PassContext& context) {
  std::array<const Type*, kMaxInputs> types{};
  for (std::size_t i = 0; i < node.inputs.size(); ++i) {
    if (node.inputs[i] != kNone) types[i] = &graph[node.inputs[i]].type;
  }
  return infer(*node.op, types, node.attrs).ok() &&
         (!context.has_kernel || context.has_kernel(*node.op, types, node.attrs));
}

/// `node` becomes `fused`, and its first output takes the place of the result of node `last`, which
/// is left without operands for tidy() to drop. Nothing happens where the fused node is not
/// supported or would yield another type.
inline void absorb(Graph& graph, Node& node, Node fused, int last, const PassContext& context) {
  Node& dead = graph.nodes[static_cast<std::size_t>(last)];
  if (graph[dead.outputs[0]].type != graph[node.outputs[0]].type) return;
  if (!supported(graph, fused, context)) return;
  dead.inputs.assign(dead.inputs.size(), kNone);
  node = std::move(fused);
  replace_uses(graph, dead.outputs[0], node.outputs[0]);
}

inline Id& input(Node& node, std::string_view name) {
  return node.inputs[static_cast<std::size_t>(input_index(*node.op, name))];
}
inline double attr(const Node& node, std::string_view name) {
  return node.attrs[static_cast<std::size_t>(attr_index(*node.op, name))];
}

}  // namespace krait::ir
