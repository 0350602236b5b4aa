// The passes of a plan: the graph before and after, equal results, values that keep their numbers,
// and what keeps a pass from acting.
#include <string>

#include "tests/helpers/passes.h"

namespace krait {
namespace {

using test::expect_untouched;
using test::must;
using test::no_kernels;
using test::run_pass;
using test::with;

/// `before` becomes `after`, and computes the same as it does with `tap`, which blocks the pass:
/// plans run these passes themselves, so that `before` alone would be compared with itself.
void expect_plan_pass(std::string_view pass, const std::string& before, const std::string& after,
                      const std::string& tap) {
  const ir::Graph graph = run_pass(pass, before);
  EXPECT_EQ(ir::print(graph), after);
  const ir::Graph original = must(ir::parse(before));
  EXPECT_EQ(graph.values.size(), original.values.size());
  ASSERT_EQ(graph.outputs.size(), original.outputs.size());
  for (std::size_t o = 0; o < graph.outputs.size(); ++o)
    EXPECT_EQ(graph.outputs[o].value, original.outputs[o].value);
  expect_untouched(pass, with(before, tap));
  test::GraphRun fused(graph, test::device("reference"));
  test::GraphRun apart(must(ir::parse(with(before, tap))), test::device("reference"));
  for (int call = 0; call < 2; ++call) {  // the second continues the first's states
    const auto want = fused({5, 0, 3}, call);
    ASSERT_FALSE(want.empty());
    EXPECT_LE(test::largest_difference(apart({5, 0, 3}, call), want), 1e-12);
  }
}

/// `text` with `from` replaced by `to`, once.
std::string changed(std::string text, const std::string& from, const std::string& to) {
  const std::size_t at = text.find(from);
  EXPECT_NE(at, std::string::npos) << from;
  return at == std::string::npos ? text : text.replace(at, from.size(), to);
}

TEST(PlanPasses, AreListedWithSummaries) {
  EXPECT_EQ(ir::plan_passes().size(), 5u);
  for (const ir::Pass& pass : ir::plan_passes()) {
    EXPECT_FALSE(pass.name.empty());
    EXPECT_FALSE(pass.summary.empty());
  }
}

// ---- fuse_linear_residual
// ------------------------------------------------------------------------

const std::string kProduct = R"(graph g {
  input x: f64[T, 8]
  input r: f64[T, 6]
  input g: f64[T, 6]
  weight w: f32[6, 8]
  weight b: f64[6]
  weight n: f64[6]
)";

const std::string kSum = kProduct + R"(  %0: f64[T, 6] = linear(x: x, w: w, bias: b)
  %1: f64[T, 6] = add(x: r, y: %0)
  output y = %1
}
)";

TEST(FuseLinearResidual, TakesTheAddition) {
  const std::string after =
      kProduct + R"(  %0: f64[T, 6] = linear_residual(x: x, w: w, bias: b, residual: r)
  output y = %0
}
)";
  expect_plan_pass("fuse_linear_residual", kSum, after, "tap product = %0");
  expect_plan_pass("fuse_linear_residual", changed(kSum, "x: r, y: %0", "x: %0, y: r"), after,
                   "tap product = %0");
}

const std::string kNorm = kProduct + R"(  %0: f64[T, 6] = linear(x: x, w: w)
  %1: f64[T, 6], %2: f64[T, 6] = rms_norm(x: %0, weight: n, residual: r) {eps = 0.25}
  output y = %1
  output sum = %2
}
)";

TEST(FuseLinearResidual, TakesTheAdditionOutOfTheNormAfterIt) {
  expect_plan_pass("fuse_linear_residual", kNorm,
                   kProduct + R"(  %0: f64[T, 6] = linear_residual(x: x, w: w, residual: r)
  %1: f64[T, 6] = rms_norm(x: %0, weight: n) {eps = 0.25}
  output y = %1
  output sum = %0
}
)",
                   "tap product = %0");
}

TEST(FuseLinearResidual, ANormWithAGateKeepsItsAddition) {
  expect_untouched("fuse_linear_residual",
                   changed(kNorm, "weight: n, residual: r", "weight: n, residual: r, gate: g"));
}

TEST(FuseLinearResidual, AVectorIsNoResidual) {
  expect_untouched("fuse_linear_residual", changed(kSum, "x: r, y: %0", "x: %0, y: n"));
}

