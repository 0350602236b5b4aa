// fuse_in_proj_conv1d: the convolution of the first D columns of a norm_linear becomes part of it.
// The columns keep their place, so that the slices that looked at the projection now see the
// convolved columns and the others.
#include <algorithm>

#include "graph/passes/match.h"
#include "runtime/core/try.h"

namespace krait::ir {
namespace {

/// Whether every use of `xz` is a slice: one of the first `columns`, which yields `x`, and others
/// of what comes behind.
bool only_slices(const Graph& graph, Id xz, Id x, std::int64_t columns) {
  for (const Output& output : graph.outputs) {
    if (output.value == xz || output.value == x) return false;
  }
  for (const Node& node : graph.nodes) {
    if (std::find(node.inputs.begin(), node.inputs.end(), xz) == node.inputs.end()) continue;
    if (node.op->name != "slice") return false;
    if (node.outputs[0] != x && attr(node, "offset") < static_cast<double>(columns)) return false;
  }
  return true;
}

}  // namespace

Status fuse_in_proj_conv1d(Graph& graph, const PassContext& context) {
  for (std::size_t n = 0; n < graph.nodes.size(); ++n) {
    const Node conv = graph.nodes[n];
    if (conv.op->name != "causal_conv1d") continue;
    const Matcher match(graph);
    const Id x = conv.inputs[0];
    const int slice = match.producer(x, "slice");
    if (slice < 0) continue;
    const Node& columns = graph.nodes[static_cast<std::size_t>(slice)];
    const Id xz = columns.inputs[0];
    const int projection = match.producer(xz, "norm_linear", /*sole=*/false);
    if (projection < 0 || attr(columns, "offset") != 0 ||
        !only_slices(graph, xz, x, graph[x].type.shape[1].value)) {
      continue;
    }
    const bool named = std::any_of(graph.outputs.begin(), graph.outputs.end(),
                                   [&](const Output& o) { return o.value == conv.outputs[0]; });
    if (named) continue;
    Node& linear = graph.nodes[static_cast<std::size_t>(projection)];
    Node fused{
        &in_proj_conv1d_op, linear.inputs, {xz, conv.outputs[1]}, default_attrs(in_proj_conv1d_op)};
    fused.inputs.insert(fused.inputs.end(), conv.inputs.begin() + 1, conv.inputs.end());
    KRAIT_TRY(set_attr(*fused.op, fused.attrs, "eps", attr(linear, "eps")));
    KRAIT_TRY(set_attr(*fused.op, fused.attrs, "dtype", attr(linear, "dtype")));
    KRAIT_TRY(set_attr(*fused.op, fused.attrs, "activation", attr(conv, "activation")));
    if (!supported(graph, fused, context)) continue;
    linear = fused;
    graph.nodes.erase(graph.nodes.begin() + static_cast<std::ptrdiff_t>(n));
    replace_uses(graph, conv.outputs[0], x);
    drop_dead_nodes(graph);  // the projection may now stand before the state that it takes
    n = static_cast<std::size_t>(-1);
  }
  return {};
}

}  // namespace krait::ir
