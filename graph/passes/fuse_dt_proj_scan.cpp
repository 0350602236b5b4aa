// fuse_dt_proj_scan: a scan whose dt is a product of its own takes the product's operands.
#include "graph/passes/match.h"
#include "runtime/core/try.h"

namespace krait::ir {

Status fuse_dt_proj_scan(Graph& graph, const PassContext& context) {
  for (Node& scan : graph.nodes) {
    if (scan.op->name != "selective_scan") continue;
    const int n = Matcher(graph).producer(input(scan, "dt"), "linear");
    if (n < 0) continue;
    const Node& linear = graph.nodes[static_cast<std::size_t>(n)];
    if (linear.inputs[2] != kNone) continue;  // a bias of the product
    // u, dt, A, … becomes u, dt_low, dt_w, A, …
    Node fused = scan;
    fused.op = &dt_proj_scan_op;
    fused.inputs[1] = linear.inputs[0];
    fused.inputs.insert(fused.inputs.begin() + 2, linear.inputs[1]);
    if (supported(graph, fused, context)) scan = fused;
  }
  return {};
}

}  // namespace krait::ir
