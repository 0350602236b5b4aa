// Building and checking graphs: the first error sticks, and verify() sees every kind of broken
// graph.
#include <functional>
#include <string>

#include "graph/ir.h"
#include "tests/helpers/graphs.h"
#include <krait/graph.h>

namespace krait {
namespace {

using test::is_error;
using test::is_ok;
using test::must;

// ---- building
// ------------------------------------------------------------------------------------

TEST(GraphBuilder, BuildsWhatItIsTold) {
  GraphBuilder builder("two layers");
  const Value x = builder.input("x", DType::f32, {dims::T, 4});
  const Value w = builder.weight("w", DType::bf16, {6, 4});
  const Value scale = builder.parameter("scale", DType::bf16, {6});
  const Value y = builder.op("linear", {{"x", x}, {"w", w}, {"bias", Value{}}});
  const Outputs normed = builder.op("rms_norm", {{"x", y}, {"weight", scale}, {"residual", y}},
                                    {{"eps", 0.5}, {"groups", 2.0}});
  builder.tap("normed", normed.first);
  builder.output("part", builder.slice(normed.second, 2, 3));
  EXPECT_EQ(must(builder.build()).print(), R"(graph "two layers" {
  input x: f32[T, 4]
  weight w: bf16[6, 4]
  weight scale: bf16[6]
  %0: f32[6] = cast(x: scale) {dtype = f32}
  %1: f32[T, 6] = linear(x: x, w: w)
  %2: f32[T, 6], %3: f32[T, 6] = rms_norm(x: %1, weight: %0, residual: %1) {eps = 0.5, groups = 2}
  %4: f32[T, 3] = slice(x: %3) {offset = 2, size = 3}
  tap normed = %2
  output part = %4
}
)");
}

TEST(GraphBuilder, AParameterInFloat32NeedsNoCast) {
  GraphBuilder builder("g");
  builder.output("y", builder.op("mul", {{"x", builder.input("x", DType::f32, {dims::T, 2})},
                                         {"y", builder.parameter("w", DType::f32, {2})}}));
  EXPECT_EQ(must(builder.build()).ir().nodes.size(), 1u);
}

TEST(GraphBuilder, TheFirstErrorSticks) {
  GraphBuilder builder("g");
  const Value x = builder.input("x", DType::f32, {dims::T, 4});
  const Value w = builder.weight("w", DType::f32, {6, 5});
  const Value y = builder.op("linear", {{"x", x}, {"w", w}});
  EXPECT_FALSE(y);
  const Value z = builder.op("silu", {{"x", y}});  // a consequence, not the cause
  EXPECT_FALSE(z);
  builder.op("no such op", {});
  builder.output("z", z);
  EXPECT_TRUE(
      is_error(builder.build(), Code::invalid_argument, "[linear] w: expected [O, 4], got [6, 5]"));
  EXPECT_TRUE(is_error(builder.build(), Code::invalid_argument, "[linear] w")) << "asked again";
}

TEST(GraphBuilder, NamesWhatIsWrong) {
  const auto refuse = [](Code code, std::string_view message,
                         const std::function<void(GraphBuilder&, Value)>& body) {
    GraphBuilder builder("g");
    body(builder, builder.input("x", DType::f32, {dims::T, 4}));
    EXPECT_TRUE(is_error(builder.build(), code, message));
  };
  const Code invalid = Code::invalid_argument;
  refuse(Code::not_found, "there is no op named conv", [](GraphBuilder& g, Value x) {
    g.op("conv", {{"x", x}});
  });
  refuse(invalid, "[silu] has no operand input", [](GraphBuilder& g, Value x) {
    g.op("silu", {{"input", x}});
  });
  refuse(invalid, "[silu] x: missing", [](GraphBuilder& g, Value) { g.op("silu", {}); });
  refuse(invalid, "[silu] x: missing", [](GraphBuilder& g, Value) {
    g.op("silu", {{"x", Value{}}});
  });
  refuse(invalid, "[silu] has no attribute beta", [](GraphBuilder& g, Value x) {
    g.op("silu", {{"x", x}}, {{"beta", 1.0}});
  });
  refuse(invalid, "[cast] dtype: expected one of", [](GraphBuilder& g, Value x) {
    g.op("cast", {{"x", x}}, {{"dtype", "f31"}});
  });
  refuse(invalid, "[slice] x: columns 3 to 5 of",
         [](GraphBuilder& g, Value x) { g.slice(x, 3, 2); });
  refuse(invalid, "[silu] x: is no value of this graph", [](GraphBuilder& g, Value) {
    g.op("silu", {{"x", Value{77}}});
  });
  refuse(invalid, "[silu] x: is no value of this graph", [](GraphBuilder& g, Value) {
    g.op("silu", {{"x", Value{-7}}});
  });
  refuse(invalid, "output y is not defined",
         [](GraphBuilder& g, Value) { g.output("y", Value{}); });
  refuse(invalid, "output y is not defined",
         [](GraphBuilder& g, Value) { g.output("y", Value{77}); });
  refuse(invalid, "two outputs are named y", [](GraphBuilder& g, Value x) {
    g.output("y", x);
    g.tap("y", x);
  });
  refuse(invalid, "x is declared twice",
         [](GraphBuilder& g, Value) { g.weight("x", DType::f32, {4}); });
  refuse(invalid, "expected a name that does not begin with %",
         [](GraphBuilder& g, Value) { g.weight("%0", DType::f32, {4}); });
  refuse(invalid, "expected a name that does not begin with %",
         [](GraphBuilder& g, Value) { g.weight("", DType::f32, {4}); });
  refuse(invalid, "state s: expected f32[C, ...], got f32[4, 4]", [](GraphBuilder& g, Value) {
    g.state("s", {4, 4});
  });
  refuse(invalid, "state s: expected f32[C, ...], got f32[C]",
         [](GraphBuilder& g, Value) { g.state("s", {dims::C}); });
}

TEST(GraphBuilder, RefusesShapesThatNothingCanHave) {
  const auto refuse = [](const Shape& shape, std::string_view message) {
    GraphBuilder builder("g");
    const Value w = builder.weight("w", DType::f32, shape);
    builder.op("neg", {{"x", w}});
    EXPECT_TRUE(is_error(builder.build(), Code::invalid_argument, message));
  };
  refuse({}, "w: expected 1 to 4 dimensions");
  refuse({1, 2, 3, 4, 5}, "w: expected 1 to 4 dimensions");
  refuse({-1}, "w: [-1]: expected extents of at least 0");
  refuse({1 << 30, 1 << 30, 1 << 30}, "expected extents of at least 0 and at most");
  refuse({std::int64_t{1} << 62, 4}, "expected extents of at least 0 and at most");
  refuse({4, dims::T}, "w: [4, T]: expected T, S, M or C as the first extent only");
  refuse({Dim('Q', 0)}, "w: [Q]: expected T, S, M or C");
  refuse({Dim('T', -1)}, "w: [T-1]: expected a symbol plus 0 to");
  refuse({Dim('T', std::int64_t{1} << 60)}, "expected a symbol plus 0 to");
}

TEST(GraphBuilder, RefusesRowsOfAWidthThatOnlyACallKnows) {
  GraphBuilder builder("g");
  const Value q = builder.input("q", DType::f32, {dims::T, 4});
  const Value k = builder.input("k", DType::f32, {dims::T, 4});
  builder.op("linear", {{"x", q}, {"w", k}});
  EXPECT_TRUE(is_error(builder.build(), Code::invalid_argument,
                       "[linear] y: [T, T]: expected T, S, M or C as the first extent only"));
}

TEST(GraphBuilder, Moves) {
  GraphBuilder first("g");
  const Value x = first.input("x", DType::f32, {dims::T, 4});
  GraphBuilder second(std::move(first));
  second.output("y", second.op("silu", {{"x", x}}));
  first = std::move(second);
  EXPECT_TRUE(is_ok(first.build()));
}

// ---- verification
// --------------------------------------------------------------------------------

/// One op that updates a state, and one after it.
const char* const kGood = R"(graph good {
  input x: f32[T, 8]
  input starts: i32[S+1]
  input slots: i32[S]
  weight w: f32[8, 4]
  state s: f32[C, 8, 3]
  const %0: f32[8, 4] = neg(x: w)
  %1: f32[T, 8], %2: f32[C, 8, 3] = causal_conv1d(x: x, w: %0, state: s, starts: starts, slot_in: slots, slot_out: slots)
  %3: f32[T, 8], %4: f32[T, 8] = rms_norm(x: %1, residual: x)
  output y = %3
}
)";

