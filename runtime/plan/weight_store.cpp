#include "runtime/plan/weight_store.h"

#include <algorithm>
#include <iterator>

#include "backends/host_memory.h"
#include "ops/case.h"
#include "runtime/core/convert.h"
#include "runtime/core/try.h"

namespace krait {

Result<TensorView> WeightStore::stored(const ir::Value& weight) const {
  KRAIT_ASSIGN(TensorView view, source_->find(weight.name));
  const Type have{view.dtype, shape_of(view)};
  if (have.dtype != weight.type.dtype || have.shape.elements() != weight.type.shape.elements()) {
    return invalid("weight ", weight.name, ": expected ", to_string(weight.type), ", got ",
                   to_string(have));
  }
  // The file's shape may hold axes of one element, as conv1d.weight [D, 1, K] does.
  return dense_view(view.memory, view.dtype, weight.type.shape, view.offset);
}

/// Computes, in order, the constant nodes that `value` depends on.
Result<WeightStore::Host> WeightStore::evaluate(ir::Id value) const {
  const ir::Graph& graph = *graph_;
  std::vector<char> needed(graph.values.size());
  const auto need = [&](ir::Id id) -> char& { return needed[static_cast<std::size_t>(id)]; };
  const auto any_needed = [&](const ir::Node& node) {
    return std::any_of(node.outputs.begin(), node.outputs.end(),
                       [&](ir::Id id) { return id != ir::kNone && need(id); });
  };
  need(value) = 1;
  for (auto node = graph.nodes.rbegin(); node != graph.nodes.rend(); ++node) {
    if (!any_needed(*node)) continue;
    for (const ir::Id id : node->inputs) {
      if (id != ir::kNone) need(id) = 1;
    }
  }
  std::vector<TensorView> views(graph.values.size());
  std::vector<std::unique_ptr<Buffer>> owned;
  const auto view = [&](ir::Id id) -> TensorView& { return views[static_cast<std::size_t>(id)]; };
  const auto allocate = [&](ir::Id id) -> Status {
    const Type& type = graph[id].type;
    KRAIT_ASSIGN(std::unique_ptr<Buffer> buffer,
                 HostBuffer::allocate(bytes_of(type.dtype, type.shape.elements())));
    view(id) = dense_view(buffer->memory(), type.dtype, type.shape);
    owned.push_back(std::move(buffer));
    return {};
  };
  for (std::size_t id = 0; id < views.size(); ++id) {
    if (!needed[id] || graph.values[id].kind != ir::Kind::weight) continue;
    KRAIT_ASSIGN(views[id], stored(graph.values[id]));
  }
  for (const ir::Node& node : graph.nodes) {
    if (!any_needed(node)) continue;
    Call call;
    call.op = node.op;
    call.attrs = node.attrs;
    for (std::size_t i = 0; i < node.inputs.size(); ++i) {
      if (node.inputs[i] != ir::kNone) call.inputs[i] = view(node.inputs[i]);
    }
    if (node.op->view) {
      KRAIT_ASSIGN(const TensorView part, node.op->view(call.inputs[0], node.attrs));
      // Copied, since layouts and uploads take dense tensors.
      KRAIT_TRY(allocate(node.outputs[0]));
      KRAIT_TRY(convert(part, view(node.outputs[0])));
      continue;
    }
    for (std::size_t o = 0; o < node.outputs.size(); ++o) {
      if (node.outputs[o] == ir::kNone) continue;
      KRAIT_TRY(allocate(node.outputs[o]));
      call.outputs[o] = view(node.outputs[o]);
    }
    KRAIT_TRY(check(call));
    KRAIT_TRY(check_indices(call));
    KRAIT_TRY(run_reference(call));
  }
  for (std::unique_ptr<Buffer>& buffer : owned) {
    if (buffer->memory() == view(value).memory) return Host{view(value), std::move(buffer)};
  }
  return Host{view(value), nullptr};
}

/// In parts where the layout allows it, so that of the file only the part at hand is in memory.
/// `weight` is its name, empty for what was computed.
void WeightStore::pack(const TensorView& stored, const WeightLayout& layout,
                       std::string_view weight, std::byte* packed) const {
  constexpr std::int64_t kPartBytes = std::int64_t{4} << 20;
  const std::int64_t rows = stored.dim[0];
  const std::int64_t row =
      bytes_of(stored.dtype, stored.elements()) / std::max<std::int64_t>(rows, 1);
  if (!layout.pack_part || weight.empty() || row <= 0) return layout.pack(stored, packed);
  const std::int64_t step =
      std::max<std::int64_t>(kPartBytes / (row * layout.part_rows), 1) * layout.part_rows;
  for (std::int64_t first = 0; first < rows; first += step) {
    const std::int64_t count = std::min(step, rows - first);
    layout.pack_part(stored, first, count, packed);
    source_->release_part(weight, first * row, count * row);
  }
}

Result<TensorView> WeightStore::place(Host host, const WeightLayout* layout,
                                      std::string_view weight) {
  if (layout) {
    TensorView view = layout->view(host.view);
    KRAIT_ASSIGN(std::unique_ptr<Buffer> packed, HostBuffer::allocate(layout->bytes(host.view)));
    pack(host.view, *layout, weight, static_cast<std::byte*>(packed->memory()));
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

Result<TensorView> WeightStore::get(ir::Id value, const WeightLayout* layout) {
  const auto key = std::pair(value, layout ? layout->name : std::string_view());
  const std::lock_guard lock(mutex_);
  if (const auto found = packed_.find(key); found != packed_.end()) return found->second;
  KRAIT_ASSIGN(Host host, evaluate(value));
  const ir::Value& declared = (*graph_)[value];
  const std::string_view weight =
      declared.kind == ir::Kind::weight ? declared.name : std::string_view();
  KRAIT_ASSIGN(const TensorView view, place(std::move(host), layout, weight));
  const bool copied = layout || !device_->uses_host_memory();
  if (!weight.empty() && copied) source_->release(weight);
  packed_.emplace(key, view);
  // Another layout of a value that was there already is no progress.
  const auto of_value = packed_.lower_bound({value, std::string_view()});
  const auto next = std::next(of_value);
  const bool first = next == packed_.end() || next->first.first != value;
  if (first && placed_) placed_(bytes_of(declared.type.dtype, declared.type.shape.elements()));
  return view;
}

void WeightStore::observe(std::function<void(std::int64_t)> placed) {
  const std::lock_guard lock(mutex_);
  placed_ = std::move(placed);
}

std::int64_t WeightStore::allocated_bytes() const {
  const std::lock_guard lock(mutex_);
  std::int64_t bytes = 0;
  for (const auto& buffer : buffers_) bytes += buffer->bytes();
  return bytes;
}

}  // namespace krait
