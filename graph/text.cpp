// The printed form of a graph, its parser, and Graphviz output.
//
//   graph mamba {
//     input tokens: i32[T]
//     state layers.0.conv: f32[C, 1536, 3]
//     weight backbone.norm_f.weight: f32[768]
//     %0: f32[T, 768] = embedding(ids: tokens, table: backbone.embeddings.weight)
//     const %1: f32[1536, 16] = exp(x: backbone.layers.0.mixer.A_log)
//     %2: f32[T, 1536], %3: f32[C, 1536, 3] = causal_conv1d(...) {activation = silu}
//     output logits = %9
//     tap hidden = %7
//   }
//
// Names other than letters, digits, '_', '.' and '-' stand in double quotes.
#include <cctype>
#include <charconv>
#include <cstdlib>
#include <map>

#include "graph/ir.h"
#include "runtime/core/try.h"

namespace krait::ir {
namespace {

bool plain(char c) {
  return std::isalnum(static_cast<unsigned char>(c)) || c == '_' || c == '.' || c == '-';
}

std::string quoted(std::string_view name) {
  bool bare = !name.empty();
  for (const char c : name) bare = bare && plain(c);
  if (bare) return std::string(name);
  std::string text = "\"";
  for (const char c : name) {
    if (c == '"' || c == '\\') text += '\\';
    text += c;
  }
  return text + "\"";
}

/// The kinds and results as they are printed; results are numbered in order of definition.
class Names {
 public:
  explicit Names(const Graph& graph) : graph_(graph), number_(graph.values.size(), -1) {
    int next = 0;
    for (const Node& node : graph.nodes) {
      for (const Id id : node.outputs) {
        if (id != kNone) number_[static_cast<std::size_t>(id)] = next++;
      }
    }
  }
  std::string operator()(Id id) const {
    if (graph_[id].kind != Kind::result) return quoted(graph_[id].name);
    return cat("%", number_[static_cast<std::size_t>(id)]);
  }

 private:
  const Graph& graph_;
  std::vector<int> number_;
};

constexpr std::string_view kKinds[] = {"input", "weight", "state"};

}  // namespace

std::string print(const Graph& graph) {
  const Names names(graph);
  std::ostringstream out;
  out << "graph " << quoted(graph.name) << " {\n";
  for (const Value& value : graph.values) {
    if (value.kind == Kind::result) continue;
    out << "  " << kKinds[static_cast<int>(value.kind)] << " " << quoted(value.name) << ": "
        << to_string(value.type) << "\n";
  }
  for (const Node& node : graph.nodes) {
    out << (node.constant ? "  const " : "  ");
    bool first = true;
    for (const Id id : node.outputs) {
      if (id == kNone) continue;
      out << (first ? "" : ", ") << names(id) << ": " << to_string(graph[id].type);
      first = false;
    }
    out << " = " << node.op->name << "(";
    first = true;
    for (std::size_t i = 0; i < node.inputs.size(); ++i) {
      if (node.inputs[i] == kNone) continue;
      out << (first ? "" : ", ") << node.op->inputs[i].name << ": " << names(node.inputs[i]);
      first = false;
    }
    out << ")";
    if (const std::string attrs = to_string(*node.op, node.attrs); !attrs.empty())
      out << " {" << attrs << "}";
    out << "\n";
  }
  for (const Output& output : graph.outputs) {
    out << (output.tap ? "  tap " : "  output ") << quoted(output.name) << " = "
        << names(output.value) << "\n";
  }
  out << "}\n";
  return std::move(out).str();
}

namespace {

/// Reads one word or punctuation mark after the other; remembers the line for messages.
class Lexer {
 public:
  explicit Lexer(std::string_view text) : rest_(text) {}

  /// The next token; "" at the end. A quoted name comes without its quotes, was_quoted() true.
  std::string_view peek() {
    if (!ready_) {
      read();
      ready_ = true;
    }
    return token_;
  }
  std::string take() {
    peek();
    ready_ = false;
    return token_;
  }
  Status expect(std::string_view want) {
    if (peek() != want) return error(cat("expected '", want, "', got '", peek(), "'"));
    take();
    return {};
  }
  bool accept(std::string_view want) {
    if (peek() != want) return false;
    take();
    return true;
  }
  Status error(std::string_view message) const {
    return corrupt("graph text, line ", line_, ": ", message);
  }

