// fuse_conv_silu: silu right after a convolution becomes its activation.
#include "graph/passes/match.h"
#include "ops/enums.h"

namespace krait::ir {

Status fuse_conv_silu(Graph& graph, const PassContext& context) {
  for (Node& conv : graph.nodes) {
    if (conv.op->name != "causal_conv1d") continue;
    const Matcher match(graph);
    const int silu = match.sole_user(conv.outputs[0]);
    if (silu < 0 || graph.nodes[static_cast<std::size_t>(silu)].op->name != "silu") continue;
    Node fused = conv;
    if (fused.attrs[0] != 0 || !set_attr(*fused.op, fused.attrs, "activation", "silu").ok())
      continue;
    absorb(graph, conv, std::move(fused), silu, context);
  }
  return {};
}

}  // namespace krait::ir
