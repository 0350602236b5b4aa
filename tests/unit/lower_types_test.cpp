// lower_types: every value gets the one dtype that a device computes it in.
#include <string>

#include "tests/helpers/passes.h"

namespace krait {
namespace {

using test::expect_same_results;
using test::expect_untouched;
using test::must;
using test::reference_context;
using test::run_pass;
using test::with;

// ---------------------------------------------------------------------------------

/// What a language model's graph has: a residual stream, dt, states and logits, which are wide, and
/// activations, which a device may want narrower.
const std::string kTypedOperands = R"(graph typed {
  input tokens: i32[T]
  input starts: i32[S+1]
  input slot_in: i32[S]
  input slot_out: i32[S]
  input rows: i32[M]
  weight table: bf16[16, 8]
  weight norm: f32[8]
  weight in: bf16[8, 8]
  weight dt: bf16[8, 8]
  weight BC: bf16[4, 8]
  weight A: f32[8, 4]
  weight out: bf16[8, 8]
  state s: f32[C, 8, 4]
)";

std::string typed(const std::string& nodes) {
  return kTypedOperands + nodes + "  output logits = %13\n}\n";
}

const std::string kTyped = typed(R"(  %0: f32[T, 8] = embedding(ids: tokens, table: table)
  %1: f32[T, 8] = rms_norm(x: %0, weight: norm)
  %2: f32[T, 8] = linear(x: %1, w: in)
  %3: f32[T, 8] = linear(x: %2, w: dt)
  %4: f32[T, 8] = softplus(x: %3)
  %5: f32[T, 4] = linear(x: %2, w: BC)
  %6: f32[T, 1, 4] = split(x: %5)
  %7: f32[T, 8], %8: f32[C, 8, 4] = selective_scan(u: %2, dt: %4, A: A, B: %6, C: %6, state: s, starts: starts, slot_in: slot_in, slot_out: slot_out)
  %9: f32[T, 8] = linear(x: %7, w: out)
  %10: f32[T, 8] = add(x: %0, y: %9)
  %11: f32[M, 8] = gather_rows(x: %10, rows: rows)
  %12: f32[M, 8] = rms_norm(x: %11, weight: norm)
  %13: f32[M, 16] = linear(x: %12, w: table)
)");

TEST(LowerTypes, InFloat64EverythingButTheStatesIsFloat64) {
  const std::string after =
      typed(R"(  %0: f64[T, 8] = embedding(ids: tokens, table: table) {dtype = f64}
  %1: f64[T, 8] = rms_norm(x: %0, weight: norm)
  %2: f64[T, 8] = linear(x: %1, w: in)
  %3: f64[T, 8] = linear(x: %2, w: dt)
  %4: f64[T, 8] = softplus(x: %3)
  %5: f64[T, 4] = linear(x: %2, w: BC)
  %6: f64[T, 1, 4] = split(x: %5)
  %7: f64[T, 8], %8: f32[C, 8, 4] = selective_scan(u: %2, dt: %4, A: A, B: %6, C: %6, state: s, starts: starts, slot_in: slot_in, slot_out: slot_out)
  %9: f64[T, 8] = linear(x: %7, w: out)
  %10: f64[T, 8] = add(x: %0, y: %9)
  %11: f64[M, 8] = gather_rows(x: %10, rows: rows)
  %12: f64[M, 8] = rms_norm(x: %11, weight: norm)
  %13: f64[M, 16] = linear(x: %12, w: table)
)");
  const ir::Graph graph = run_pass("lower_types", kTyped);
  EXPECT_EQ(ir::print(graph), after);
  // The difference is what float32 rounds between the ops.
  expect_same_results(must(ir::parse(kTyped)), graph, 1e-5);
}

TEST(LowerTypes, NarrowActivationsLeaveTheResidualStreamDtAndLogitsWide) {
  ir::PassContext context = reference_context();
  context.activation = DType::bf16;
  context.wide = DType::f32;
  const std::string after = typed(R"(  %0: f32[T, 8] = embedding(ids: tokens, table: table)
  %1: bf16[T, 8] = rms_norm(x: %0, weight: norm) {dtype = bf16}
  %2: bf16[T, 8] = linear(x: %1, w: in)
  %3: f32[T, 8] = linear(x: %2, w: dt) {dtype = f32}
  %4: f32[T, 8] = softplus(x: %3)
  %5: bf16[T, 4] = linear(x: %2, w: BC)
  %6: bf16[T, 1, 4] = split(x: %5)
  %7: bf16[T, 8], %8: f32[C, 8, 4] = selective_scan(u: %2, dt: %4, A: A, B: %6, C: %6, state: s, starts: starts, slot_in: slot_in, slot_out: slot_out)
  %9: bf16[T, 8] = linear(x: %7, w: out)
  %10: f32[T, 8] = add(x: %0, y: %9)
  %11: f32[M, 8] = gather_rows(x: %10, rows: rows)
  %12: bf16[M, 8] = rms_norm(x: %11, weight: norm) {dtype = bf16}
  %13: f32[M, 16] = linear(x: %12, w: table) {dtype = f32}
)");
  EXPECT_EQ(ir::print(run_pass("lower_types", kTyped, context)), after);
}

TEST(LowerTypes, ATapIsWide) {
  ir::PassContext context = reference_context();
  context.activation = DType::bf16;
  context.wide = DType::f32;
  const std::string tapped =
      ir::print(run_pass("lower_types", with(kTyped, "tap hidden = %2"), context));
  EXPECT_NE(tapped.find("%2: f32[T, 8] = linear(x: %1, w: in) {dtype = f32}"), std::string::npos)
      << tapped;
}

TEST(LowerTypes, TypesAlreadyRightStay) {
  ir::PassContext context = reference_context();
  context.activation = DType::f32;
  context.wide = DType::f32;
  expect_untouched("lower_types", kTyped, context);
}

}  // namespace
}  // namespace krait
