// fuse_linear_residual: residual + linear(x) becomes one op, whether the sum stands alone or in the
// rms_norm after it, which then reads the sum.
#include "graph/passes/match.h"
#include "runtime/core/try.h"

namespace krait::ir {
namespace {

/// residual + the result of `linear`, as `sum`; nothing (no op) if the device has no kernel for it.
Node with_residual(const Graph& graph, const Node& linear, Id residual, Id sum,
                   const PassContext& context) {
  Node fused{&linear_residual_op,
             {linear.inputs[0], linear.inputs[1], linear.inputs[2], residual},
             {sum},
             default_attrs(linear_residual_op)};
  const DType wide = graph[residual].type.dtype;
  const bool fits = graph[residual].type == graph[sum].type &&
                    (wide == DType::f32 || wide == DType::f64) &&
                    graph[linear.outputs[0]].type.shape == graph[sum].type.shape;
  return fits && supported(graph, fused, context) ? fused : Node{};
}

Status fuse_into_norm(Graph& graph, Node& norm, const PassContext& context) {
  const Id residual = input(norm, "residual");
  if (residual == kNone || input(norm, "gate") != kNone) return {};
  const int linear = Matcher(graph).producer(norm.inputs[0], "linear");
  if (linear < 0) return {};
  Node& product = graph.nodes[static_cast<std::size_t>(linear)];
  const Node fused = with_residual(graph, product, residual, norm.outputs[1], context);
  if (!fused.op) return {};
  Node plain = norm;
  plain.inputs[0] = norm.outputs[1];
  input(plain, "residual") = kNone;
  plain.outputs[1] = kNone;
  const DType want = graph[norm.outputs[0]].type.dtype;
  const bool same = want == graph[plain.inputs[0]].type.dtype;
  KRAIT_TRY(set_attr(*plain.op, plain.attrs, "dtype", same ? -1.0 : static_cast<double>(want)));
  if (!supported(graph, plain, context)) return {};
  product = fused;
  norm = plain;
  return {};
}

void fuse_into_add(Graph& graph, Node& add, const PassContext& context) {
  const Matcher match(graph);
  for (const int side : {1, 0}) {
    const int linear = match.producer(add.inputs[static_cast<std::size_t>(side)], "linear");
    if (linear < 0) continue;
    const Node fused =
        with_residual(graph, graph.nodes[static_cast<std::size_t>(linear)],
                      add.inputs[static_cast<std::size_t>(1 - side)], add.outputs[0], context);
    if (!fused.op) continue;
    add = fused;
    return;
  }
}

}  // namespace

Status fuse_linear_residual(Graph& graph, const PassContext& context) {
  for (Node& node : graph.nodes) {
    if (node.constant) continue;
    if (node.op->name == "rms_norm") KRAIT_TRY(fuse_into_norm(graph, node, context));
    if (node.op->name == "add") fuse_into_add(graph, node, context);
  }
  return {};
}

}  // namespace krait::ir
