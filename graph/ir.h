// The intermediate representation: values in SSA form, nodes in execution order.
#pragma once

#include <functional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "ops/op.h"
#include <krait/graph.h>

namespace krait::ir {

using Id = int;  ///< position in Graph::values; −1: no value
inline constexpr Id kNone = -1;

enum class Kind : std::uint8_t { input, weight, state, result };

struct Value {
  Kind kind = Kind::result;
  Type type;
  std::string name;  ///< of inputs, weights and states; empty for results
};

struct Node {
  const Op* op = nullptr;
  std::vector<Id> inputs;   ///< one per definition of the op; kNone where absent
  std::vector<Id> outputs;  ///< likewise
  Attrs attrs{};
  /// Whether it is computed once from weights, when they are packed, instead of in every call.
  bool constant = false;
};

struct Output {
  std::string name;
  Id value = kNone;
  bool tap = false;
};

struct Graph {
  std::string name;
  std::vector<Value> values;
  std::vector<Node> nodes;  ///< each after those whose results it uses
  std::vector<Output> outputs;

  const Value& operator[](Id id) const { return values[static_cast<std::size_t>(id)]; }
  Value& operator[](Id id) { return values[static_cast<std::size_t>(id)]; }
};

/// Whether values may have this shape: 1 to kMaxRank extents of a size that leaves room for bytes
/// and strides; T, S, M and C, which only a call knows, are the first extent or none.
Status check_shape(const Shape& shape);

/// Appends a node after inferring its outputs' types and creating their values. `outputs` of the
/// returned node are the new values.
Result<const Node*> append(Graph& graph, const Op& op, std::vector<Id> inputs, const Attrs& attrs);

/// Infers again the types of a node's outputs, after its operands or attributes changed.
Status retype(Graph& graph, Node& node);

/// Checks everything a graph promises: order, arity, types as the ops infer them, unique names,
/// states used by ops that update them and by nothing else, each version once.
Status verify(const Graph& graph);

std::string print(const Graph& graph);
Result<Graph> parse(std::string_view text);
std::string dot(const Graph& graph);

/// For each value, the node that yields it (−1: none).
std::vector<int> producers(const Graph& graph);
/// For each value, how many operands and outputs use it.
std::vector<int> use_counts(const Graph& graph);
/// Every operand and output that used `from` uses `to`.
void replace_uses(Graph& graph, Id from, Id to);

/// Sorts nodes after those they depend on, else keeping their order, and drops what reaches neither
/// an output nor a state. A cycle would be an error of the caller: passes must not make one.
void drop_dead_nodes(Graph& graph);
/// drop_dead_nodes(), and the results that no node yields any more go: values are renumbered.
void tidy(Graph& graph);
/// Drops the values whose entry is 0 and renumbers the others; nothing may use the dropped ones.
void keep_values(Graph& graph, const std::vector<char>& keep);

// ---- passes: one file each in graph/passes/ ----------------------------------------------------

/// Whether the device has a kernel for the op on operands of these types (null where absent).
using HasKernel = std::function<bool(const Op&, std::span<const Type* const>, const Attrs&)>;

/// What passes may know of the device that the graph is for.
struct PassContext {
  HasKernel has_kernel;
  DType activation = DType::f32;
  DType wide = DType::f32;
};

struct Pass {
  std::string_view name;
  std::string_view summary;
  Status (*run)(Graph& graph, const PassContext& context);
};

/// Every pass, in the order in which optimise() runs them: passes.inc.
std::span<const Pass> all_passes();

/// Runs every pass and verifies the result. `without` names passes to leave out.
Result<Graph> optimise(Graph graph, const PassContext& context,
                       std::span<const std::string_view> without = {});

/// The passes that wait until a plan knows the sizes of its calls, since what they fuse pays (and
/// has kernels) only for some, such as decoding: plan_passes.inc.
std::span<const Pass> plan_passes();

/// Runs them. Values keep their numbers, so that inputs, outputs, weights and states are those of
/// `graph`; `context.has_kernel` answers for the plan's sizes.
Result<Graph> specialise(Graph graph, const PassContext& context);

}  // namespace krait::ir
