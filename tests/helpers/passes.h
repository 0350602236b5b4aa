// One pass on a graph's text, and whether what comes out computes the same.
#pragma once

#include <string>
#include <utility>

#include "graph/ir.h"
#include "runtime/plan/plan.h"
#include "tests/helpers/devices.h"
#include "tests/helpers/graphs.h"
#include "tests/helpers/run_graph.h"

namespace krait::test {

inline ir::PassContext reference_context() {
  return {kernel_predicate(device("reference")), DType::f64, DType::f64};
}

inline ir::Graph run_pass(std::string_view pass_name, const std::string& before,
                          const ir::PassContext& context = reference_context()) {
  ir::Graph graph = must(ir::parse(before));
  const auto run = [&](std::span<const ir::Pass> passes, void (*tidy_up)(ir::Graph&)) {
    for (const ir::Pass& pass : passes) {
      if (pass.name != pass_name) continue;
      EXPECT_TRUE(is_ok(pass.run(graph, context)));
      tidy_up(graph);
      EXPECT_TRUE(is_ok(ir::verify(graph)));
      return true;
    }
    return false;
  };
  if (run(ir::all_passes(), ir::tidy) || run(ir::plan_passes(), ir::drop_dead_nodes)) return graph;
  ADD_FAILURE() << "there is no pass " << pass_name;
  return graph;
}

/// Two calls, the second continuing the first's states.
inline void expect_same_results(const ir::Graph& before, const ir::Graph& after, double tolerance) {
  GraphRun run_before(before, device("reference"));
  GraphRun run_after(after, device("reference"));
  for (int call = 0; call < 2; ++call) {
    const auto want = run_before({5, 0, 3}, call);
    ASSERT_FALSE(want.empty());
    EXPECT_LE(largest_difference(run_after({5, 0, 3}, call), want), tolerance);
  }
}

inline void expect_pass(std::string_view pass, const std::string& before, const std::string& after,
                        double tolerance = 1e-12) {
  const ir::Graph graph = run_pass(pass, before);
  EXPECT_EQ(ir::print(graph), after);
  expect_same_results(must(ir::parse(before)), graph, tolerance);
}

inline void expect_untouched(std::string_view pass, const std::string& before,
                             const ir::PassContext& context = reference_context()) {
  EXPECT_EQ(ir::print(run_pass(pass, before, context)), before);
}

/// `text` with `line` before its end.
inline std::string with(std::string text, const std::string& line) {
  text.insert(text.rfind('}'), "  " + line + "\n");
  return text;
}

inline ir::PassContext no_kernels() {
  return {[](const Op&, std::span<const Type* const>, const Attrs&) { return false; }, DType::f64,
          DType::f64};
}

}  // namespace krait::test
