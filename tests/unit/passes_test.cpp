// Every pass but lower_types: the graph before and after, equal results, and what keeps it from
// acting.
#include "tests/helpers/passes.h"

#include <regex>
#include <string>
#include <vector>

#include "tests/helpers/devices.h"

namespace krait {
namespace {

using test::expect_pass;
using test::expect_same_results;
using test::expect_untouched;
using test::is_error;
using test::is_ok;
using test::must;
using test::no_kernels;
using test::reference_context;
using test::run_pass;
using test::with;

TEST(Passes, AreListedWithSummaries) {
  for (const ir::Pass& pass : ir::all_passes()) {
    EXPECT_FALSE(pass.name.empty());
    EXPECT_FALSE(pass.summary.empty());
  }
}

// ---- fold_constants
// ------------------------------------------------------------------------------

TEST(FoldConstants, MarksWhatDependsOnWeightsAlone) {
  expect_pass("fold_constants", R"(graph g {
  input x: f64[T, 8]
  weight A_log: f64[8]
  %0: f64[8] = exp(x: A_log)
  %1: f64[8] = neg(x: %0)
  %2: f64[T, 8] = mul(x: x, y: %1)
  output y = %2
}
)",
              R"(graph g {
  input x: f64[T, 8]
  weight A_log: f64[8]
  const %0: f64[8] = exp(x: A_log)
  const %1: f64[8] = neg(x: %0)
  %2: f64[T, 8] = mul(x: x, y: %1)
  output y = %2
}
)");
}

TEST(FoldConstants, UnmarksWhatIsNone) {
  ir::Graph graph =
      must(ir::parse("graph g {\n  input x: f64[T, 8]\n  %0: f64[T, 8] = exp(x: x)\n}\n"));
  graph.nodes[0].constant = true;
  for (const ir::Pass& pass : ir::all_passes()) {
    if (pass.name == "fold_constants") {
      EXPECT_TRUE(is_ok(pass.run(graph, {})));
    }
  }
  EXPECT_FALSE(graph.nodes[0].constant);
}

// ---- fusions around the scan
// ---------------------------------------------------------------------

const std::string kScanOperands = R"(graph scan {
  input u: f64[T, 8]
  input z: f64[T, 8]
  input dt: f64[T, 8]
  input B: f64[T, 2, 4]
  input C: f64[T, 2, 4]
  input starts: i32[S+1]
  input slot_in: i32[S]
  input slot_out: i32[S]
  weight A: f64[8, 4]
  weight bias: f64[8]
  weight D: f64[8]
  state s: f32[C, 8, 4]
)";

std::string scan_graph(const std::string& rest) {
  return kScanOperands + rest + "}\n";
}

const std::string kBeforeDt = scan_graph(R"(  %0: f64[T, 8] = add(x: dt, y: bias)
  %1: f64[T, 8] = softplus(x: %0)
  %2: f64[T, 8], %3: f32[C, 8, 4] = selective_scan(u: u, dt: %1, A: A, B: B, C: C, state: s, starts: starts, slot_in: slot_in, slot_out: slot_out)
  output y = %2
)");

