// Sessions over an embedder's own graph: features in, named outputs and taps out; everything that
// a call provides is checked before kernels see it.
#include <cmath>
#include <functional>

#include "tests/helpers/graphs.h"
#include "tests/helpers/run_graph.h"
#include "tests/helpers/sessions.h"

namespace krait {
namespace {

using test::is_error;
using test::is_ok;
using test::kSmallSsm;
using test::must;
using test::rel_l2;
using test::slot_values;

constexpr double kSame = 2e-6;

/// Features [tokens, 8] of one sequence.
std::vector<float> features(std::int64_t tokens, const std::string& seed = "x") {
  const std::vector<double> numbers = test::NamedWeights::values(seed, tokens * 8);
  return {numbers.begin(), numbers.end()};
}

std::vector<float> joined(std::initializer_list<std::vector<float>> parts) {
  std::vector<float> all;
  for (const auto& part : parts) all.insert(all.end(), part.begin(), part.end());
  return all;
}

std::shared_ptr<Device> any_device(const std::string& name) {
  return name == "far" ? std::make_shared<test::FarDevice>() : test::device(name);
}

class GraphOn : public testing::TestWithParam<std::string> {
 protected:
  Program program(const std::string& text) const {
    return must(Program::create(test::model_of(text), any_device(GetParam())));
  }
  static Feed feed(std::vector<float>& x) {
    return {"x", dense_view(x.data(), DType::f32, {static_cast<std::int64_t>(x.size()) / 8, 8})};
  }
  /// One call; the output `y`: the rows asked for.
  static Status run(Session& s, std::vector<float> x, std::vector<std::int64_t> lengths,
                    std::vector<int> in, std::vector<int> out,
                    std::vector<std::int32_t> rows = {}) {
    const Feed feeds[] = {feed(x)};
    return s.run(lengths, in, out, feeds, rows);
  }
};

INSTANTIATE_TEST_SUITE_P(Devices, GraphOn, testing::ValuesIn(test::session_devices()),
                         [](const auto& info) { return test::test_name(info.param); });

TEST_P(GraphOn, ChunksAndBatchesAgreeWithWholeSequences) {
  const Program p = program(kSmallSsm);
  const auto a = features(11, "a"), b = features(4, "b");
  Session whole = test::session(p, 2);
  ASSERT_TRUE(is_ok(run(whole, a, {11}, {-1}, {0}, {10})));
  const auto want = must(whole.output("all"));
  ASSERT_EQ(want.size(), 88u);
  EXPECT_EQ(must(whole.output("y")), std::vector<float>(want.end() - 8, want.end()));

  Session parts = test::session(p, 2);
  const std::vector<float> a1(a.begin(), a.begin() + 40), a2(a.begin() + 40, a.end());
  // The first part beside another sequence, the second alone.
  ASSERT_TRUE(is_ok(run(parts, joined({b, a1}), {4, 5}, {-1, -1}, {0, 1}, {8})));
  auto got = must(parts.output("all"));
  got.erase(got.begin(), got.begin() + 32);
  ASSERT_TRUE(is_ok(run(parts, a2, {6}, {1}, {1}, {5})));
  const auto rest = must(parts.output("all"));
  got.insert(got.end(), rest.begin(), rest.end());
  EXPECT_LE(rel_l2(got, want), kSame);
  EXPECT_LE(rel_l2(slot_values(parts, 1), slot_values(whole, 0)), kSame);
  EXPECT_EQ(parts.position(0), 4);
  EXPECT_EQ(parts.position(1), 11);
}

TEST_P(GraphOn, TapsShowWhatLiesBetween) {
  std::string text = kSmallSsm;
  // The convolution's output, its silu, and the last value before the norm.
  text.insert(text.rfind('}'),
              "  tap conv = %3\n  tap u = %5\n  tap stream = %22\n  tap B = %13\n");
  const auto x = features(5);
  Session plain = test::session(program(kSmallSsm));
  Session tapped = test::session(program(text));
  ASSERT_TRUE(is_ok(run(plain, x, {5}, {-1}, {0}, {4})));
  ASSERT_TRUE(is_ok(run(tapped, x, {5}, {-1}, {0}, {4})));
  EXPECT_LE(rel_l2(must(tapped.output("all")), must(plain.output("all"))), kSame);
  const auto conv = must(tapped.output("conv")), u = must(tapped.output("u"));
  ASSERT_EQ(conv.size(), 40u);
  for (std::size_t i = 0; i < conv.size(); ++i) {
    EXPECT_NEAR(u[i], conv[i] / (1 + std::exp(-conv[i])), 1e-6);
  }
  // all = norm(stream): the same direction, token by token.
  const auto stream = must(tapped.output("stream"));
  EXPECT_EQ(stream.size(), 40u);
  EXPECT_EQ(must(tapped.output("B")).size(), 20u) << "a view of columns";
}

TEST_P(GraphOn, OutputsHaveTheSizesOfTheLastCall) {
  Session s = test::session(program(kSmallSsm), 3);
  for (const std::int64_t tokens : {5, 8, 1, 7, 0, 3}) {
    ASSERT_TRUE(is_ok(run(s, features(tokens), {tokens}, {-1}, {-1})));
    EXPECT_EQ(must(s.output("all")).size(), static_cast<std::size_t>(tokens * 8));
    EXPECT_TRUE(must(s.output("y")).empty());
  }
}

TEST_P(GraphOn, RefusedCallsChangeNothing) {
  const Program p = program(kSmallSsm);
  Session s = must(Session::create(p, {.slots = 3, .chunk = 16}));
  ASSERT_TRUE(is_ok(run(s, features(6), {4, 2}, {-1, -1}, {0, 1}, {3, 5})));
  const auto all = must(s.output("all")), y = must(s.output("y"));
  const std::vector<std::vector<float>> before = {slot_values(s, 0), slot_values(s, 1),
                                                  slot_values(s, 2)};
  const auto refuse = [&](const Status& status, std::string_view message) {
    EXPECT_TRUE(is_error(status, Code::invalid_argument, message));
    for (int slot = 0; slot < 3; ++slot) {
      EXPECT_EQ(slot_values(s, slot), before[static_cast<std::size_t>(slot)]) << message;
    }
    EXPECT_EQ(s.position(0), 4);
    EXPECT_EQ(s.position(1), 2);
    EXPECT_EQ(must(s.output("all")), all) << message;
    EXPECT_EQ(must(s.output("y")), y) << message;
  };
  refuse(run(s, features(7), {7}, {0}, {0, 1}),
         "expected as many slots as sequences (1), got 1 and 2");
  refuse(run(s, features(7), {7}, {3}, {0}), "slot: expected -1 to 2, got 3");
  refuse(run(s, features(7), {3, 4}, {0, 1}, {0, 0}), "both write slot 0");
  refuse(run(s, features(7), {3, 4}, {0, 0}, {0, 1}), "segment 1 reads slot 0, which segment 0");
  refuse(run(s, features(17), {17}, {0}, {0}), "expected at most 16 tokens in all");
  refuse(run(s, features(7), {8, -1}, {0, 1}, {0, 1}), "tokens in all");
  refuse(run(s, features(7), {INT64_MAX, INT64_MAX}, {0, 1}, {0, 1}), "tokens in all");
  refuse(run(s, features(7), {7}, {0}, {0}, {7}), "rows: expected 0 to 6, got 7");
  refuse(run(s, features(7), {7}, {0}, {0}, {-1}), "rows: expected 0 to 6, got -1");
  refuse(run(s, features(6), {7}, {0}, {0}), "input x: expected a dense f32[7, 8], got f32[6, 8]");
  const std::int64_t lengths[] = {5};
  const int slots[] = {0};
  refuse(s.run(lengths, slots, slots, {}), "input x: expected a dense f32[5, 8], got nothing");
  std::vector<float> x = features(10);
  const auto with = [&](const TensorView& view) {
    const Feed feeds[] = {{"x", view}};
    return s.run(lengths, slots, slots, feeds);
  };
  refuse(with({}), "expected a dense f32[5, 8], got nothing");
  refuse(with(dense_view(x.data(), DType::f16, {5, 8})), "got f16[5, 8]");
  refuse(with(dense_view(x.data(), DType::f32, {40})), "got f32[40]");
  TensorView strided = dense_view(x.data(), DType::f32, {5, 8});
  strided.stride[0] = 16;
  refuse(with(strided), "expected a dense f32[5, 8]");
}

/// Feeds of indices are believed by kernels: they must lie within their tables.
TEST_P(GraphOn, FedIndicesAreChecked) {
  const Program p = program(R"(graph tables {
  input ids: i32[T]
  input picks: i32[M]
  weight table: f32[5, 4]
  %0: f32[T, 4] = embedding(ids: ids, table: table)
  %1: f32[M, 4] = gather_rows(x: %0, rows: picks)
  output y = %1
}
)");
  Session s = test::session(p);
  const auto call = [&](std::vector<std::int32_t> ids, std::vector<std::int32_t> picks) {
    const std::int64_t lengths[] = {static_cast<std::int64_t>(ids.size())};
    const int slots[] = {-1};
    const std::vector<std::int32_t> rows(picks.size());  // says how many rows there are
    const Feed feeds[] = {
        {"ids", dense_view(ids.data(), DType::i32, {static_cast<std::int64_t>(ids.size())})},
        {"picks", dense_view(picks.data(), DType::i32, {static_cast<std::int64_t>(picks.size())})}};
    return s.run(lengths, slots, slots, feeds, rows);
  };
  EXPECT_TRUE(is_ok(call({0, 4, 2}, {2, 0})));
  const auto y = must(s.output("y"));
  EXPECT_EQ(y.size(), 8u);
  for (const std::int32_t wrong : {5, -1, INT32_MAX, INT32_MIN}) {
    EXPECT_TRUE(is_error(call({0, wrong, 2}, {2, 0}), Code::invalid_argument,
                         "[embedding] ids: ids[1]: expected 0 to 4, got " + std::to_string(wrong)));
  }
  EXPECT_TRUE(is_error(call({0, 4, 2}, {0, 3}), Code::invalid_argument,
                       "[gather_rows] rows: picks[1]: expected 0 to 2, got 3"));
  EXPECT_EQ(must(s.output("y")), y);
}

TEST_P(GraphOn, PositionsFromArgmaxMayIndexATable) {
  const Program p = program(R"(graph greedy {
  input x: f32[T, 5]
  weight table: f32[5, 4]
  %0: i32[T] = argmax(x: x)
  %1: f32[T, 4] = embedding(ids: %0, table: table)
  output ids = %0
  output y = %1
}
)");
  Session s = test::session(p);
  std::vector<float> x = {0, 3, 1, 2, 0, 9, 8, 7, 6, 5, 0, 0, 0, 0, 1};
  const std::int64_t lengths[] = {3};
  const int slots[] = {-1};
  const Feed feeds[] = {{"x", dense_view(x.data(), DType::f32, {3, 5})}};
  ASSERT_TRUE(is_ok(s.run(lengths, slots, slots, feeds)));
  EXPECT_EQ(must(s.output("ids")), (std::vector<float>{1, 0, 4}));
  EXPECT_EQ(must(s.output("y")).size(), 12u);
}

