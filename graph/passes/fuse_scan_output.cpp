// fuse_scan_output: (y + u·D)·silu(z) after a scan becomes its skip and z.
#include "graph/passes/match.h"
#include "runtime/core/try.h"

namespace krait::ir {
namespace {

/// The operand of a binary node that is not `id`.
Id other(const Node& node, Id id) {
  return node.inputs[0] == id ? node.inputs[1] : node.inputs[0];
}

/// The sole user of the scan's y, if it is an `op`.
int user(const Graph& graph, const Matcher& match, const Node& scan, std::string_view op) {
  const int n = match.sole_user(scan.outputs[0]);
  return n >= 0 && graph.nodes[static_cast<std::size_t>(n)].op->name == op ? n : -1;
}

void fuse_skip(Graph& graph, Node& scan, const PassContext& context) {
  const Matcher match(graph);
  const int add = user(graph, match, scan, "add");
  if (add < 0 || input(scan, "skip") != kNone || input(scan, "z") != kNone) return;
  const int mul =
      match.producer(other(graph.nodes[static_cast<std::size_t>(add)], scan.outputs[0]), "mul");
  if (mul < 0) return;
  const Node& product = graph.nodes[static_cast<std::size_t>(mul)];
  if (product.inputs[0] != scan.inputs[0] || !match.parameter(product.inputs[1])) return;
  Node fused = scan;
  input(fused, "skip") = product.inputs[1];
  absorb(graph, scan, std::move(fused), add, context);
}

void fuse_gate(Graph& graph, Node& scan, const PassContext& context) {
  const Matcher match(graph);
  const int mul = user(graph, match, scan, "mul");
  if (mul < 0 || input(scan, "z") != kNone) return;
  const int silu =
      match.producer(other(graph.nodes[static_cast<std::size_t>(mul)], scan.outputs[0]), "silu");
  if (silu < 0) return;
  Node fused = scan;
  input(fused, "z") = graph.nodes[static_cast<std::size_t>(silu)].inputs[0];
  absorb(graph, scan, std::move(fused), mul, context);
}

}  // namespace

Status fuse_scan_output(Graph& graph, const PassContext& context) {
  for (Node& scan : graph.nodes) {
    if (input_index(*scan.op, "skip") < 0 || input_index(*scan.op, "z") < 0) continue;
    fuse_skip(graph, scan, context);
    fuse_gate(graph, scan, context);
  }
  return {};
}

}  // namespace krait::ir