TEST(FuseDt, TakesBiasAndSoftplusIntoTheScan) {
  expect_pass(
      "fuse_dt", kBeforeDt,
      scan_graph(
          R"(  %0: f64[T, 8], %1: f32[C, 8, 4] = selective_scan(u: u, dt: dt, A: A, B: B, C: C, dt_bias: bias, state: s, starts: starts, slot_in: slot_in, slot_out: slot_out) {dt_softplus = 1}
  output y = %0
)"));
}

TEST(FuseDt, TakesSoftplusAlone) {
  expect_pass(
      "fuse_dt", scan_graph(R"(  %0: f64[T, 8] = softplus(x: dt)
  %1: f64[T, 8], %2: f32[C, 8, 4] = selective_scan(u: u, dt: %0, A: A, B: B, C: C, state: s, starts: starts, slot_in: slot_in, slot_out: slot_out)
  output y = %1
)"),
      scan_graph(
          R"(  %0: f64[T, 8], %1: f32[C, 8, 4] = selective_scan(u: u, dt: dt, A: A, B: B, C: C, state: s, starts: starts, slot_in: slot_in, slot_out: slot_out) {dt_softplus = 1}
  output y = %0
)"));
}

TEST(FuseDt, ATapOnTheSumLeavesTheSum) {
  expect_pass("fuse_dt", with(kBeforeDt, "tap raw = %0"),
              scan_graph(R"(  %0: f64[T, 8] = add(x: dt, y: bias)
  %1: f64[T, 8], %2: f32[C, 8, 4] = selective_scan(u: u, dt: %0, A: A, B: B, C: C, state: s, starts: starts, slot_in: slot_in, slot_out: slot_out) {dt_softplus = 1}
  output y = %1
  tap raw = %0
)"));
}

TEST(FuseDt, ATapOnDtBlocksIt) {
  expect_untouched("fuse_dt", with(kBeforeDt, "tap dt = %1"));
}

TEST(FuseDt, WithoutAKernelNothingHappens) {
  expect_untouched("fuse_dt", kBeforeDt, no_kernels());
}

/// Only what the weights determine may be a bias: it must be there before the call.
TEST(FuseDt, AComputedBiasStaysAnAddition) {
  std::string text = kBeforeDt;
  text.replace(text.find("y: bias"), 7, "y: u");
  const std::string after = ir::print(run_pass("fuse_dt", text));
  EXPECT_NE(after.find("%0: f64[T, 8] = add(x: dt, y: u)"), std::string::npos) << after;
  EXPECT_NE(after.find("dt: %0"), std::string::npos) << after;
}

const std::string kBeforeOutput = scan_graph(
    R"(  %0: f64[T, 8], %1: f32[C, 8, 4] = selective_scan(u: u, dt: dt, A: A, B: B, C: C, state: s, starts: starts, slot_in: slot_in, slot_out: slot_out) {discretisation = zoh}
  %2: f64[T, 8] = mul(x: u, y: D)
  %3: f64[T, 8] = add(x: %0, y: %2)
  %4: f64[T, 8] = silu(x: z)
  %5: f64[T, 8] = mul(x: %3, y: %4)
  output y = %5
)");

TEST(FuseScanOutput, TakesSkipAndGateIntoTheScan) {
  expect_pass(
      "fuse_scan_output", kBeforeOutput,
      scan_graph(
          R"(  %0: f64[T, 8], %1: f32[C, 8, 4] = selective_scan(u: u, dt: dt, A: A, B: B, C: C, skip: D, z: z, state: s, starts: starts, slot_in: slot_in, slot_out: slot_out) {discretisation = zoh}
  output y = %0
)"));
}

TEST(FuseScanOutput, FindsTheOperandsInEitherOrder) {
  std::string text = kBeforeOutput;
  text.replace(text.find("x: %0, y: %2"), 12, "x: %2, y: %0");
  text.replace(text.find("x: %3, y: %4"), 12, "x: %4, y: %3");
  const ir::Graph graph = run_pass("fuse_scan_output", text);
  EXPECT_EQ(graph.nodes.size(), 1u);
  expect_same_results(must(ir::parse(text)), graph, 1e-12);
}

TEST(FuseScanOutput, ATapBetweenSkipAndGateKeepsTheGateApart) {
  expect_pass(
      "fuse_scan_output", with(kBeforeOutput, "tap ungated = %3"),
      scan_graph(
          R"(  %0: f64[T, 8], %1: f32[C, 8, 4] = selective_scan(u: u, dt: dt, A: A, B: B, C: C, skip: D, state: s, starts: starts, slot_in: slot_in, slot_out: slot_out) {discretisation = zoh}
  %2: f64[T, 8] = silu(x: z)
  %3: f64[T, 8] = mul(x: %0, y: %2)
  output y = %3
  tap ungated = %0
)"));
}

TEST(FuseScanOutput, ATapOnTheScanBlocksBoth) {
  expect_untouched("fuse_scan_output", with(kBeforeOutput, "tap scanned = %0"));
}
TEST(FuseScanOutput, ATapOnTheGateBlocksTheGate) {
  const ir::Graph graph = run_pass("fuse_scan_output", with(kBeforeOutput, "tap gate = %4"));
  EXPECT_EQ(graph.nodes.size(), 3u) << ir::print(graph);  // scan with skip, silu, mul
}
TEST(FuseScanOutput, WithoutAKernelNothingHappens) {
  expect_untouched("fuse_scan_output", kBeforeOutput, no_kernels());
}
TEST(FuseScanOutput, ASkipOfSomethingElseIsNone) {
  std::string text = kBeforeOutput;
  text.replace(text.find("mul(x: u"), 8, "mul(x: z");
  const ir::Graph graph = run_pass("fuse_scan_output", text);
  EXPECT_EQ(graph.nodes.size(), 5u) << ir::print(graph);
}
/// With the skip left outside, the gate must stay behind it.
TEST(FuseScanOutput, AGateInFrontOfASkipIsNotTheSame) {
  expect_untouched(
      "fuse_scan_output",
      scan_graph(
          R"(  %0: f64[T, 8], %1: f32[C, 8, 4] = selective_scan(u: u, dt: dt, A: A, B: B, C: C, z: z, state: s, starts: starts, slot_in: slot_in, slot_out: slot_out)
  %2: f64[T, 8] = mul(x: u, y: D)
  %3: f64[T, 8] = add(x: %0, y: %2)
  output y = %3
)"));
}

// ---- fuse_conv_silu
// ------------------------------------------------------------------------------

const std::string kBeforeSilu = R"(graph conv {
  input x: f64[T, 8]
  input starts: i32[S+1]
  input slot_in: i32[S]
  input slot_out: i32[S]
  weight w: f64[8, 4]
  weight bias: f64[8]
  state s: f32[C, 8, 3]
  %0: f64[T, 8], %1: f32[C, 8, 3] = causal_conv1d(x: x, w: w, bias: bias, state: s, starts: starts, slot_in: slot_in, slot_out: slot_out)
  %2: f64[T, 8] = silu(x: %0)
  output y = %2
}
)";

TEST(FuseConvSilu, MakesSiluTheConvolutionsActivation) {
  expect_pass("fuse_conv_silu", kBeforeSilu, R"(graph conv {
  input x: f64[T, 8]
  input starts: i32[S+1]
  input slot_in: i32[S]
  input slot_out: i32[S]
  weight w: f64[8, 4]
  weight bias: f64[8]
  state s: f32[C, 8, 3]
  %0: f64[T, 8], %1: f32[C, 8, 3] = causal_conv1d(x: x, w: w, bias: bias, state: s, starts: starts, slot_in: slot_in, slot_out: slot_out) {activation = silu}
  output y = %0
}
)");
}

TEST(FuseConvSilu, ATapOnTheConvolutionBlocksIt) {
  expect_untouched("fuse_conv_silu", with(kBeforeSilu, "tap conv = %0"));
}
TEST(FuseConvSilu, WithoutAKernelNothingHappens) {
  expect_untouched("fuse_conv_silu", kBeforeSilu, no_kernels());
}
TEST(FuseConvSilu, ASecondSiluStays) {
  std::string text = with(kBeforeSilu, "output twice = %3");
  text.insert(text.find("  output y"), "  %3: f64[T, 8] = silu(x: %2)\n");
  const ir::Graph once = run_pass("fuse_conv_silu", text);
  EXPECT_EQ(once.nodes.size(), 2u);
  EXPECT_EQ(ir::print(run_pass("fuse_conv_silu", ir::print(once))), ir::print(once));
  expect_same_results(must(ir::parse(text)), once, 1e-12);
}

// ---- fuse_residual_norm
// --------------------------------------------------------------------------

const std::string kBeforeNorm = R"(graph norm {
  input stream: f64[T, 8]
  input x: f64[T, 8]
  weight w: f64[8]
  %0: f64[T, 8] = add(x: stream, y: x)
  %1: f64[T, 8] = rms_norm(x: %0, weight: w) {eps = 0.5, groups = 2}
  %2: f64[T, 8] = exp(x: %1)
  %3: f64[T, 8] = add(x: %0, y: %2)
  output y = %3
}
)";
const std::string kAfterNorm = R"(graph norm {
  input stream: f64[T, 8]
  input x: f64[T, 8]
  weight w: f64[8]
  %0: f64[T, 8], %1: f64[T, 8] = rms_norm(x: x, weight: w, residual: stream) {eps = 0.5, groups = 2}
  %2: f64[T, 8] = exp(x: %0)
  %3: f64[T, 8] = add(x: %1, y: %2)
  output y = %3
}
)";

