// fuse_norm_linear: a product whose only input is a plain normalisation reads what was normalised.
#include "graph/passes/match.h"
#include "runtime/core/try.h"

namespace krait::ir {

Status fuse_norm_linear(Graph& graph, const PassContext& context) {
  for (Node& linear : graph.nodes) {
    if (linear.op->name != "linear" || linear.constant) continue;
    const int n = Matcher(graph).producer(linear.inputs[0], "rms_norm");
    if (n < 0) continue;
    Node& norm = graph.nodes[static_cast<std::size_t>(n)];
    const double groups = norm.attrs[static_cast<std::size_t>(attr_index(*norm.op, "groups"))];
    if (input(norm, "weight") == kNone || input(norm, "residual") != kNone ||
        input(norm, "gate") != kNone || groups != 1) {
      continue;
    }
    Node fused{&norm_linear_op,
               {norm.inputs[0], input(norm, "weight"), linear.inputs[1], linear.inputs[2]},
               linear.outputs,
               default_attrs(norm_linear_op)};
    const DType want = graph[linear.outputs[0]].type.dtype;
    KRAIT_TRY(set_attr(*fused.op, fused.attrs, "eps",
                       norm.attrs[static_cast<std::size_t>(attr_index(*norm.op, "eps"))]));
    if (want != graph[norm.inputs[0]].type.dtype)
      KRAIT_TRY(set_attr(*fused.op, fused.attrs, "dtype", static_cast<double>(want)));
    if (supported(graph, fused, context)) linear = fused;
  }
  return {};
}

}  // namespace krait::ir