class Verify : public testing::Test {
 protected:
  Verify() : graph_(must(ir::parse(kGood))) {}

  ir::Node& node(std::string_view op) {
    for (ir::Node& node : graph_.nodes) {
      if (node.op->name == op) return node;
    }
    throw std::runtime_error("no such node");
  }
  ir::Id id(std::string_view name) {
    for (std::size_t i = 0; i < graph_.values.size(); ++i) {
      if (graph_.values[i].name == name) return static_cast<ir::Id>(i);
    }
    throw std::runtime_error("no such value");
  }
  void refuse(std::string_view message) {
    EXPECT_TRUE(is_error(ir::verify(graph_), Code::invalid_argument, message));
  }

  ir::Graph graph_;
};

TEST_F(Verify, AcceptsTheGraphThatTheOthersBreak) {
  EXPECT_TRUE(is_ok(ir::verify(graph_)));
}
TEST_F(Verify, UseBeforeDefinition) {
  std::swap(graph_.nodes[1], graph_.nodes[2]);
  refuse("graph good: [rms_norm] x is used before it is defined");
}
TEST_F(Verify, UseOfWhatDoesNotExist) {
  node("rms_norm").inputs[0] = 99;
  refuse("[rms_norm] x is used before it is defined");
  node("rms_norm").inputs[0] = -5;
  refuse("[rms_norm] x is used before it is defined");
}
TEST_F(Verify, AnOperandMissing) {
  node("rms_norm").inputs[0] = ir::kNone;
  refuse("[rms_norm] x: missing");
}
TEST_F(Verify, TooFewOperands) {
  node("rms_norm").inputs.pop_back();
  refuse("[rms_norm] has the wrong number of operands");
}
TEST_F(Verify, TooManyResults) {
  node("neg").outputs.push_back(ir::kNone);
  refuse("[neg] has the wrong number of operands");
}
TEST_F(Verify, AResultThatShouldNotBeThere) {
  node("rms_norm").inputs[2] = ir::kNone;
  refuse("[rms_norm] sum must be there exactly with residual");
}
TEST_F(Verify, AResultThatShouldBeThere) {
  node("rms_norm").outputs[1] = ir::kNone;
  refuse("[rms_norm] sum must be there exactly with residual");
}
TEST_F(Verify, AResultDefinedTwice) {
  node("rms_norm").outputs[0] = node("causal_conv1d").outputs[0];
  refuse("[rms_norm] y is defined twice");
}
TEST_F(Verify, AResultInPlaceOfAnInput) {
  node("rms_norm").outputs[0] = id("x");
  refuse("[rms_norm] y is defined twice");
}
TEST_F(Verify, AResultOutOfRange) {
  node("rms_norm").outputs[0] = 1000;
  refuse("[rms_norm] y is defined twice");
}
TEST_F(Verify, AResultOfAnotherType) {
  graph_[node("rms_norm").outputs[0]].type.dtype = DType::bf16;
  refuse("[rms_norm] y: expected f32[T, 8], got bf16[T, 8]");
}
TEST_F(Verify, AnAttributeThatDoesNotFit) {
  node("rms_norm").attrs[1] = 3;
  refuse("[rms_norm] groups: expected a divisor of D = 8, got 3");
}
TEST_F(Verify, AStateUpdatedTwice) {
  graph_.nodes.insert(graph_.nodes.begin() + 2, node("causal_conv1d"));
  graph_.values.push_back(graph_[node("causal_conv1d").outputs[0]]);
  graph_.values.push_back(graph_[node("causal_conv1d").outputs[1]]);
  const auto count = static_cast<ir::Id>(graph_.values.size());
  graph_.nodes[2].outputs = {count - 2, count - 1};
  refuse("[causal_conv1d] state: this version of the state was already updated");
}
TEST_F(Verify, AStateReadByAnotherOp) {
  node("neg").inputs[0] = id("s");
  refuse("[neg] x: expected no state; states go to the ops that update them");
}
TEST_F(Verify, ALaterVersionReadByAnotherOp) {
  graph_.values.push_back({ir::Kind::result, {DType::f32, {dims::C, 8, 3}}, {}});
  ir::Node read = node("neg");
  read.constant = false;
  read.inputs[0] = node("causal_conv1d").outputs[1];
  read.outputs[0] = static_cast<ir::Id>(graph_.values.size()) - 1;
  graph_.nodes.push_back(read);
  refuse("[neg] x: expected no state");
}
TEST_F(Verify, AWeightInPlaceOfAState) {
  graph_[id("s")].kind = ir::Kind::weight;
  refuse("[causal_conv1d] state: expected a state; states go");
}
TEST_F(Verify, AStateWithoutSlots) {
  graph_[id("s")].type.shape = {8, 3};
  refuse("state s: expected f32[C, ...], got f32[8, 3]");
}
TEST_F(Verify, AStateOfAnotherType) {
  graph_[id("s")].type.dtype = DType::f16;
  refuse("state s: expected f32[C, ...], got f16[C, 8, 3]");
}
TEST_F(Verify, AConstantThatUsesAnInput) {
  node("rms_norm").constant = true;
  refuse("[rms_norm] is constant but its operand x is not");
}
TEST_F(Verify, AConstantThatUsesACallsResult) {
  ir::Node& norm = node("rms_norm");
  norm.constant = true;
  norm.inputs[2] = ir::kNone;
  norm.outputs[1] = ir::kNone;
  refuse("[rms_norm] is constant but its operand x is not");
}
TEST_F(Verify, TwoValuesOfOneName) {
  graph_[id("w")].name = "x";
  refuse("graph good: x is declared twice");
}
TEST_F(Verify, ANamelessValue) {
  graph_[id("w")].name.clear();
  refuse("expected a name that does not begin with %, got ''");
}
TEST_F(Verify, AnOutputOfNothing) {
  graph_.outputs[0].value = ir::kNone;
  refuse("output y is not defined");
  graph_.outputs[0].value = 1000;
  refuse("output y is not defined");
}
TEST_F(Verify, TwoOutputsOfOneName) {
  graph_.outputs.push_back(graph_.outputs[0]);
  refuse("two outputs are named y");
}