TEST(FuseResidualNorm, MakesOneOpThatYieldsTheSumAsWell) {
  expect_pass("fuse_residual_norm", kBeforeNorm, kAfterNorm);
}
/// The sum is still there, as the op's second result.
TEST(FuseResidualNorm, ATapOnTheSumDoesNotBlockIt) {
  expect_pass("fuse_residual_norm", with(kBeforeNorm, "tap sum = %0"),
              with(kAfterNorm, "tap sum = %1"));
}
TEST(FuseResidualNorm, WithoutAKernelNothingHappens) {
  expect_untouched("fuse_residual_norm", kBeforeNorm, no_kernels());
}
TEST(FuseResidualNorm, ARowAddedToEveryTokenIsNoResidual) {
  expect_untouched("fuse_residual_norm", R"(graph norm {
  input x: f64[T, 8]
  weight row: f64[8]
  %0: f64[T, 8] = add(x: x, y: row)
  %1: f64[T, 8] = rms_norm(x: %0)
  output y = %1
}
)");
}
TEST(FuseResidualNorm, ANarrowResidualIsNone) {
  expect_untouched("fuse_residual_norm", R"(graph norm {
  input stream: bf16[T, 8]
  input x: f32[T, 8]
  %0: bf16[T, 8] = add(x: stream, y: x)
  %1: bf16[T, 8] = rms_norm(x: %0)
  output y = %1
}
)");
}
TEST(FuseResidualNorm, KeepsTheTypeOfTheNorm) {
  const ir::Graph graph = run_pass("fuse_residual_norm", R"(graph norm {
  input stream: f32[T, 8]
  input x: bf16[T, 8]
  %0: f32[T, 8] = add(x: stream, y: x)
  %1: f32[T, 8] = rms_norm(x: %0)
  output y = %1
}
)");
  EXPECT_EQ(ir::print(graph), R"(graph norm {
  input stream: f32[T, 8]
  input x: bf16[T, 8]
  %0: f32[T, 8], %1: f32[T, 8] = rms_norm(x: x, residual: stream) {dtype = f32}
  output y = %0
}
)");
}
/// The op would wait for its own result.
TEST(FuseResidualNorm, AWeightMadeFromTheSumBlocksIt) {
  expect_untouched("fuse_residual_norm", R"(graph norm {
  input stream: f64[1, 8]
  input x: f64[1, 8]
  %0: f64[1, 8] = add(x: stream, y: x)
  %1: f64[8] = merge(x: %0)
  %2: f64[1, 8] = rms_norm(x: %0, weight: %1)
  output y = %2
}
)");
}

