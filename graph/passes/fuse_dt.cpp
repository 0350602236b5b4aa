// fuse_dt: softplus(dt + bias) before a scan becomes the scan's dt_bias and dt_softplus.
#include "graph/passes/match.h"
#include "runtime/core/try.h"

namespace krait::ir {

Status fuse_dt(Graph& graph, const PassContext& context) {
  for (Node& scan : graph.nodes) {
    if (input_index(*scan.op, "dt_bias") < 0 || input(scan, "dt_bias") != kNone) continue;
    const Matcher match(graph);
    const int softplus = match.producer(input(scan, "dt"), "softplus");
    if (softplus < 0) continue;
    Node fused = scan;
    if (!set_attr(*fused.op, fused.attrs, "dt_softplus", 1.0).ok()) continue;
    input(fused, "dt") = graph.nodes[static_cast<std::size_t>(softplus)].inputs[0];
    if (const int add = match.producer(input(fused, "dt"), "add"); add >= 0) {
      const Node& sum = graph.nodes[static_cast<std::size_t>(add)];
      if (match.parameter(sum.inputs[1])) {
        input(fused, "dt") = sum.inputs[0];
        input(fused, "dt_bias") = sum.inputs[1];
      }
    }
    if (supported(graph, fused, context)) scan = fused;
  }
  return {};
}

}  // namespace krait::ir