// ---- helpers of passes
// ---------------------------------------------------------------------------

TEST(Graph, ProducersUsesAndReplacement) {
  ir::Graph graph = must(ir::parse(kGood));
  const std::vector<int> made_by = ir::producers(graph);
  const std::vector<int> uses = ir::use_counts(graph);
  EXPECT_EQ(made_by, (std::vector<int>{-1, -1, -1, -1, -1, 0, 1, 1, 2, 2}));
  //                                    x  starts slots w  s %0 %1 %2 %3 %4
  EXPECT_EQ(uses, (std::vector<int>{2, 1, 2, 1, 1, 1, 1, 0, 1, 0}));
  ir::replace_uses(graph, 8, 9);
  EXPECT_EQ(graph.outputs[0].value, 9);
  EXPECT_EQ(ir::use_counts(graph)[8], 0);
}

TEST(Graph, TidyDropsWhatReachesNeitherAnOutputNorAState) {
  ir::Graph graph = must(ir::parse(R"(graph g {
  input x: f32[T, 8]
  input starts: i32[S+1]
  input slots: i32[S]
  weight w: f32[8, 4]
  state s: f32[C, 8, 3]
  %0: f32[T, 8] = silu(x: x)
  %1: f32[T, 8] = exp(x: %0)
  %2: f32[T, 8] = neg(x: x)
  %3: f32[T, 8], %4: f32[C, 8, 3] = causal_conv1d(x: %0, w: w, state: s, starts: starts, slot_in: slots, slot_out: slots)
  output y = %2
}
)"));
  // Out of order, as passes leave nodes.
  std::swap(graph.nodes[0], graph.nodes[3]);
  ir::tidy(graph);
  ASSERT_TRUE(is_ok(ir::verify(graph)));
  EXPECT_EQ(ir::print(graph), R"(graph g {
  input x: f32[T, 8]
  input starts: i32[S+1]
  input slots: i32[S]
  weight w: f32[8, 4]
  state s: f32[C, 8, 3]
  %0: f32[T, 8] = silu(x: x)
  %1: f32[T, 8], %2: f32[C, 8, 3] = causal_conv1d(x: %0, w: w, state: s, starts: starts, slot_in: slots, slot_out: slots)
  %3: f32[T, 8] = neg(x: x)
  output y = %3
}
)");
}

}  // namespace
}  // namespace krait
