#include "runtime/plan/weight_store.h"

#include "backends/host_memory.h"
#include "ops/case.h"
#include "runtime/core/try.h"

namespace krait {

std::string recipe(const ir::Graph& graph, const std::vector<int>& producers, ir::Id value) {
  const int at = producers[static_cast<std::size_t>(value)];
  if (at < 0) return graph[value].name;
  const ir::Node& node = graph.nodes[static_cast<std::size_t>(at)];
  std::string text = std::string(node.op->name) + "(";
  for (const ir::Id input : node.inputs) {
    if (input != ir::kNone)
      text += (text.back() == '(' ? "" : ", ") + recipe(graph, producers, input);
  }
  if (const std::string attrs = to_string(*node.op, node.attrs); !attrs.empty())
    text += "; " + attrs;
  return text + ")";
}

Result<WeightStore::Host> WeightStore::evaluate(const ir::Graph& graph,
                                                const std::vector<int>& producers,
                                                ir::Id value) const {
  const int at = producers[static_cast<std::size_t>(value)];
  const Type& type = graph[value].type;
  if (at < 0) {
    KRAIT_ASSIGN(const TensorView stored, source_->find(graph[value].name));
    const Type have{stored.dtype, shape_of(stored)};
    if (have.dtype != type.dtype || have.shape.elements() != type.shape.elements()) {
      return invalid("weight ", graph[value].name, ": expected ", to_string(type), ", got ",
                     to_string(have));
    }
    // The file's shape may hold axes of one element, as conv1d.weight [D, 1, K] does.
    return Host{dense_view(stored.memory, stored.dtype, type.shape, stored.offset), nullptr};
  }
  const ir::Node& node = graph.nodes[static_cast<std::size_t>(at)];
  Call call;
  call.op = node.op;
  call.attrs = node.attrs;
  std::vector<Host> operands;
  for (std::size_t i = 0; i < node.inputs.size(); ++i) {
    if (node.inputs[i] == ir::kNone) continue;
    KRAIT_ASSIGN(Host operand, evaluate(graph, producers, node.inputs[i]));
    call.inputs[i] = operand.view;
    operands.push_back(std::move(operand));
  }
  if (node.op->view) {
    KRAIT_ASSIGN(TensorView view, node.op->view(call.inputs[0], node.attrs));
    return Host{view, std::move(operands[0].owned)};
  }
  Host result;
  for (std::size_t o = 0; o < node.outputs.size(); ++o) {
    if (node.outputs[o] == ir::kNone) continue;
    const Type& out = graph[node.outputs[o]].type;
    KRAIT_ASSIGN(std::unique_ptr<Buffer> buffer,
                 HostBuffer::allocate(bytes_of(out.dtype, out.shape.elements())));
    call.outputs[o] = dense_view(buffer->memory(), out.dtype, out.shape);
    if (node.outputs[o] == value)
      result = {call.outputs[o], std::move(buffer)};
    else
      operands.push_back({call.outputs[o], std::move(buffer)});
  }
  KRAIT_TRY(check(call));
  KRAIT_TRY(run_reference(call));
  return result;
}

Result<TensorView> WeightStore::place(Host host, const WeightLayout* layout) {
  if (layout) {
    TensorView view = layout->view(host.view);
    KRAIT_ASSIGN(std::unique_ptr<Buffer> packed, HostBuffer::allocate(layout->bytes(host.view)));
    layout->pack(host.view, static_cast<std::byte*>(packed->memory()));
    view.memory = packed->memory();
    view.offset = 0;
    host = {view, std::move(packed)};
  }
  const std::int64_t bytes =
      layout ? host.owned->bytes() : bytes_of(host.view.dtype, host.view.elements());
  if (device_->uses_host_memory()) {
    if (host.owned) buffers_.push_back(std::move(host.owned));
    return host.view;
  }
  KRAIT_ASSIGN(std::unique_ptr<Buffer> buffer, device_->allocate(bytes));
  KRAIT_TRY(device_->upload(host.view.as<std::byte>(), *buffer, 0, bytes));
  host.view.memory = buffer->memory();
  host.view.offset = 0;
  buffers_.push_back(std::move(buffer));
  return host.view;
}

Result<TensorView> WeightStore::get(const ir::Graph& graph, ir::Id value,
                                    const WeightLayout* layout) {
  const std::vector<int> made_by = ir::producers(graph);
  const std::string base = recipe(graph, made_by, value);
  const std::string key = base + (layout ? " @ " + std::string(layout->name) : "");
  const std::lock_guard lock(mutex_);
  if (const auto found = packed_.find(key); found != packed_.end()) return found->second;
  KRAIT_ASSIGN(Host host, evaluate(graph, made_by, value));
  const bool from_source = made_by[static_cast<std::size_t>(value)] < 0;
  KRAIT_ASSIGN(const TensorView view, place(std::move(host), layout));
  const bool copied = layout || !device_->uses_host_memory();
  if (from_source && copied) source_->release(base);
  packed_.emplace(key, view);
  return view;
}

std::int64_t WeightStore::allocated_bytes() const {
  const std::lock_guard lock(mutex_);
  std::int64_t bytes = 0;
  for (const auto& buffer : buffers_) bytes += buffer->bytes();
  return bytes;
}

}  // namespace krait