// ---- remove_dead
// ---------------------------------------------------------------------------------

TEST(RemoveDead, DropsUnusedResultsAndWeightsButNoInput) {
  expect_pass("remove_dead", R"(graph g {
  input x: f64[T, 8]
  input unused: f64[T, 8]
  weight w: f64[8]
  weight v: f64[8]
  %0: f64[8] = exp(x: v)
  %1: f64[T, 8] = mul(x: x, y: w)
  %2: f64[T, 8] = add(x: %1, y: %0)
  output y = %1
}
)",
              R"(graph g {
  input x: f64[T, 8]
  input unused: f64[T, 8]
  weight w: f64[8]
  %0: f64[T, 8] = mul(x: x, y: w)
  output y = %0
}
)");
}

TEST(RemoveDead, AStatesUpdateIsNotDead) {
  std::string text = kBeforeSilu;
  text.erase(text.find("  %2"), text.find("  output") - text.find("  %2"));
  text.replace(text.find("= %2"), 4, "= x2");
  text.replace(text.find("output y = x2"), 13, "output y = %2");
  text.insert(text.find("  output"), "  %2: f64[T, 8] = exp(x: x)\n");
  const ir::Graph graph = run_pass("remove_dead", text);
  EXPECT_EQ(graph.nodes.size(), 2u) << ir::print(graph);
}

// ---- all together
// --------------------------------------------------------------------------------

