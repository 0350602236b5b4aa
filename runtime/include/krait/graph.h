// Graphs: what a model computes, as ops over named values. Built by Krait's model builders or by an
// embedder, checked, printed, and run through krait/session.h.
#pragma once

#include <initializer_list>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <variant>

#include <krait/export.h>
#include <krait/status.h>
#include <krait/tensor.h>

namespace krait {

namespace ir {
struct Graph;
}

/// A value of the graph being built. A default-made one is no value.
struct Value {
  int id = -1;
  explicit operator bool() const { return id >= 0; }
};

/// The outputs of an op: the first, and the second where it has one (a state's new version, a
/// residual sum, top_k's ids).
struct Outputs {
  Value first;
  Value second;
  operator Value() const { return first; }
};

/// A named operand or attribute: {"x", value}, {"eps", 1e-5}, {"activation", "silu"}.
using Operand = std::pair<std::string_view, Value>;
using Attribute = std::pair<std::string_view, std::variant<double, std::string_view>>;

/// A checked graph; immutable and cheap to copy.
class KRAIT_API Graph {
 public:
  /// Text that parse() reads back: inputs, states, weights and one line per op.
  std::string print() const;
  static Result<Graph> parse(std::string_view text);
  /// For Graphviz.
  std::string dot() const;

  const ir::Graph& ir() const { return *ir_; }
  explicit Graph(std::shared_ptr<const ir::Graph> ir) : ir_(std::move(ir)) {}

 private:
  std::shared_ptr<const ir::Graph> ir_;
};

/// Builds a graph op by op. The first error sticks and is returned by build(), so calls need no
/// checks in between.
class KRAIT_API GraphBuilder {
 public:
  explicit GraphBuilder(std::string name);
  ~GraphBuilder();
  GraphBuilder(GraphBuilder&&) noexcept;
  GraphBuilder& operator=(GraphBuilder&&) noexcept;

  /// What a call provides: token ids (i32[T]), `starts` (i32[S+1]), rows, continuous features …
  Value input(std::string_view name, DType dtype, const Shape& shape);
  /// A named constant tensor, in the storage type it has.
  Value weight(std::string_view name, DType dtype, const Shape& shape);
  /// As weight(), converted once to f32: for parameters that kernels take in float32 only.
  Value parameter(std::string_view name, DType dtype, const Shape& shape);
  /// A state of every sequence, f32[C, …]; `shape` starts with dims::C.
  Value state(std::string_view name, const Shape& shape);

  /// A call of the op `name`; the ops are listed in README.md. Optional operands may be left out or
  /// be no value.
  Outputs op(std::string_view name, std::initializer_list<Operand> operands,
             std::initializer_list<Attribute> attributes = {});
  /// Columns [offset, offset + size) of the last axis: a view, no copy.
  Value slice(Value x, std::int64_t offset, std::int64_t size);

  /// Names a result of the graph.
  void output(std::string_view name, Value value);
  /// As output(), for observation: ops are not fused across a tapped value.
  void tap(std::string_view name, Value value);

  Result<Graph> build();

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace krait
