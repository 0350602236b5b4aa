// The printed form: it parses back to the same graph, and hostile text ends in an error.
#include <string>

#include "graph/ir.h"
#include "runtime/core/try.h"
#include "tests/helpers/devices.h"
#include "tests/helpers/graphs.h"

namespace krait {
namespace {

using test::golden_model;
using test::is_error;
using test::is_ok;
using test::kSmallSsm;
using test::must;

void expect_round_trip(const ir::Graph& graph) {
  const std::string text = ir::print(graph);
  const Result<ir::Graph> parsed = ir::parse(text);
  ASSERT_TRUE(is_ok(parsed)) << text;
  EXPECT_EQ(ir::print(*parsed), text);
  EXPECT_EQ(parsed->nodes.size(), graph.nodes.size());
  EXPECT_EQ(parsed->values.size(), graph.values.size());
}

TEST(GraphText, ModelsParseBack) {
  for (const char* name : {"mamba-1", "mamba-bias-n8-1", "falcon-mamba-1"}) {
    expect_round_trip(golden_model(name).graph().ir());
  }
}

TEST(GraphText, GraphsAfterPassesParseBack) {
  for (const char* name : {"mamba-1", "mamba-bias-n8-1", "falcon-mamba-1"}) {
    for (const DType wide : {DType::f32, DType::f64}) {
      const Model model = golden_model(name);
      expect_round_trip(must(ir::optimise(model.graph().ir(), {nullptr, wide, wide})));
    }
    expect_round_trip(test::golden_program("reference", name).graph().ir());
  }
}

TEST(GraphText, IsTheSameThroughThePublicClass) {
  const Graph graph = must(Graph::parse(kSmallSsm));
  EXPECT_EQ(graph.print(), kSmallSsm);
}

TEST(GraphText, NamesOfAnyBytesParseBack) {
  const std::string names[] = {"a \"quoted\" name",
                               "back\\slash",
                               "\\",
                               "\"",
                               "new\nline",
                               "a+b",
                               "}",
                               "input",
                               "output",
                               "graph",
                               "ü",
                               ",",
                               ":",
                               "a, b: f32[3]",
                               "-",
                               ".",
                               "layers.0.conv",
                               "  ",
                               "= {",
                               "const"};
  GraphBuilder builder("graph \"of\" names\n");
  for (const std::string& name : names) {
    const Value w = builder.weight(name, DType::f32, {2});
    builder.output(name, builder.op("neg", {{"x", w}}));
  }
  builder.tap("", builder.op("exp", {{"x", builder.input("100%", DType::f32, {2})}}));
  expect_round_trip(must(builder.build()).ir());
}

TEST(GraphText, AttributesParseBackExactly) {
  GraphBuilder builder("g");
  const Value x = builder.input("x", DType::f32, {dims::T, 12});
  for (const double eps : {0.1, 1e-300, 1.0 / 3, 12345678.9, 1e15}) {
    builder.output(std::to_string(eps),
                   builder.op("rms_norm", {{"x", x}}, {{"eps", eps}, {"groups", 3.0}}));
  }
  const Graph graph = must(builder.build());
  expect_round_trip(graph.ir());
  const ir::Graph parsed = must(ir::parse(graph.print()));
  for (std::size_t n = 0; n < parsed.nodes.size(); ++n) {
    EXPECT_EQ(parsed.nodes[n].attrs, graph.ir().nodes[n].attrs);
  }
}

TEST(GraphText, CommasAndSpaceMayBeLeftOut) {
  const ir::Graph graph = must(
      ir::parse("graph g{input x:f32[T,8] %7:f32[T,8]=rms_norm(x:x){eps=1 groups=2}output y=%7}"));
  EXPECT_EQ(ir::print(graph), R"(graph g {
  input x: f32[T, 8]
  %0: f32[T, 8] = rms_norm(x: x) {eps = 1, groups = 2}
  output y = %0
}
)");
}

TEST(GraphText, ErrorsNameTheLine) {
  const auto refuse = [](const std::string& body, std::string_view message) {
    const std::string text = "graph g {\n  input x: f32[T, 8]\n" + body + "\n}\n";
    EXPECT_TRUE(is_error(ir::parse(text), Code::corrupt, message)) << text;
  };
  EXPECT_TRUE(is_error(ir::parse(""), Code::corrupt, "line 1: expected 'graph', got ''"));
  EXPECT_TRUE(is_error(ir::parse("digraph"), Code::corrupt, "expected 'graph', got 'digraph'"));
  EXPECT_TRUE(is_error(ir::parse("graph g {} x"), Code::corrupt, "expected the end, got 'x'"));
  refuse("  input x: f32[T, 8]", "line 3: x is declared twice");
  refuse("  weight w: f31[8]", "line 3: expected a type such as f32, got f31");
  refuse("  weight w: f32[]", "line 3: expected a dimension");
  refuse("  weight w: f32[8x]", "expected a dimension such as T, S+1 or 768, got 8x");
  refuse("  weight w: f32[1, 2, 3, 4, 5]", "expected at most 4 dimensions");
  refuse("  weight w: f32[-8]", "expected extents of at least 0");
  refuse("  weight w: f32[9223372036854775808]", "expected a dimension such as");
  refuse("  weight w: f32[9223372036854775807]", "expected extents of at least 0 and at most");
  refuse("  weight w: f32[4294967296, 4294967296]", "expected extents of at least 0 and at most");
  refuse("  weight w: f32[T-9223372036854775808]", "expected a symbol plus 0 to");
  refuse("  weight w: f32[Q]", "expected T, S, M or C as the first extent only");
  refuse("  weight w: f32[8, T]", "expected T, S, M or C as the first extent only");
  refuse("  constant %0: f32[T, 8] = silu(x: x)", "expected a result such as %0, got constant");
  refuse("  %0: f32[T, 8] = siluu(x: x)", "line 3: there is no op named siluu");
  refuse("  %0: f32[T, 8] = silu(y: x)", "[silu] has no operand y");
  refuse("  %0: f32[T, 8] = silu(x: y)", "line 3: y is not defined");
  refuse("  %0: f32[T, 8] = silu(x: %0)", "line 3: %0 is not defined");
  refuse("  %0: f32[T, 9] = silu(x: x)", "[silu] yields f32[T, 8]");
  refuse("  %0: f32[T, 8], %1: f32[T, 8] = silu(x: x)", "[silu] yields only 1 results");
  refuse("  %0: f32[T, 8] = silu()", "[silu] x: missing");
  refuse("  %0: f32[T, 8] = silu(x: x) {k = 1}", "[silu] has no attribute k");
  refuse("  %0: f32[T, 8] = rms_norm(x: x) {eps = nan}",
         "eps: expected a number from -2^53 to 2^53");
  refuse("  %0: f32[T, 8] = rms_norm(x: x) {eps = 1e999}",
         "eps: expected a number from -2^53 to 2^53");
  refuse("  %0: f32[T, 8] = rms_norm(x: x) {eps = small}", "eps: expected a number, got small");
  refuse("  %0: f32[T, 1] = slice(x: x) {offset = 1e300, size = 1}",
         "expected a number from -2^53 to 2^53");
  refuse("  %0: f32[T, 8] = silu(x: x)\n  %0: f32[T, 8] = silu(x: x)", "a result is defined twice");
  refuse("  output y = %3", "line 3: output y is not defined");
  refuse("  %0: f32[T, 8] = silu(x: x", "[silu] has no operand }");
}

TEST(GraphText, TheWholeGraphIsVerified) {
  EXPECT_TRUE(
      is_error(ir::parse("graph g {\n input x: f32[T, 8]\n const %0: f32[T, 8] = silu(x: x)\n}\n"),
               Code::invalid_argument, "[silu] is constant but its operand x is not"));
  EXPECT_TRUE(is_error(ir::parse("graph g {\n state s: f32[8, 3]\n}\n"), Code::invalid_argument,
                       "state s: expected f32[C, ...]"));
}

/// Whatever is cut off, the rest is refused, except for white space at the end.
TEST(GraphText, EveryTruncationIsRefused) {
  for (const std::string& text :
       {std::string(kSmallSsm), test::golden_program("reference").graph().print()}) {
    const std::size_t end = text.rfind('}');
    // Every byte of the small one, every seventh of the large one.
    const std::size_t step = text.size() < 4000 ? 1 : 7;
    for (std::size_t size = 0; size <= end; size += step) {
      const auto parsed = ir::parse(std::string_view(text).substr(0, size));
      ASSERT_FALSE(parsed.ok()) << size;
      ASSERT_EQ(parsed.status().code(), Code::corrupt) << size << ": " << parsed.message();
    }
  }
}

TEST(GraphText, EveryFlippedByteIsRefusedOrStillAGraph) {
  const std::string text = kSmallSsm;
  int graphs = 0;
  for (std::size_t at = 0; at < text.size(); ++at) {
    for (const char byte : {'\0', '"', '9', '\xff', '[', '%', ' ', 'T'}) {
      std::string broken = text;
      broken[at] = byte;
      const auto parsed = ir::parse(broken);
      if (!parsed.ok()) continue;
      ++graphs;
      const std::string printed = ir::print(*parsed);
      const auto again = ir::parse(printed);
      ASSERT_TRUE(is_ok(again)) << printed;
      ASSERT_EQ(ir::print(*again), printed);
    }
  }
  EXPECT_GT(graphs, 0);
}

TEST(GraphText, ManyNestedBracketsAndEndlessWordsAreErrors) {
  for (const char c : {'[', '(', '{', '"', '\\', '%', '=', '-', '0', ',', ' ', '\n'}) {
    EXPECT_FALSE(ir::parse("graph g {" + std::string(1000000, c)).ok()) << c;
    EXPECT_FALSE(ir::parse("graph g { weight w: f32[" + std::string(1000000, c)).ok()) << c;
  }
}

/// Ten thousand ops in a row and as many views of views: everything that walks a graph must do so
/// without recursion.
TEST(GraphText, LongChainsAreFine) {
  constexpr int kLength = 10000;
  for (const std::string op : {"silu(x: ", "slice(x: "}) {
    std::string text = "graph g {\n  input x: f32[T, 8]\n";
    std::string last = "x";
    for (int i = 0; i < kLength; ++i) {
      const std::string next = "%" + std::to_string(i);
      text += cat("  ", next, ": f32[T, 8] = ", op, last, ")");
      text += op[1] == 'l' ? " {size = 8}\n" : "\n";
      last = next;
    }
    text += "  output y = " + last + "\n}\n";
    ir::Graph graph = must(ir::parse(text));
    std::swap(graph.nodes.front(), graph.nodes.back());
    ir::tidy(graph);
    EXPECT_TRUE(is_ok(ir::verify(graph)));
    EXPECT_EQ(ir::print(graph), text);
  }
}

TEST(GraphText, DotHasANodePerOpAndAnEdgePerOperand) {
  const ir::Graph graph = must(ir::parse(R"(graph "a \"b\"" {
  input x: f32[T, 8]
  weight "w\\1": f32[8]
  const %0: f32[8] = exp(x: "w\\1")
  %1: f32[T, 8] = mul(x: x, y: %0)
  %2: f32[T, 8], %3: f32[T, 8] = rms_norm(x: %1, residual: x) {groups = 2}
  output y = %2
  tap sum = %3
}
)"));
  EXPECT_EQ(ir::dot(graph), R"(digraph "a \"b\"" {
  node [shape=box, fontname=monospace];
  v0 [label="x\nf32[T, 8]", style=rounded];
  v1 [label="w\\1\nf32[8]", style=dashed];
  n0 [label="exp", style=dashed];
  v1 -> n0 [label="x"];
  n1 [label="mul", style=bold];
  v0 -> n1 [label="x"];
  n0 -> n1 [label="y"];
  n2 [label="rms_norm\ngroups = 2", style=bold];
  n1 -> n2 [label="x"];
  v0 -> n2 [label="residual"];
  o0 [label="y", shape=ellipse];
  n2 -> o0;
  o1 [label="sum", shape=ellipse];
  n2 -> o1;
}
)");
}

}  // namespace
}  // namespace krait
