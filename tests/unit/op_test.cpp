// Op definitions: shape rules and their messages, attributes, symbolic shapes, views, costs.
#include "ops/op.h"

#include <algorithm>
#include <set>
#include <vector>

#include "ops/case.h"
#include "tests/helpers/graphs.h"

namespace krait {
namespace {

using test::infer_text;
using test::is_error;
using test::is_ok;
using test::must;

TEST(Ops, AreCompleteDefinitions) {
  std::set<std::string_view> names;
  for (const Op* op : all_ops()) {
    SCOPED_TRACE(op->name);
    EXPECT_TRUE(names.insert(op->name).second);
    EXPECT_EQ(find_op(op->name), op);
    EXPECT_FALSE(op->summary.empty());
    EXPECT_LE(op->inputs.size(), std::size_t{kMaxInputs});
    EXPECT_LE(op->outputs.size(), std::size_t{kMaxOutputs});
    EXPECT_LE(op->attrs.size(), std::size_t{kMaxAttrs});
    EXPECT_EQ(op->view == nullptr, op->reference != nullptr);
    EXPECT_EQ(op->view == nullptr, op->cases != nullptr);
    for (const Output& output : op->outputs) {
      if (!output.like.empty()) {
        EXPECT_GE(input_index(*op, output.like), 0) << output.name;
      }
    }
  }
  EXPECT_EQ(find_op("sofplus"), nullptr);
}

TEST(Ops, OfCasesHaveNamesOfTheirOwn) {
  for (const Op* op : all_ops()) {
    if (!op->cases) continue;
    std::set<std::string> names;
    for (const Case& c : op->cases()) {
      EXPECT_TRUE(names.insert(c.name).second) << op->name << " " << c.name;
    }
  }
}

TEST(Ops, ShapesFollowFromTheOperandsWithSymbolsKept) {
  EXPECT_EQ(must(infer_text("embedding", {{"ids", "i32[T]"}, {"table", "bf16[100, 8]"}})),
            "f32[T, 8]");
  EXPECT_EQ(must(infer_text("linear", {{"x", "f16[T, 8]"}, {"w", "bf16[5, 8]"}})), "f16[T, 5]");
  EXPECT_EQ(must(infer_text("linear", {{"x", "f32[M, 8]"}, {"w", "f32[5, 8]"}})), "f32[M, 5]");
  EXPECT_EQ(must(infer_text("gather_rows", {{"x", "f32[T, 8]"}, {"rows", "i32[M]"}})), "f32[M, 8]");
  EXPECT_EQ(must(infer_text("rms_norm", {{"x", "f16[T, 8]"}})), "f16[T, 8], -");
  EXPECT_EQ(must(infer_text("rms_norm", {{"x", "f16[T, 8]"}, {"residual", "f32[T, 8]"}})),
            "f16[T, 8], f32[T, 8]");
  EXPECT_EQ(must(infer_text("argmax", {{"x", "f32[M, 100]"}})), "i32[M]");
  EXPECT_EQ(must(infer_text("top_k", {{"x", "f32[M, 100]"}}, {{"k", 7}})), "f32[M, 7], i32[M, 7]");
  EXPECT_EQ(must(infer_text("add", {{"x", "f32[T, 8]"}, {"y", "f32[8]"}})), "f32[T, 8]");
  EXPECT_EQ(must(infer_text("exp", {{"x", "f32[3, 4, 5, 6]"}})), "f32[3, 4, 5, 6]");
  EXPECT_EQ(must(infer_text("cast", {{"x", "bf16[3]"}}, {{"dtype", double(DType::f32)}})),
            "f32[3]");
  EXPECT_EQ(must(infer_text("causal_conv1d", {{"x", "f32[T, 8]"},
                                              {"w", "f32[8, 4]"},
                                              {"state", "f32[C, 8, 3]"},
                                              {"starts", "i32[S+1]"},
                                              {"slot_in", "i32[S]"},
                                              {"slot_out", "i32[S]"}})),
            "f32[T, 8], f32[C, 8, 3]");
  EXPECT_EQ(must(infer_text("selective_scan", {{"u", "f32[T, 8]"},
                                               {"dt", "f32[T, 8]"},
                                               {"A", "f32[8, 4]"},
                                               {"B", "f32[T, 2, 4]"},
                                               {"C", "f32[T, 2, 4]"},
                                               {"state", "f32[C, 8, 4]"},
                                               {"starts", "i32[S+1]"},
                                               {"slot_in", "i32[S]"},
                                               {"slot_out", "i32[S]"}})),
            "f32[T, 8], f32[C, 8, 4]");
}

TEST(Ops, RefusalsNameTheTensorAndBothShapes) {
  const auto refuse = [](std::string_view message, const Result<std::string>& got) {
    EXPECT_TRUE(is_error(got, Code::invalid_argument, message));
  };
  refuse("[add] y: expected [T, 8] or [8], got [T, 7]",
         infer_text("add", {{"x", "f32[T, 8]"}, {"y", "f32[T, 7]"}}));
  refuse("[add] y: expected [T, 8] or [8], got [M, 8]",
         infer_text("add", {{"x", "f32[T, 8]"}, {"y", "f32[M, 8]"}}));
  refuse("[add] y: missing", infer_text("add", {{"x", "f32[T, 8]"}}));
  refuse("[add] x: expected a floating-point type, got i32",
         infer_text("add", {{"x", "i32[T, 8]"}, {"y", "f32[8]"}}));
  refuse("[linear] w: expected [O, 8], got [5, 9]",
         infer_text("linear", {{"x", "f32[T, 8]"}, {"w", "f32[5, 9]"}}));
  refuse("[linear] bias: expected [5], got [6]",
         infer_text("linear", {{"x", "f32[T, 8]"}, {"w", "f32[5, 8]"}, {"bias", "f32[6]"}}));
  refuse("[linear] bias: expected f32, got bf16",
         infer_text("linear", {{"x", "f32[T, 8]"}, {"w", "f32[5, 8]"}, {"bias", "bf16[5]"}}));
  refuse("[linear] x: expected [T, I], got [8]",
         infer_text("linear", {{"x", "f32[8]"}, {"w", "f32[5, 8]"}}));
  refuse("[embedding] ids: expected i32, got i64",
         infer_text("embedding", {{"ids", "i64[T]"}, {"table", "f32[5, 8]"}}));
  refuse("[rms_norm] groups: expected a divisor of D = 10, got 3",
         infer_text("rms_norm", {{"x", "f32[T, 10]"}}, {{"groups", 3}}));
  refuse("[rms_norm] groups: expected a divisor of D = 10, got 0",
         infer_text("rms_norm", {{"x", "f32[T, 10]"}}, {{"groups", 0}}));
  refuse("[top_k] k: expected 1 to 8, got 9",
         infer_text("top_k", {{"x", "f32[M, 8]"}}, {{"k", 9}}));
  refuse("[top_k] k: expected 1 to 8, got 0",
         infer_text("top_k", {{"x", "f32[M, 8]"}}, {{"k", 0}}));
  refuse("[argmax] V: expected at least 1, got 0", infer_text("argmax", {{"x", "f32[M, 0]"}}));
  refuse("[causal_conv1d] state: expected [C, 8, 3], got [C, 8, 4]",
         infer_text("causal_conv1d", {{"x", "f32[T, 8]"},
                                      {"w", "f32[8, 4]"},
                                      {"state", "f32[C, 8, 4]"},
                                      {"starts", "i32[S+1]"},
                                      {"slot_in", "i32[S]"},
                                      {"slot_out", "i32[S]"}}));
  refuse("[causal_conv1d] slot_in: expected [S], got [S+1]",
         infer_text("causal_conv1d", {{"x", "f32[T, 8]"},
                                      {"w", "f32[8, 4]"},
                                      {"state", "f32[C, 8, 3]"},
                                      {"starts", "i32[S+1]"},
                                      {"slot_in", "i32[S+1]"},
                                      {"slot_out", "i32[S]"}}));
  const auto scan = [](std::string B, std::string C) {
    return infer_text("selective_scan", {{"u", "f32[T, 8]"},
                                         {"dt", "f32[T, 8]"},
                                         {"A", "f32[8, 4]"},
                                         {"B", std::move(B)},
                                         {"C", std::move(C)},
                                         {"state", "f32[C, 8, 4]"},
                                         {"starts", "i32[S+1]"},
                                         {"slot_in", "i32[S]"},
                                         {"slot_out", "i32[S]"}});
  };
  refuse("[selective_scan] B: expected [T, G, 4], got [T, 4]", scan("f32[T, 4]", "f32[T, 1, 4]"));
  refuse("[selective_scan] C: expected [T, 1, 4], got [T, 2, 4]",
         scan("f32[T, 1, 4]", "f32[T, 2, 4]"));
  refuse("[selective_scan] G: expected a divisor of D = 8, got 3",
         scan("f32[T, 3, 4]", "f32[T, 3, 4]"));
  refuse("[selective_scan] G: expected a divisor of D = 8, got 0",
         scan("f32[T, 0, 4]", "f32[T, 0, 4]"));
}

TEST(Ops, RefuseShapesWithoutOrWithTooManyDimensions) {
  const Op& op = *find_op("slice");
  const Attrs attrs = default_attrs(op);
  for (const Shape& shape : {Shape{}, Shape{1, 2, 3, 4, 5}}) {
    const Type type{DType::f32, shape};
    const Type* const inputs[] = {&type};
    EXPECT_TRUE(is_error(infer(op, inputs, attrs), Code::invalid_argument, "1 to 4 dimensions"));
  }
}

TEST(Ops, RefuseMoreOperandsThanTheyTake) {
  const Op& op = *find_op("neg");
  const Type type{DType::f32, {dims::T, 4}};
  const Type* const inputs[] = {&type, &type};
  EXPECT_TRUE(is_error(infer(op, inputs, default_attrs(op)), Code::invalid_argument,
                       "[neg] takes 1 inputs, got 2"));
}

TEST(Attrs, DefaultsNamesAndChoices) {
  const Op& scan = *find_op("selective_scan");
  Attrs attrs = default_attrs(scan);
  EXPECT_EQ(to_string(scan, attrs), "");
  EXPECT_TRUE(is_ok(set_attr(scan, attrs, "discretisation", "bilinear")));
  EXPECT_TRUE(is_ok(set_attr(scan, attrs, "dt_softplus", 1.0)));
  EXPECT_EQ(to_string(scan, attrs), "dt_softplus = 1, discretisation = bilinear");
  EXPECT_TRUE(is_ok(set_attr(scan, attrs, "discretisation", 1.0)));
  EXPECT_EQ(to_string(scan, attrs), "dt_softplus = 1, discretisation = zoh");

  const Attrs before = attrs;
  EXPECT_TRUE(is_error(set_attr(scan, attrs, "discretization", 0.0), Code::invalid_argument,
                       "[selective_scan] has no attribute discretization"));
  EXPECT_TRUE(is_error(set_attr(scan, attrs, "discretisation", "exact"), Code::invalid_argument,
                       "discretisation: expected one of mamba zoh euler bilinear, got exact"));
  EXPECT_TRUE(is_error(set_attr(scan, attrs, "dt_softplus", "yes"), Code::invalid_argument,
                       "dt_softplus: expected a number, got yes"));
  for (const double wrong : {4.0, -1.0, 0.5, 1e9}) {
    EXPECT_TRUE(is_error(set_attr(scan, attrs, "discretisation", wrong), Code::invalid_argument,
                         "expected one of mamba zoh euler bilinear"));
  }
  for (const double wrong : {double(NAN), double(INFINITY), -double(INFINITY), 1e300}) {
    EXPECT_TRUE(is_error(set_attr(scan, attrs, "dt_softplus", wrong), Code::invalid_argument,
                         "dt_softplus: expected a number from -2^53 to 2^53"));
  }
  EXPECT_EQ(attrs, before);
}

TEST(Attrs, NumbersArePrintedExactly) {
  const Op& norm = *find_op("rms_norm");
  Attrs attrs = default_attrs(norm);
  ASSERT_TRUE(is_ok(set_attr(norm, attrs, "eps", 0.1)));
  EXPECT_EQ(to_string(norm, attrs), "eps = 0.10000000000000001");
}

// ---- calls
// ---------------------------------------------------------------------------------------

TEST(Check, ChecksStridesAndOutputs) {
  const Case c{"c", {{'D', 8}}, {3}, {"residual", "gate"}};
  const HostCall host = must(HostCall::make(*find_op("rms_norm"), c, {}));
  EXPECT_TRUE(is_ok(check(host.call)));

  Call call = host.call;
  call.inputs[0].stride[1] = 2;
  EXPECT_TRUE(is_error(check(call), Code::invalid_argument,
                       "[rms_norm] x: expected innermost stride 1, got 2"));
  call = host.call;
  call.outputs[0].stride[1] = 0;
  EXPECT_TRUE(is_error(check(call), Code::invalid_argument,
                       "[rms_norm] y: expected innermost stride 1, got 0"));
  call = host.call;
  call.outputs[0].dim[1] = 7;
  EXPECT_TRUE(is_error(check(call), Code::invalid_argument,
                       "[rms_norm] y: expected f32[3, 8], got f32[3, 7]"));
  call = host.call;
  call.outputs[0].dtype = DType::bf16;
  EXPECT_TRUE(is_error(check(call), Code::invalid_argument,
                       "[rms_norm] y: expected f32[3, 8], got bf16[3, 8]"));
  call = host.call;
  call.outputs[1] = call.outputs[0];
  EXPECT_TRUE(is_error(check(call), Code::invalid_argument,
                       "[rms_norm] sum: expected no such output, got [3, 8]"));
  call = host.call;
  call.outputs[0] = {};
  EXPECT_TRUE(
      is_error(check(call), Code::invalid_argument, "[rms_norm] y: expected f32[3, 8], got none"));
  // Gaps between rows, and one row for all, are what views and broadcasts have.
  call = host.call;
  call.inputs[0].stride[0] = 0;
  EXPECT_TRUE(is_ok(check(call)));
}

TEST(Cost, CountsEveryOperandOnceAndOfStatesTheSlotsInUse) {
  const Case dense{"c", {{'I', 64}, {'O', 32}}, {5}};
  const HostCall linear =
      must(HostCall::make(*find_op("linear"), dense, {DType::f32, DType::bf16}));
  const Cost product = cost(linear.call);
  EXPECT_EQ(product.bytes, 5 * 64 * 4 + 32 * 64 * 2 + 32 * 4 + 5 * 32 * 4);
  EXPECT_EQ(product.flops, 2.0 * 5 * 64 * 32);

  // Two sequences, four slots: two are read and written.
  const Case conv{"c", {{'D', 8}, {'K', 4}}, {3, 2}};
  const HostCall host = must(HostCall::make(*find_op("causal_conv1d"), conv, {}));
  EXPECT_EQ(cost(host.call).bytes,
            2 * 5 * 8 * 4 + 8 * 4 * 4 + 8 * 4 + 2 * 2 * 8 * 3 * 4 + 3 * 4 + 2 * 2 * 4);

  // Of a table, the rows that are read.
  const Case rows{"c", {{'V', 1000}, {'D', 8}}, {3}};
  const HostCall embedding = must(HostCall::make(*find_op("embedding"), rows, {}));
  EXPECT_EQ(cost(embedding.call).bytes, 3 * (8 * 4 + 8 * 4 + 4));
}

// ---- views
// ---------------------------------------------------------------------------------------

Result<TensorView> view_of(std::string_view op_name, const TensorView& x,
                           std::initializer_list<std::pair<std::string_view, double>> values = {}) {
  const Op& op = *find_op(op_name);
  Attrs attrs = default_attrs(op);
  for (const auto& [name, value] : values) {
    if (Status status = set_attr(op, attrs, name, value); !status.ok()) return status;
  }
  return op.view(x, attrs);
}

/// A [2, 12] tensor of 0 … 23, and a part of it that starts with column 2.
class Views : public testing::Test {
 protected:
  Views() {
    for (std::size_t i = 0; i < memory_.size(); ++i) memory_[i] = static_cast<float>(i);
  }
  std::vector<float> memory_ = std::vector<float>(24);
  TensorView whole_ = dense_view(memory_.data(), DType::f32, {2, 12});
};

TEST_F(Views, SliceMovesTheStartAndKeepsTheRows) {
  const TensorView part = must(view_of("slice", whole_, {{"offset", 2}, {"size", 6}}));
  EXPECT_EQ(to_string(shape_of(part)), "[2, 6]");
  EXPECT_EQ(part.stride[0], 12);
  EXPECT_EQ(part.stride[1], 1);
  EXPECT_EQ(part.offset, 8);
  EXPECT_EQ(part.as<float>(), memory_.data() + 2);
  EXPECT_FALSE(is_dense(part));
  const TensorView again = must(view_of("slice", part, {{"offset", 5}, {"size", 1}}));
  EXPECT_EQ(again.as<float>()[12], 19);
}

TEST_F(Views, SplitAndMergeOfASliceSeeTheSameElements) {
  const TensorView part = must(view_of("slice", whole_, {{"offset", 2}, {"size", 6}}));
  const TensorView split = must(view_of("split", part, {{"parts", 3}}));
  EXPECT_EQ(to_string(shape_of(split)), "[2, 3, 2]");
  EXPECT_EQ(split.stride, (std::array<std::int64_t, kMaxRank>{12, 2, 1, 0}));
  // x[t, h·P + p] is split[t, h, p].
  for (std::int64_t t = 0; t < 2; ++t) {
    for (std::int64_t h = 0; h < 3; ++h) {
      for (std::int64_t p = 0; p < 2; ++p) {
        EXPECT_EQ(split.as<float>()[t * split.stride[0] + h * split.stride[1] + p],
                  static_cast<float>(t * 12 + 2 + h * 2 + p));
      }
    }
  }
  const TensorView merged = must(view_of("merge", split));
  EXPECT_EQ(merged.rank, part.rank);
  EXPECT_EQ(shape_of(merged), shape_of(part));
  EXPECT_EQ(merged.stride[0], part.stride[0]);
  EXPECT_EQ(merged.as<float>(), part.as<float>());
}

TEST_F(Views, RefuseWhatIsNotThere) {
  const auto refuse = [](const Result<TensorView>& got, std::string_view message) {
    EXPECT_TRUE(is_error(got, Code::invalid_argument, message));
  };
  refuse(view_of("slice", whole_, {{"offset", 7}, {"size", 6}}),
         "[slice] x: columns 7 to 13 of [2, 12] do not exist");
  refuse(view_of("slice", whole_, {{"offset", -1}, {"size", 6}}), "do not exist");
  refuse(view_of("slice", whole_, {{"offset", 0}, {"size", 0}}), "do not exist");
  refuse(view_of("slice", whole_, {{"offset", 0x1p53}, {"size", 0x1p53}}), "do not exist");
  refuse(view_of("split", whole_, {{"parts", 5}}),
         "[split] x: [2, 12] does not split in 5 equal parts");
  refuse(view_of("split", whole_, {{"parts", 0}}), "does not split in 0 equal parts");
  refuse(view_of("split", whole_, {{"parts", -3}}), "does not split in -3 equal parts");
  refuse(view_of("split", dense_view(nullptr, DType::f32, {1, 1, 1, 4}), {{"parts", 2}}),
         "does not split");
  refuse(view_of("merge", dense_view(nullptr, DType::f32, {4})), "[merge] x: the last two axes");
  // The rows of a slice have gaps between them: two of them are no longer one.
  const TensorView part = must(view_of("slice", whole_, {{"offset", 2}, {"size", 6}}));
  refuse(view_of("merge", part), "[merge] x: the last two axes of [2, 6] do not lie densely");
}

TEST_F(Views, KeepSymbolicAxesAndRefuseToChangeThem) {
  EXPECT_EQ(must(infer_text("slice", {{"x", "bf16[T, 12]"}}, {{"offset", 4}, {"size", 8}})),
            "bf16[T, 8]");
  EXPECT_EQ(must(infer_text("split", {{"x", "f32[T, 12]"}}, {{"parts", 3}})), "f32[T, 3, 4]");
  EXPECT_EQ(must(infer_text("merge", {{"x", "f32[T, 3, 4]"}})), "f32[T, 12]");
  EXPECT_TRUE(is_error(infer_text("merge", {{"x", "f32[T, 3]"}}), Code::invalid_argument,
                       "[merge] x: axis 0 of [T, 3] is symbolic"));
  EXPECT_TRUE(is_error(infer_text("slice", {{"x", "f32[T]"}}, {{"size", 1}, {"offset", 3}}),
                       Code::invalid_argument, "do not exist"));
}

}  // namespace
}  // namespace krait