/// A graph that sessions could not run safely is refused when the program is made.
TEST(ProgramInputs, IndicesThatNobodyChecksAreRefused) {
  const auto refuse = [](const std::string& body, Code code, std::string_view message) {
    const Model model = test::model_of("graph g {\n" + body + "}\n");
    EXPECT_TRUE(is_error(Program::create(model, test::device("reference")), code, message)) << body;
  };
  const std::string conv =
      "  weight w: f32[8, 4]\n  state s: f32[C, 8, 3]\n"
      "  %0: f32[T, 8], %1: f32[C, 8, 3] = causal_conv1d(x: x, w: w, state: s, ";
  const Code invalid = Code::invalid_argument;
  refuse("  input x: f32[T, 8]\n  input begins: i32[S+1]\n  input slots: i32[S]\n" + conv +
             "starts: begins, slot_in: slots, slot_out: slots)\n",
         invalid, "[causal_conv1d] starts: expected the input named starts, which sessions write");
  refuse("  input x: f32[T, 8]\n  input starts: i32[S+1]\n  input slot_in: i32[S]\n" + conv +
             "starts: starts, slot_in: slot_in, slot_out: slot_in)\n",
         invalid, "[causal_conv1d] slot_out: expected the input named slot_out");
  refuse(
      "  input x: f32[4, 8]\n  input starts: i32[S+1]\n  input slot_in: i32[S]\n"
      "  input slot_out: i32[S]\n  weight w: f32[8, 4]\n  state s: f32[C, 8, 3]\n"
      "  %0: f32[4, 8], %1: f32[C, 8, 3] = causal_conv1d(x: x, w: w, state: s, starts: starts, "
      "slot_in: slot_in, slot_out: slot_out)\n",
      invalid, "[causal_conv1d] x: expected the T tokens of a call, got [4, 8]");
  refuse("  input starts: i32[T]\n", invalid, "input starts: expected i32[S+1], got i32[T]");
  refuse("  input rows: f32[M]\n", invalid, "input rows: expected i32[M], got f32[M]");
  refuse("  state tokens: f32[C, 4]\n", invalid, "state tokens: state files hold the token ids");
  const std::string table = "  weight table: f32[5, 4]\n";
  const auto lookup = [](const std::string& ids) {
    return "  %1: f32[T, 4] = embedding(ids: " + ids + ", table: table)\n  output y = %1\n";
  };
  const std::string message = "[embedding] ids: expected an input of the graph, or positions";
  refuse("  input x: f32[T, 6]\n" + table + "  %0: i32[T] = argmax(x: x)\n" + lookup("%0"),
         Code::unsupported, message);
}