TEST(Optimise, FusesALayerCompletely) {
  const ir::Graph before = must(ir::parse(test::kSmallSsm));
  const ir::Graph after = must(ir::optimise(before, reference_context()));
  EXPECT_EQ(ir::print(after), R"(graph small {
  input x: f32[T, 8]
  input starts: i32[S+1]
  input slot_in: i32[S]
  input slot_out: i32[S]
  input rows: i32[M]
  weight in: f32[16, 8]
  weight conv: f32[8, 4]
  weight conv_bias: f32[8]
  weight dt: f32[8, 8]
  weight dt_bias: f32[8]
  weight A_log: f32[8, 4]
  weight BC: f32[8, 8]
  weight D: f32[8]
  weight norm: f32[8]
  state conv_state: f32[C, 8, 3]
  state ssm_state: f32[C, 8, 4]
  %0: f64[T, 16] = linear(x: x, w: in) {dtype = f64}
  %1: f64[T, 8] = slice(x: %0) {size = 8}
  %2: f64[T, 8] = slice(x: %0) {offset = 8, size = 8}
  %3: f64[T, 8], %4: f32[C, 8, 3] = causal_conv1d(x: %1, w: conv, bias: conv_bias, state: conv_state, starts: starts, slot_in: slot_in, slot_out: slot_out) {activation = silu}
  %5: f64[T, 8] = linear(x: %3, w: dt)
  const %6: f32[8, 4] = exp(x: A_log)
  const %7: f32[8, 4] = neg(x: %6)
  %8: f64[T, 8] = linear(x: %3, w: BC)
  %9: f64[T, 4] = slice(x: %8) {size = 4}
  %10: f64[T, 1, 4] = split(x: %9)
  %11: f64[T, 4] = slice(x: %8) {offset = 4, size = 4}
  %12: f64[T, 1, 4] = split(x: %11)
  %13: f64[T, 8], %14: f32[C, 8, 4] = selective_scan(u: %3, dt: %5, A: %7, B: %10, C: %12, skip: D, z: %2, dt_bias: dt_bias, state: ssm_state, starts: starts, slot_in: slot_in, slot_out: slot_out) {dt_softplus = 1}
  %15: f64[T, 8], %16: f32[T, 8] = rms_norm(x: %13, weight: norm, residual: x)
  %17: f64[M, 8] = gather_rows(x: %15, rows: rows)
  output y = %17
  output all = %15
}
)");
  expect_same_results(before, after, 1e-4);  // float32 against float64
}

TEST(Optimise, EveryPassAloneAndEveryPassLeftOutGivesTheSameResults) {
  // In float64 but for the states, so that only the order of operations may differ.
  std::string text = std::regex_replace(test::kSmallSsm, std::regex("f32\\[([^C])"), "f64[$1");
  const ir::Graph base = must(ir::parse(text));
  for (const ir::Pass& pass : ir::all_passes()) {
    SCOPED_TRACE(pass.name);
    const std::string_view without[] = {pass.name};
    expect_same_results(base, must(ir::optimise(base, reference_context(), without)), 1e-12);
    std::vector<std::string_view> others;
    for (const ir::Pass& other : ir::all_passes()) {
      if (other.name != pass.name) others.push_back(other.name);
    }
    expect_same_results(base, must(ir::optimise(base, reference_context(), others)), 1e-12);
  }
}

TEST(Optimise, LeavesOutPassesByName) {
  const ir::Graph before = must(ir::parse(test::kSmallSsm));
  const std::string_view without[] = {"fuse_conv_silu", "fold_constants"};
  const std::string text = ir::print(must(ir::optimise(before, reference_context(), without)));
  EXPECT_NE(text.find("= silu("), std::string::npos);
  EXPECT_EQ(text.find("const "), std::string::npos);
  EXPECT_NE(text.find("dt_softplus = 1"), std::string::npos);
}

TEST(Optimise, WithoutAnyKernelOnlyTypesAndConstantsChange) {
  const ir::Graph before = must(ir::parse(test::kSmallSsm));
  const ir::Graph after = must(ir::optimise(before, no_kernels()));
  EXPECT_EQ(after.nodes.size(), before.nodes.size());
}

TEST(Optimise, RunningItAgainChangesNothing) {
  for (const char* name : {"mamba-1", "falcon-mamba-1"}) {
    const ir::Graph once =
        must(ir::optimise(test::golden_model(name).graph().ir(), reference_context()));
    EXPECT_EQ(ir::print(must(ir::optimise(once, reference_context()))), ir::print(once));
  }
}

TEST(Optimise, OfABrokenGraphIsItsError) {
  ir::Graph graph = must(ir::parse(test::kSmallSsm));
  graph.nodes[0].inputs[0] = 1000;
  EXPECT_TRUE(is_error(ir::optimise(graph, {}), Code::invalid_argument,
                       "[linear] x is used before it is defined"));
}

}  // namespace
}  // namespace krait