TEST(FuseLinearResidual, AProductUsedTwiceStays) {
  expect_untouched("fuse_linear_residual", changed(kSum, "x: r, y: %0", "x: %0, y: %0"));
}

TEST(FuseLinearResidual, WithoutAKernelNothingHappens) {
  expect_untouched("fuse_linear_residual", kSum, no_kernels());
  expect_untouched("fuse_linear_residual", kNorm, no_kernels());
}

// ---- fuse_norm_linear
// ----------------------------------------------------------------------------

const std::string kNormOperands = R"(graph g {
  input x: f64[T, 8]
  input r: f64[T, 8]
  weight n: f64[8]
  weight w: f32[6, 8]
  weight b: f64[6]
)";

const std::string kNormed =
    kNormOperands + R"(  %0: f64[T, 8] = rms_norm(x: x, weight: n) {eps = 0.25}
  %1: f64[T, 6] = linear(x: %0, w: w, bias: b)
  output y = %1
}
)";

TEST(FuseNormLinear, ReadsWhatWasNormalised) {
  expect_plan_pass(
      "fuse_norm_linear", kNormed,
      kNormOperands +
          R"(  %0: f64[T, 6] = norm_linear(x: x, norm_weight: n, w: w, bias: b) {eps = 0.25}
  output y = %0
}
)",
      "tap normed = %0");
}

TEST(FuseNormLinear, OnlyAPlainNorm) {
  for (const char* operands : {"x: x, weight: n, gate: r", "x: x"})
    expect_untouched("fuse_norm_linear", changed(kNormed, "x: x, weight: n", operands));
  expect_untouched("fuse_norm_linear", changed(kNormed, "eps = 0.25", "eps = 0.25, groups = 2"));
  expect_untouched(
      "fuse_norm_linear",
      kNormOperands +
          R"(  %0: f64[T, 8], %1: f64[T, 8] = rms_norm(x: x, weight: n, residual: r) {eps = 0.25}
  %2: f64[T, 6] = linear(x: %0, w: w, bias: b)
  output y = %2
}
)");
}

TEST(FuseNormLinear, ANormUsedTwiceStays) {
  expect_untouched("fuse_norm_linear", with(kNormed, "output normed = %0"));
}

TEST(FuseNormLinear, WithoutAKernelNothingHappens) {
  expect_untouched("fuse_norm_linear", kNormed, no_kernels());
}

// ---- fuse_in_proj_conv1d
// -------------------------------------------------------------------------

const std::string kConvOperands = R"(graph g {
  input x: f64[T, 6]
  input starts: i32[S+1]
  input slot_in: i32[S]
  input slot_out: i32[S]
  weight n: f64[6]
  weight w: f32[16, 6]
  weight c: f64[8, 4]
  weight cb: f64[8]
  state s: f32[C, 8, 3]
)";

const std::string kConv =
    kConvOperands + R"(  %0: f64[T, 16] = norm_linear(x: x, norm_weight: n, w: w) {eps = 0.25}
  %1: f64[T, 8] = slice(x: %0) {size = 8}
  %2: f64[T, 8] = slice(x: %0) {offset = 8, size = 8}
  %3: f64[T, 8], %4: f32[C, 8, 3] = causal_conv1d(x: %1, w: c, bias: cb, state: s, starts: starts, slot_in: slot_in, slot_out: slot_out) {activation = silu}
  %5: f64[T, 8] = mul(x: %3, y: %2)
  output y = %5
}
)";

TEST(FuseInProjConv1d, ConvolvesTheFirstColumns) {
  expect_plan_pass(
      "fuse_in_proj_conv1d", kConv,
      kConvOperands +
          R"(  %0: f64[T, 16], %1: f32[C, 8, 3] = in_proj_conv1d(x: x, norm_weight: n, w: w, conv_w: c, conv_bias: cb, state: s, starts: starts, slot_in: slot_in, slot_out: slot_out) {eps = 0.25, activation = silu}
  %2: f64[T, 8] = slice(x: %0) {size = 8}
  %3: f64[T, 8] = slice(x: %0) {offset = 8, size = 8}
  %4: f64[T, 8] = mul(x: %2, y: %3)
  output y = %4
}
)",
      "tap xz = %0");
}