 private:
  void read() {
    token_.clear();
    while (!rest_.empty() && std::isspace(static_cast<unsigned char>(rest_.front()))) {
      if (rest_.front() == '\n') ++line_;
      rest_.remove_prefix(1);
    }
    if (rest_.empty()) return;
    if (rest_.front() == '"') {
      rest_.remove_prefix(1);
      while (!rest_.empty() && rest_.front() != '"') {
        if (rest_.front() == '\\' && rest_.size() > 1) rest_.remove_prefix(1);
        token_ += rest_.front();
        rest_.remove_prefix(1);
      }
      if (!rest_.empty()) rest_.remove_prefix(1);
      return;
    }
    if (!plain(rest_.front()) && rest_.front() != '%') {
      token_ = rest_.front();
      rest_.remove_prefix(1);
      return;
    }
    do {
      token_ += rest_.front();
      rest_.remove_prefix(1);
    } while (!rest_.empty() && (plain(rest_.front()) || rest_.front() == '+'));
  }

  std::string_view rest_;
  std::string token_;
  bool ready_ = false;
  int line_ = 1;
};

Result<Dim> parse_dim(Lexer& in) {
  const std::string word = in.take();
  std::size_t at = 0;
  Dim dim;
  if (!word.empty() && word[0] >= 'A' && word[0] <= 'Z') dim.symbol = word[at++];
  if (at < word.size()) {
    if (dim.symbol && word[at] == '+') ++at;
    const char* const end = word.data() + word.size();
    const auto [stop, error] = std::from_chars(word.data() + at, end, dim.value);
    if (error != std::errc() || stop != end) {
      return in.error("expected a dimension such as T, S+1 or 768, got " + word);
    }
  } else if (!dim.symbol) {
    return in.error("expected a dimension");
  }
  return dim;
}

Result<Type> parse_type(Lexer& in) {
  const std::string word = in.take();
  const auto dtype = parse_dtype(word);
  if (!dtype) return in.error("expected a type such as f32, got " + word);
  KRAIT_TRY(in.expect("["));
  std::vector<Dim> dims;
  do {
    if (dims.size() == kMaxRank) return in.error(cat("expected at most ", kMaxRank, " dimensions"));
    KRAIT_ASSIGN(const Dim dim, parse_dim(in));
    dims.push_back(dim);
  } while (in.accept(","));
  KRAIT_TRY(in.expect("]"));
  const Shape shape{std::span<const Dim>(dims)};
  if (const Status status = check_shape(shape); !status.ok()) return in.error(status.message());
  return Type{*dtype, shape};
}

/// One op line, from its results on.
Status parse_node(Lexer& in, Graph& graph, std::map<std::string, Id>& known, bool constant) {
  std::vector<std::pair<std::string, Type>> results;
  do {
    const std::string name = in.take();
    if (name.empty() || name[0] != '%')
      return in.error("expected a result such as %0, got " + name);
    KRAIT_TRY(in.expect(":"));
    KRAIT_ASSIGN(const Type type, parse_type(in));
    results.emplace_back(name, type);
  } while (in.accept(","));
  KRAIT_TRY(in.expect("="));
  const std::string name = in.take();
  const Op* op = find_op(name);
  if (!op) return in.error("there is no op named " + name);
  KRAIT_TRY(in.expect("("));
  std::vector<Id> inputs(op->inputs.size(), kNone);
  while (!in.accept(")")) {
    const std::string operand = in.take();
    const int at = input_index(*op, operand);
    if (at < 0) return in.error(cat("[", name, "] has no operand ", operand));
    KRAIT_TRY(in.expect(":"));
    const std::string value = in.take();
    const auto found = known.find(value);
    if (found == known.end()) return in.error(value + " is not defined");
    inputs[static_cast<std::size_t>(at)] = found->second;
    in.accept(",");
  }
  Attrs attrs = default_attrs(*op);
  if (in.accept("{")) {
    while (!in.accept("}")) {
      const std::string attribute = in.take();
      KRAIT_TRY(in.expect("="));
      const std::string value = in.take();
      char* end = nullptr;
      const double number = std::strtod(value.c_str(), &end);
      const Status status = !value.empty() && !*end ? set_attr(*op, attrs, attribute, number)
                                                    : set_attr(*op, attrs, attribute, value);
      if (!status.ok()) return in.error(status.message());
      in.accept(",");
    }
  }
  const auto node = append(graph, *op, std::move(inputs), attrs);
  if (!node.ok()) return in.error(node.message());
  graph.nodes.back().constant = constant;
  std::size_t next = 0;
  for (const Id id : (*node)->outputs) {
    if (id == kNone) continue;
    if (next == results.size() || graph[id].type != results[next].second) {
      return in.error(cat("[", name, "] yields ", to_string(graph[id].type)));
    }
    if (!known.emplace(results[next++].first, id).second)
      return in.error("a result is defined twice");
  }
  if (next != results.size()) return in.error(cat("[", name, "] yields only ", next, " results"));
  return {};
}

}  // namespace

Result<Graph> parse(std::string_view text) {
  Lexer in(text);
  Graph graph;
  std::map<std::string, Id> known;
  KRAIT_TRY(in.expect("graph"));
  graph.name = in.take();
  KRAIT_TRY(in.expect("{"));
  while (!in.accept("}")) {
    const std::string_view word = in.peek();
    if (word.empty()) return in.error("expected '}'");
    bool declared = false;
    for (int kind = 0; kind < 3 && !declared; ++kind) {
      if (!in.accept(kKinds[kind])) continue;
      declared = true;
      Value value{static_cast<Kind>(kind), {}, in.take()};
      KRAIT_TRY(in.expect(":"));
      KRAIT_ASSIGN(value.type, parse_type(in));
      if (!known.emplace(value.name, static_cast<Id>(graph.values.size())).second) {
        return in.error(value.name + " is declared twice");
      }
      graph.values.push_back(std::move(value));
    }
    if (declared) continue;
    if (word == "output" || word == "tap") {
      Output output;
      output.tap = in.take() == "tap";
      output.name = in.take();
      KRAIT_TRY(in.expect("="));
      const auto found = known.find(in.take());
      if (found == known.end()) return in.error("output " + output.name + " is not defined");
      output.value = found->second;
      graph.outputs.push_back(std::move(output));
      continue;
    }
    const bool constant = in.accept("const");
    KRAIT_TRY(parse_node(in, graph, known, constant));
  }
  if (!in.peek().empty()) return in.error(cat("expected the end, got '", in.peek(), "'"));
  KRAIT_TRY(verify(graph));
  return graph;
}

std::string dot(const Graph& graph) {
  const Names names(graph);
  const auto escape = [](std::string_view text) {
    std::string result;
    for (const char c : text) {
      if (c == '"' || c == '\\') result += '\\';
      result += c;
    }
    return result;
  };
  std::ostringstream out;
  out << "digraph \"" << escape(graph.name) << "\" {\n  node [shape=box, fontname=monospace];\n";
  const std::vector<int> made_by = producers(graph);
  for (Id id = 0; id < static_cast<Id>(graph.values.size()); ++id) {
    const Value& value = graph[id];
    if (value.kind == Kind::result) continue;
    out << "  v" << id << " [label=\"" << escape(value.name) << "\\n"
        << to_string(value.type)
        << "\", style=" << (value.kind == Kind::weight ? "dashed" : "rounded") << "];\n";
  }
  const auto source = [&](Id id) {
    const int node = made_by[static_cast<std::size_t>(id)];
    return node < 0 ? cat("v", id) : cat("n", node);
  };
  for (std::size_t n = 0; n < graph.nodes.size(); ++n) {
    const Node& node = graph.nodes[n];
    out << "  n" << n << " [label=\"" << node.op->name;
    if (const std::string attrs = to_string(*node.op, node.attrs); !attrs.empty())
      out << "\\n" << escape(attrs);
    out << "\"" << (node.constant ? ", style=dashed" : ", style=bold") << "];\n";
    for (std::size_t i = 0; i < node.inputs.size(); ++i) {
      if (node.inputs[i] == kNone) continue;
      out << "  " << source(node.inputs[i]) << " -> n" << n << " [label=\""
          << node.op->inputs[i].name << "\"];\n";
    }
  }
  for (std::size_t i = 0; i < graph.outputs.size(); ++i) {
    out << "  o" << i << " [label=\"" << escape(graph.outputs[i].name) << "\", shape=ellipse];\n  "
        << source(graph.outputs[i].value) << " -> o" << i << ";\n";
  }
  out << "}\n";
  return std::move(out).str();
}

}  // namespace krait::ir
