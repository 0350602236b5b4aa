// fuse_x_proj_scan: a dt_proj_scan whose dt_low, B and C are the columns of one product of its own
// inputs takes that product's weights.
#include "graph/passes/match.h"
#include "runtime/core/try.h"

namespace krait::ir {
namespace {

/// The product that `id` is `size` columns of, from `offset` on; kNone if it is none.
Id columns_of(const Graph& graph, const Matcher& match, Id id, std::int64_t offset,
              std::int64_t size) {
  const int n = match.producer(id, "slice");
  if (n < 0) return kNone;
  const Node& slice = graph.nodes[static_cast<std::size_t>(n)];
  const bool same = attr(slice, "offset") == static_cast<double>(offset) &&
                    attr(slice, "size") == static_cast<double>(size);
  return same ? slice.inputs[0] : kNone;
}

/// The same for [T, G, N] made of G·N columns.
Id grouped_columns_of(const Graph& graph, const Matcher& match, Id id, std::int64_t offset,
                      std::int64_t size) {
  const int n = match.producer(id, "split");
  if (n < 0) return kNone;
  return columns_of(graph, match, graph.nodes[static_cast<std::size_t>(n)].inputs[0], offset, size);
}

}  // namespace

Status fuse_x_proj_scan(Graph& graph, const PassContext& context) {
  for (Node& scan : graph.nodes) {
    if (scan.op->name != "dt_proj_scan") continue;
    const Matcher match(graph);
    const std::int64_t rank = graph[input(scan, "dt_w")].type.shape[1].value;
    const Shape& B = graph[input(scan, "B")].type.shape;
    const std::int64_t size = B[1].value * B[2].value;
    const Id columns = columns_of(graph, match, input(scan, "dt_low"), 0, rank);
    if (columns == kNone ||
        grouped_columns_of(graph, match, input(scan, "B"), rank, size) != columns ||
        grouped_columns_of(graph, match, input(scan, "C"), rank + size, size) != columns) {
      continue;
    }
    const int n = match.producer(columns, "linear", /*sole=*/false);
    if (n < 0 || match.uses(columns) != 3) continue;
    const Node& linear = graph.nodes[static_cast<std::size_t>(n)];
    if (linear.inputs[2] != kNone || linear.inputs[0] != input(scan, "u")) continue;
    Node fused{&x_proj_scan_op, {}, scan.outputs, default_attrs(x_proj_scan_op)};
    for (const Input& operand : x_proj_scan_op.inputs) {
      fused.inputs.push_back(operand.name == "x_w" ? linear.inputs[1] : input(scan, operand.name));
    }
    for (const std::string_view name : {"dt_softplus", "discretisation"})
      KRAIT_TRY(set_attr(*fused.op, fused.attrs, name, attr(scan, name)));
    KRAIT_TRY(set_attr(*fused.op, fused.attrs, "groups", static_cast<double>(B[1].value)));
    if (supported(graph, fused, context)) scan = fused;
  }
  return {};
}

}  // namespace krait::ir
