// GraphBuilder: the public way to make a graph.
#include "graph/ir.h"
#include "runtime/core/try.h"
#include <krait/graph.h>

namespace krait {

struct GraphBuilder::Impl {
  ir::Graph graph;
  Status error;

  Value declare(ir::Kind kind, std::string_view name, DType dtype, const Shape& shape) {
    if (const Status status = ir::check_shape(shape); !status.ok()) {
      return fail(invalid(name, ": ", status.message()));
    }
    graph.values.push_back({kind, {dtype, shape}, std::string(name)});
    return {static_cast<int>(graph.values.size()) - 1};
  }
  Value fail(Status status) {
    if (error.ok()) error = std::move(status);
    return {};
  }
};

GraphBuilder::GraphBuilder(std::string name) : impl_(std::make_unique<Impl>()) {
  impl_->graph.name = std::move(name);
}
GraphBuilder::~GraphBuilder() = default;
GraphBuilder::GraphBuilder(GraphBuilder&&) noexcept = default;
GraphBuilder& GraphBuilder::operator=(GraphBuilder&&) noexcept = default;

Value GraphBuilder::input(std::string_view name, DType dtype, const Shape& shape) {
  return impl_->declare(ir::Kind::input, name, dtype, shape);
}

Value GraphBuilder::weight(std::string_view name, DType dtype, const Shape& shape) {
  return impl_->declare(ir::Kind::weight, name, dtype, shape);
}

Value GraphBuilder::parameter(std::string_view name, DType dtype, const Shape& shape) {
  const Value stored = weight(name, dtype, shape);
  if (dtype == DType::f32) return stored;
  return op("cast", {{"x", stored}}, {{"dtype", "f32"}});
}

Value GraphBuilder::state(std::string_view name, const Shape& shape) {
  return impl_->declare(ir::Kind::state, name, DType::f32, shape);
}

Outputs GraphBuilder::op(std::string_view name, std::initializer_list<Operand> operands,
                         std::initializer_list<Attribute> attributes) {
  if (!impl_->error.ok()) return {};
  const Op* op = find_op(name);
  if (!op) return {impl_->fail(not_found("there is no op named ", name)), {}};
  std::vector<ir::Id> inputs(op->inputs.size(), ir::kNone);
  for (const auto& [operand, value] : operands) {
    const int at = input_index(*op, operand);
    if (at < 0) return {impl_->fail(invalid("[", name, "] has no operand ", operand)), {}};
    inputs[static_cast<std::size_t>(at)] = value.id;
  }
  Attrs attrs = default_attrs(*op);
  for (const auto& [attribute, value] : attributes) {
    Status status = std::holds_alternative<double>(value)
                        ? set_attr(*op, attrs, attribute, std::get<double>(value))
                        : set_attr(*op, attrs, attribute, std::get<std::string_view>(value));
    if (!status.ok()) return {impl_->fail(std::move(status)), {}};
  }
  const auto node = ir::append(impl_->graph, *op, std::move(inputs), attrs);
  if (!node.ok()) return {impl_->fail(node.status()), {}};
  const std::vector<ir::Id>& outputs = (*node)->outputs;
  return {{outputs[0]}, {outputs.size() > 1 ? outputs[1] : ir::kNone}};
}

Value GraphBuilder::slice(Value x, std::int64_t offset, std::int64_t size) {
  return op("slice", {{"x", x}},
            {{"offset", static_cast<double>(offset)}, {"size", static_cast<double>(size)}});
}

void GraphBuilder::output(std::string_view name, Value value) {
  impl_->graph.outputs.push_back({std::string(name), value.id, false});
}

void GraphBuilder::tap(std::string_view name, Value value) {
  impl_->graph.outputs.push_back({std::string(name), value.id, true});
}

Result<Graph> GraphBuilder::build() {
  return guarded([&]() -> Result<Graph> {
    KRAIT_TRY(impl_->error);
    KRAIT_TRY(ir::verify(impl_->graph));
    return Graph(std::make_shared<const ir::Graph>(impl_->graph));
  });
}

std::string Graph::print() const {
  return ir::print(*ir_);
}
std::string Graph::dot() const {
  return ir::dot(*ir_);
}

Result<Graph> Graph::parse(std::string_view text) {
  return guarded([&]() -> Result<Graph> {
    KRAIT_ASSIGN(ir::Graph graph, ir::parse(text));
    return Graph(std::make_shared<const ir::Graph>(std::move(graph)));
  });
}

}  // namespace krait