TEST(FuseInProjConv1d, WhatSeesTheColumnsBeforeTheConvolutionBlocksIt) {
  expect_untouched("fuse_in_proj_conv1d", with(kConv, "tap x = %1"));
  // The convolution's input has another user; another slice overlaps; somebody takes all columns.
  const auto with_user = [](const std::string& type, const std::string& of) {
    return with(
        changed(kConv, "  output y", "  %6: " + type + " = silu(x: " + of + ")\n  output y"),
        "output more = %6");
  };
  expect_untouched("fuse_in_proj_conv1d", with_user("f64[T, 8]", "%1"));
  expect_untouched("fuse_in_proj_conv1d", with_user("f64[T, 16]", "%0"));
  expect_untouched("fuse_in_proj_conv1d", changed(kConv, "offset = 8", "offset = 4"));
  EXPECT_NE(
      ir::print(run_pass("fuse_in_proj_conv1d", with_user("f64[T, 8]", "%2"))).find("in_proj"),
      std::string::npos)
      << "those behind are free";
}

TEST(FuseInProjConv1d, OtherColumnsThanTheFirstStay) {
  expect_untouched("fuse_in_proj_conv1d", changed(changed(kConv, "x: %1, w: c", "x: %2, w: c"),
                                                  "mul(x: %3, y: %2)", "mul(x: %3, y: %1)"));
}

TEST(FuseInProjConv1d, AResultThatAnOutputNamesStays) {
  expect_untouched("fuse_in_proj_conv1d", with(kConv, "output convolved = %3"));
}

TEST(FuseInProjConv1d, WithoutAKernelNothingHappens) {
  expect_untouched("fuse_in_proj_conv1d", kConv, no_kernels());
}

// ---- fuse_dt_proj_scan
// ---------------------------------------------------------------------------

const std::string kScanOperands = R"(graph g {
  input u: f64[T, 8]
  input z: f64[T, 8]
  input low: f64[T, 3]
  input B: f64[T, 2, 4]
  input C: f64[T, 2, 4]
  input starts: i32[S+1]
  input slot_in: i32[S]
  input slot_out: i32[S]
  weight w: f32[8, 3]
  weight A: f64[8, 4]
  weight bias: f64[8]
  weight D: f64[8]
  state s: f32[C, 8, 4]
)";

const std::string kScan = kScanOperands + R"(  %0: f64[T, 8] = linear(x: low, w: w)
  %1: f64[T, 8], %2: f32[C, 8, 4] = selective_scan(u: u, dt: %0, A: A, B: B, C: C, skip: D, z: z, dt_bias: bias, state: s, starts: starts, slot_in: slot_in, slot_out: slot_out) {dt_softplus = 1}
  output y = %1
}
)";

TEST(FuseDtProjScan, TakesTheProductsOperands) {
  expect_plan_pass(
      "fuse_dt_proj_scan", kScan,
      kScanOperands +
          R"(  %0: f64[T, 8], %1: f32[C, 8, 4] = dt_proj_scan(u: u, dt_low: low, dt_w: w, A: A, B: B, C: C, skip: D, z: z, dt_bias: bias, state: s, starts: starts, slot_in: slot_in, slot_out: slot_out) {dt_softplus = 1}
  output y = %0
}
)",
      "tap dt = %0");
}

TEST(FuseDtProjScan, AProductWithABiasStays) {
  expect_untouched("fuse_dt_proj_scan", changed(kScan, "x: low, w: w", "x: low, w: w, bias: bias"));
}

TEST(FuseDtProjScan, AProductUsedTwiceStays) {
  expect_untouched("fuse_dt_proj_scan", changed(kScan, "z: z", "z: %0"));
}

TEST(FuseDtProjScan, WithoutAKernelNothingHappens) {
  expect_untouched("fuse_dt_proj_scan", kScan, no_kernels());
}

// ---- fuse_x_proj_scan
// ----------------------------------------------------------------------------

const std::string kXProjOperands = R"(graph g {
  input u: f64[T, 8]
  input z: f64[T, 8]
  input starts: i32[S+1]
  input slot_in: i32[S]
  input slot_out: i32[S]
  weight p: f32[19, 8]
  weight w: f32[8, 3]
  weight A: f64[8, 4]
  weight bias: f64[8]
  weight xb: f64[19]
  weight D: f64[8]
  state s: f32[C, 8, 4]
)";

