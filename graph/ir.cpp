#include "graph/ir.h"

#include <algorithm>
#include <set>

#include "runtime/core/try.h"

namespace krait::ir {
namespace {

std::array<const Type*, kMaxInputs> input_types(const Graph& graph, const std::vector<Id>& inputs) {
  std::array<const Type*, kMaxInputs> types{};
  for (std::size_t i = 0; i < inputs.size(); ++i) {
    if (inputs[i] != kNone) types[i] = &graph[inputs[i]].type;
  }
  return types;
}

/// Elements that a value may have, T, S, M and C aside.
constexpr std::int64_t kMaxElements = std::int64_t{1} << 46;
/// What may be added to a symbol, as in S+1.
constexpr std::int64_t kMaxOffset = 1 << 20;

/// Whether a value is a state or a later version of one.
std::vector<bool> state_versions(const Graph& graph) {
  std::vector<bool> result(graph.values.size());
  for (std::size_t id = 0; id < result.size(); ++id) {
    result[id] = graph.values[id].kind == Kind::state;
  }
  for (const Node& node : graph.nodes) {
    for (std::size_t o = 0; o < std::min(node.outputs.size(), node.op->outputs.size()); ++o) {
      const Id id = node.outputs[o];
      if (id < 0 || id >= static_cast<Id>(result.size())) continue;
      if (node.op->outputs[o].role == Role::state) result[static_cast<std::size_t>(id)] = true;
    }
  }
  return result;
}

}  // namespace

Status check_shape(const Shape& shape) {
  if (shape.invalid() || shape.rank() < 1) {
    return invalid("expected 1 to ", kMaxRank, " dimensions, got ", to_string(shape));
  }
  std::int64_t elements = 1;
  for (int axis = 0; axis < shape.rank(); ++axis) {
    const Dim& dim = shape[axis];
    if (dim.symbolic()) {
      if (axis > 0 || std::string_view("TSMC").find(dim.symbol) == std::string_view::npos) {
        return invalid(to_string(shape), ": expected T, S, M or C as the first extent only");
      }
      if (dim.value < 0 || dim.value > kMaxOffset) {
        return invalid(to_string(shape), ": expected a symbol plus 0 to ", kMaxOffset);
      }
    } else if (dim.value < 0 || __builtin_mul_overflow(elements, dim.value, &elements) ||
               elements > kMaxElements) {
      return invalid(to_string(shape), ": expected extents of at least 0 and at most ",
                     kMaxElements, " elements");
    }
  }
  return {};
}

Result<const Node*> append(Graph& graph, const Op& op, std::vector<Id> inputs, const Attrs& attrs) {
  inputs.resize(op.inputs.size(), kNone);
  for (std::size_t i = 0; i < inputs.size(); ++i) {
    if (inputs[i] < kNone || inputs[i] >= static_cast<Id>(graph.values.size())) {
      return invalid("[", op.name, "] ", op.inputs[i].name, ": is no value of this graph");
    }
  }
  KRAIT_ASSIGN(const InferredTypes inferred, infer(op, input_types(graph, inputs), attrs));
  for (std::size_t i = 0; i < op.outputs.size(); ++i) {
    if (!inferred.present[i]) continue;
    if (const Status status = check_shape(inferred.types[i].shape); !status.ok()) {
      return invalid("[", op.name, "] ", op.outputs[i].name, ": ", status.message());
    }
  }
  Node node{&op, std::move(inputs), {}, attrs, false};
  for (std::size_t i = 0; i < op.outputs.size(); ++i) {
    node.outputs.push_back(kNone);
    if (!inferred.present[i]) continue;
    node.outputs.back() = static_cast<Id>(graph.values.size());
    graph.values.push_back({Kind::result, inferred.types[i], {}});
  }
  graph.nodes.push_back(std::move(node));
  return &graph.nodes.back();
}

Status retype(Graph& graph, Node& node) {
  KRAIT_ASSIGN(const InferredTypes inferred,
               infer(*node.op, input_types(graph, node.inputs), node.attrs));
  for (std::size_t i = 0; i < node.outputs.size(); ++i) {
    if (node.outputs[i] != kNone) graph[node.outputs[i]].type = inferred.types[i];
  }
  return {};
}

Status verify(const Graph& graph) {
  const auto wrong = [&](const auto&... parts) {
    return invalid("graph ", graph.name, ": ", parts...);
  };
  const int count = static_cast<int>(graph.values.size());
  std::vector<bool> defined(graph.values.size());
  std::set<std::string_view> names;
  for (Id id = 0; id < count; ++id) {
    const Value& value = graph[id];
    if (value.kind == Kind::result) continue;
    if (value.name.empty() || value.name[0] == '%') {
      return wrong("expected a name that does not begin with %, got '", value.name, "'");
    }
    if (!names.insert(value.name).second) return wrong(value.name, " is declared twice");
    if (const Status status = check_shape(value.type.shape); !status.ok()) {
      return wrong(value.name, ": ", status.message());
    }
    if (value.kind == Kind::state &&
        (value.type.dtype != DType::f32 || value.type.shape.rank() < 2 ||
         value.type.shape[0] != dims::C)) {
      return wrong("state ", value.name, ": expected f32[C, ...], got ", to_string(value.type));
    }
    defined[static_cast<std::size_t>(id)] = true;
  }
  const std::vector<bool> is_state = state_versions(graph);
  std::vector<bool> consumed(graph.values.size());
  std::vector<bool> constant(graph.values.size());
  for (Id id = 0; id < count; ++id) {
    constant[static_cast<std::size_t>(id)] = graph[id].kind == Kind::weight;
  }
  for (const Node& node : graph.nodes) {
    if (node.inputs.size() != node.op->inputs.size() ||
        node.outputs.size() != node.op->outputs.size()) {
      return wrong("[", node.op->name, "] has the wrong number of operands");
    }
    for (std::size_t i = 0; i < node.inputs.size(); ++i) {
      const Id id = node.inputs[i];
      if (id == kNone) continue;
      if (id < 0 || id >= count || !defined[static_cast<std::size_t>(id)]) {
        return wrong("[", node.op->name, "] ", node.op->inputs[i].name,
                     " is used before it is defined");
      }
      if ((node.op->inputs[i].role == Role::state) != is_state[static_cast<std::size_t>(id)]) {
        return wrong("[", node.op->name, "] ", node.op->inputs[i].name, ": expected ",
                     is_state[static_cast<std::size_t>(id)] ? "no state" : "a state",
                     "; states go to the ops that update them, and nothing else does");
      }
      if (node.op->inputs[i].role == Role::state) {
        if (consumed[static_cast<std::size_t>(id)]) {
          return wrong("[", node.op->name, "] ", node.op->inputs[i].name,
                       ": this version of the state was already updated");
        }
        consumed[static_cast<std::size_t>(id)] = true;
      }
      if (node.constant && !constant[static_cast<std::size_t>(id)]) {
        return wrong("[", node.op->name, "] is constant but its operand ", node.op->inputs[i].name,
                     " is not");
      }
    }
    KRAIT_ASSIGN(const InferredTypes inferred,
                 infer(*node.op, input_types(graph, node.inputs), node.attrs));
    for (std::size_t i = 0; i < node.outputs.size(); ++i) {
      const Id id = node.outputs[i];
      if ((id != kNone) != inferred.present[i]) {
        return wrong("[", node.op->name, "] ", node.op->outputs[i].name,
                     " must be there exactly with ", node.op->outputs[i].only_with);
      }
      if (id == kNone) continue;
      if (id < 0 || id >= count || defined[static_cast<std::size_t>(id)]) {
        return wrong("[", node.op->name, "] ", node.op->outputs[i].name, " is defined twice");
      }
      if (graph[id].type != inferred.types[i]) {
        return wrong("[", node.op->name, "] ", node.op->outputs[i].name, ": expected ",
                     to_string(inferred.types[i]), ", got ", to_string(graph[id].type));
      }
      if (const Status status = check_shape(graph[id].type.shape); !status.ok()) {
        return wrong("[", node.op->name, "] ", node.op->outputs[i].name, ": ", status.message());
      }
      constant[static_cast<std::size_t>(id)] = node.constant;
      defined[static_cast<std::size_t>(id)] = true;
    }
  }
  std::set<std::string_view> outputs;
  for (const Output& output : graph.outputs) {
    if (output.value < 0 || output.value >= count ||
        !defined[static_cast<std::size_t>(output.value)]) {
      return wrong("output ", output.name, " is not defined");
    }
    if (!outputs.insert(output.name).second) return wrong("two outputs are named ", output.name);
  }
  return {};
}

std::vector<int> producers(const Graph& graph) {
  std::vector<int> result(graph.values.size(), -1);
  for (std::size_t n = 0; n < graph.nodes.size(); ++n) {
    for (const Id id : graph.nodes[n].outputs) {
      if (id != kNone) result[static_cast<std::size_t>(id)] = static_cast<int>(n);
    }
  }
  return result;
}

std::vector<int> use_counts(const Graph& graph) {
  std::vector<int> result(graph.values.size());
  for (const Node& node : graph.nodes) {
    for (const Id id : node.inputs) {
      if (id != kNone) ++result[static_cast<std::size_t>(id)];
    }
  }
  for (const Output& output : graph.outputs) ++result[static_cast<std::size_t>(output.value)];
  return result;
}

namespace {

/// Emits node `n` after the nodes it depends on.
void emit(const Graph& graph, const std::vector<int>& made_by, std::size_t n,
          std::vector<char>& done, std::vector<Node>& sorted) {
  // An explicit stack: graphs from text may chain arbitrarily deep.
  std::vector<std::size_t> stack{n};
  while (!stack.empty()) {
    const std::size_t top = stack.back();
    bool ready = true;
    for (const Id id : graph.nodes[top].inputs) {
      const int before = id == kNone ? -1 : made_by[static_cast<std::size_t>(id)];
      if (before >= 0 && !done[static_cast<std::size_t>(before)]) {
        stack.push_back(static_cast<std::size_t>(before));
        ready = false;
      }
    }
    if (!ready) continue;
    stack.pop_back();
    if (done[top]) continue;
    done[top] = 1;
    sorted.push_back(graph.nodes[top]);
  }
}

}  // namespace

void drop_dead_nodes(Graph& graph) {
  const std::vector<int> made_by = producers(graph);
  std::vector<char> alive(graph.nodes.size());
  std::vector<int> work;
  const auto need = [&](Id id) {
    const int node = id == kNone ? -1 : made_by[static_cast<std::size_t>(id)];
    if (node >= 0 && !alive[static_cast<std::size_t>(node)]) {
      alive[static_cast<std::size_t>(node)] = 1;
      work.push_back(node);
    }
  };
  for (const Output& output : graph.outputs) need(output.value);
  for (const Node& node : graph.nodes) {
    for (std::size_t i = 0; i < node.outputs.size(); ++i) {
      if (node.op->outputs[i].role == Role::state) need(node.outputs[i]);
    }
  }
  while (!work.empty()) {
    const Node& node = graph.nodes[static_cast<std::size_t>(work.back())];
    work.pop_back();
    for (const Id id : node.inputs) need(id);
  }
  std::vector<Node> sorted;
  std::vector<char> done(graph.nodes.size());
  for (std::size_t n = 0; n < graph.nodes.size(); ++n) {
    if (alive[n] && !done[n]) emit(graph, made_by, n, done, sorted);
  }
  graph.nodes = std::move(sorted);
}

void tidy(Graph& graph) {
  drop_dead_nodes(graph);
  // Declared values stay; results that no node yields any more go.
  std::vector<char> keep(graph.values.size());
  for (std::size_t id = 0; id < graph.values.size(); ++id)
    keep[id] = static_cast<char>(graph.values[id].kind != Kind::result);
  for (const Node& node : graph.nodes) {
    for (const Id id : node.outputs) {
      if (id != kNone) keep[static_cast<std::size_t>(id)] = 1;
    }
  }
  keep_values(graph, keep);
}

void keep_values(Graph& graph, const std::vector<char>& keep) {
  std::vector<Id> renumbered(graph.values.size(), kNone);
  std::vector<Value> values;
  for (std::size_t id = 0; id < graph.values.size(); ++id) {
    if (!keep[id]) continue;
    renumbered[id] = static_cast<Id>(values.size());
    values.push_back(std::move(graph.values[id]));
  }
  graph.values = std::move(values);
  const auto renumber = [&](Id& id) {
    if (id != kNone) id = renumbered[static_cast<std::size_t>(id)];
  };
  for (Node& node : graph.nodes) {
    for (Id& id : node.inputs) renumber(id);
    for (Id& id : node.outputs) renumber(id);
  }
  for (Output& output : graph.outputs) renumber(output.value);
}

void replace_uses(Graph& graph, Id from, Id to) {
  for (Node& node : graph.nodes) std::replace(node.inputs.begin(), node.inputs.end(), from, to);
  for (Output& output : graph.outputs) {
    if (output.value == from) output.value = to;
  }
}

}  // namespace krait::ir
