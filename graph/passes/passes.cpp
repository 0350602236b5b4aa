#include <algorithm>

#include "graph/ir.h"
#include "runtime/core/log.h"
#include "runtime/core/try.h"

namespace krait::ir {

#define KRAIT_PASS(name, summary) Status name(Graph& graph, const PassContext& context);
#include "graph/passes/passes.inc"
#include "graph/passes/plan_passes.inc"
#undef KRAIT_PASS

namespace {

constexpr Pass kPasses[] = {
#define KRAIT_PASS(name, summary) {#name, summary, name},
#include "graph/passes/passes.inc"
#undef KRAIT_PASS
};

constexpr Pass kPlanPasses[] = {
#define KRAIT_PASS(name, summary) {#name, summary, name},
#include "graph/passes/plan_passes.inc"
#undef KRAIT_PASS
};

/// Runs a pass, tidies with `tidy_up`, and verifies.
Status apply(const Pass& pass, Graph& graph, const PassContext& context, void (*tidy_up)(Graph&)) {
  const std::size_t before = graph.nodes.size();
  KRAIT_TRY(pass.run(graph, context));
  tidy_up(graph);
  if (Status status = verify(graph); !status.ok()) {
    return Status(Code::internal, cat("pass ", pass.name, " broke the graph: ", status.message()));
  }
  log(2, cat("pass ", pass.name, ": ", before, " -> ", graph.nodes.size(), " nodes"));
  return {};
}

}  // namespace

std::span<const Pass> all_passes() {
  return kPasses;
}
std::span<const Pass> plan_passes() {
  return kPlanPasses;
}

Result<Graph> optimise(Graph graph, const PassContext& context,
                       std::span<const std::string_view> without) {
  KRAIT_TRY(verify(graph));
  for (const Pass& pass : kPasses) {
    if (std::find(without.begin(), without.end(), pass.name) != without.end()) continue;
    KRAIT_TRY(apply(pass, graph, context, tidy));
  }
  return graph;
}

Result<Graph> specialise(Graph graph, const PassContext& context) {
  for (const Pass& pass : kPlanPasses) KRAIT_TRY(apply(pass, graph, context, drop_dead_nodes));
  return graph;
}

}  // namespace krait::ir