const std::string kXProj = kXProjOperands + R"(  %0: f64[T, 19] = linear(x: u, w: p)
  %1: f64[T, 3] = slice(x: %0) {size = 3}
  %2: f64[T, 8] = slice(x: %0) {offset = 3, size = 8}
  %3: f64[T, 8] = slice(x: %0) {offset = 11, size = 8}
  %4: f64[T, 2, 4] = split(x: %2) {parts = 2}
  %5: f64[T, 2, 4] = split(x: %3) {parts = 2}
  %6: f64[T, 8], %7: f32[C, 8, 4] = dt_proj_scan(u: u, dt_low: %1, dt_w: w, A: A, B: %4, C: %5, skip: D, z: z, dt_bias: bias, state: s, starts: starts, slot_in: slot_in, slot_out: slot_out) {dt_softplus = 1, discretisation = zoh}
  output y = %6
}
)";

TEST(FuseXProjScan, TakesTheProjectionsWeights) {
  expect_plan_pass(
      "fuse_x_proj_scan", kXProj,
      kXProjOperands +
          R"(  %0: f64[T, 8], %1: f32[C, 8, 4] = x_proj_scan(u: u, x_w: p, dt_w: w, A: A, skip: D, z: z, dt_bias: bias, state: s, starts: starts, slot_in: slot_in, slot_out: slot_out) {dt_softplus = 1, discretisation = zoh, groups = 2}
  output y = %0
}
)",
      "tap columns = %0");
}

TEST(FuseXProjScan, OnlyColumnsOfOneProductInTheirOrder) {
  expect_untouched("fuse_x_proj_scan", changed(kXProj, "offset = 3,", "offset = 4,"));
  expect_untouched("fuse_x_proj_scan",
                   changed(changed(kXProj, "split(x: %2)", "split(x: %3)"),
                           "%5: f64[T, 2, 4] = split(x: %3)", "%5: f64[T, 2, 4] = split(x: %2)"));
}

TEST(FuseXProjScan, OnlyAProductOfTheScansOwnInputs) {
  expect_untouched("fuse_x_proj_scan", changed(kXProj, "linear(x: u", "linear(x: z"));
  expect_untouched("fuse_x_proj_scan", changed(kXProj, "w: p)", "w: p, bias: xb)"));
}

TEST(FuseXProjScan, ColumnsUsedElsewhereStay) {
  expect_untouched("fuse_x_proj_scan", with(kXProj, "output B = %4"));
  expect_untouched("fuse_x_proj_scan", with(kXProj, "output low = %1"));
}

TEST(FuseXProjScan, WithoutAKernelNothingHappens) {
  expect_untouched("fuse_x_proj_scan", kXProj, no_kernels());
}

// ---- all of them
// ---------------------------------------------------------------------------------

/// What a decoding step of a layer becomes where a device has every kernel.
TEST(Specialise, RunsThemInOrder) {
  const ir::Graph graph = must(ir::specialise(must(ir::parse(R"(graph g {
  input x: f64[T, 6]
  input r: f64[T, 6]
  input starts: i32[S+1]
  input slot_in: i32[S]
  input slot_out: i32[S]
  weight o: f32[6, 6]
  weight n: f64[6]
  weight w: f32[16, 6]
  weight c: f64[8, 4]
  state s: f32[C, 8, 3]
  %0: f64[T, 6] = linear(x: x, w: o)
  %1: f64[T, 6], %2: f64[T, 6] = rms_norm(x: %0, weight: n, residual: r)
  %3: f64[T, 16] = linear(x: %1, w: w)
  %4: f64[T, 8] = slice(x: %3) {size = 8}
  %5: f64[T, 8] = slice(x: %3) {offset = 8, size = 8}
  %6: f64[T, 8], %7: f32[C, 8, 3] = causal_conv1d(x: %4, w: c, state: s, starts: starts, slot_in: slot_in, slot_out: slot_out)
  %8: f64[T, 8] = mul(x: %6, y: %5)
  output y = %8
  output r = %2
}
)")),
                                              test::reference_context()));
  std::string ops;
  for (const ir::Node& node : graph.nodes) ops += std::string(node.op->name) + " ";
  EXPECT_EQ(ops, "linear_residual in_proj_conv1d slice slice mul ");
}

}  // namespace
}  // namespace krait
