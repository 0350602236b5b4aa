// fuse_residual_norm: rms_norm(residual + x) becomes one op that yields the sum as well. A tap on
// the sum does not block it: the sum is still there.
#include "graph/passes/match.h"
#include "runtime/core/try.h"

namespace krait::ir {

Status fuse_residual_norm(Graph& graph, const PassContext& context) {
  for (std::size_t n = 0; n < graph.nodes.size(); ++n) {
    if (graph.nodes[n].op->name != "rms_norm") continue;
    Node fused = graph.nodes[n];
    if (input(fused, "residual") != kNone || input(fused, "gate") != kNone) continue;
    const Id sum = fused.inputs[0];
    const Matcher match(graph);
    // A weight computed from the sum would have to be there before the op that yields the sum.
    const Id weight = input(fused, "weight");
    if (weight != kNone && !match.constant(weight)) continue;
    const int add = match.producer(sum, "add", /*sole=*/false);
    if (add < 0) continue;
    const Id residual = graph.nodes[static_cast<std::size_t>(add)].inputs[0];
    const Id x = graph.nodes[static_cast<std::size_t>(add)].inputs[1];
    const Type& type = graph[residual].type;
    if (graph[x].type.shape != type.shape || (type.dtype != DType::f32 && type.dtype != DType::f64))
      continue;
    fused.inputs[0] = x;
    input(fused, "residual") = residual;
    if (!supported(graph, fused, context)) continue;
    KRAIT_TRY(set_attr(*fused.op, fused.attrs, "dtype",
                       static_cast<double>(graph[fused.outputs[0]].type.dtype)));
    if (graph[x].type.dtype == graph[fused.outputs[0]].type.dtype) {
      KRAIT_TRY(set_attr(*fused.op, fused.attrs, "dtype", -1.0));
    }
    const Id new_sum = static_cast<Id>(graph.values.size());
    graph.values.push_back({Kind::result, type, {}});
    fused.outputs[1] = new_sum;
    replace_uses(graph, sum, new_sum);
    graph.nodes[n] = fused;
  }
  return {};
}

}  // namespace krait::ir