TEST(ProgramInputs, ComputedIndicesAreRefused) {
  const Model model = test::model_of(R"(graph g {
  input z: f32[T]
  weight table: f32[5, 4]
  %0: i32[T] = cast(x: z) {dtype = i32}
  %1: f32[T, 4] = embedding(ids: %0, table: table)
  output y = %1
}
)");
  EXPECT_TRUE(is_error(Program::create(model, test::device("reference")), Code::unsupported,
                       "[embedding] ids: expected an input of the graph, or positions"));
}

TEST(ProgramInputs, WeightsAsIndicesOfATableOfTheCallAreRefused) {
  const Graph graph = must(Graph::parse(R"(graph g {
  input x: f32[T, 4]
  weight picks: i32[3]
  %0: f32[3, 4] = gather_rows(x: x, rows: picks)
  output y = %0
}
)"));
  std::int32_t picks[] = {0, 1, 2};
  const Weight weights[] = {{"picks", dense_view(picks, DType::i32, {3})}};
  const Model model = must(Model::from_graph(graph, weights));
  EXPECT_TRUE(is_error(Program::create(model, test::device("reference")), Code::unsupported,
                       "[gather_rows] rows: expected an input of the graph, or positions"));
}

TEST(ProgramInputs, TokensOfALanguageModelNeedItsVocabulary) {
  // forward() takes ids of a vocabulary; an embedder's graph has none.
  Session s = test::session(must(Program::create(test::model_of(kSmallSsm), test::device("cpu"))));
  const std::int32_t id = 0;
  EXPECT_TRUE(is_error(s.prefill({&id, 1}), Code::invalid_argument,
                       "this model has no vocabulary; feed its inputs through Session::run"));
}

}  // namespace
}  // namespace krait
