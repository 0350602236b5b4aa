// Any text as a graph: an error, or a graph that prints and parses back, survives every pass, and
// runs within its memory.
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <string_view>
#include <vector>

#include "backends/backend.h"
#include "graph/ir.h"
#include "runtime/plan/execution.h"
#include "runtime/session/inputs.h"
#include "tests/fuzz/require.h"

namespace krait {
namespace {

using test::require;

/// Weights of zeros.
class Zeros final : public WeightSource {
 public:
  explicit Zeros(const ir::Graph& graph) : graph_(graph) {}
  Result<TensorView> find(std::string_view name) const override {
    for (const ir::Value& value : graph_.values) {
      if (value.kind != ir::Kind::weight || value.name != name) continue;
      if (value.type.shape.symbolic()) break;
      return dense_view(zeros_, value.type.dtype, value.type.shape);
    }
    return Status(Code::not_found, "no such weight");
  }

 private:
  const ir::Graph& graph_;
  alignas(64) static inline std::byte zeros_[1 << 17];
};

/// Elements of all values in a call, or −1 if they are too many for a fuzzer's patience.
std::int64_t elements(const ir::Graph& graph, const Sizes& sizes) {
  std::int64_t total = 0;
  for (const ir::Value& value : graph.values) {
    const std::int64_t count = resolve(value.type.shape, sizes).elements();
    if (count < 0 || (total += count) > 10000) return -1;
  }
  return total;
}

/// One call of two sequences of one and two tokens, if the graph is one that sessions would run.
void run(const std::shared_ptr<const ir::Graph>& graph, const std::shared_ptr<Device>& device) {
  const Sizes sizes{3, 2, 2, 4, false};
  const auto bounds = index_bounds(*graph);
  if (!bounds.ok() || graph->nodes.size() > 60 || elements(*graph, sizes) < 0) return;
  static const std::int32_t kStarts[] = {0, 1, 3}, kSlots[] = {2, 0}, kRows[] = {2, 0};
  static const std::vector<double> kZeros(10000);
  std::vector<const void*> values;
  for (const ir::Value& value : graph->values) {
    values.push_back(value.name == "starts"     ? static_cast<const void*>(kStarts)
                     : value.name == "slot_in"  ? kSlots
                     : value.name == "slot_out" ? kSlots
                     : value.name == "rows"     ? static_cast<const void*>(kRows)
                                                : kZeros.data());
  }
  if (!check_bounds(*graph, *bounds, sizes, values).ok()) return;
  WeightStore weights(graph, std::make_shared<Zeros>(*graph), device);
  const auto plan = make_plan(*graph, device, weights, bucket(sizes));
  if (!plan.ok()) return;
  const auto arena = device->allocate((*plan)->arena_bytes);
  require(arena.ok());
  std::vector<std::unique_ptr<Buffer>> states;
  std::vector<Buffer*> pointers;
  for (const ir::Id id : (*plan)->states) {
    const Type& type = (*graph)[id].type;
    const std::int64_t bytes = bytes_of(type.dtype, resolve(type.shape, sizes).elements());
    auto state = device->allocate(bytes);
    require(state.ok() && device->fill_zero(**state, 0, bytes).ok());
    states.push_back(std::move(*state));
    pointers.push_back(states.back().get());
  }
  Execution execution(*plan, pointers, arena->get());
  if (!execution.prepare(sizes).ok()) return;
  for (std::size_t id = 0; id < values.size(); ++id) {
    if (graph->values[id].kind != ir::Kind::input) continue;
    const TensorView& view = execution.view(static_cast<ir::Id>(id));
    require(device->upload(values[id], **arena, view.offset, bytes_of(view.dtype, view.elements()))
                .ok());
  }
  (void)execution.run();
}

void fuzz(std::string_view text) {
  static const std::shared_ptr<Device> device = *open_device("reference");
  static const ir::HasKernel has_kernel = kernel_predicate(device);
  const auto parsed = ir::parse(text);
  if (!parsed.ok()) {
    require(parsed.status().code() == Code::corrupt ||
            parsed.status().code() == Code::invalid_argument);
    return;
  }
  const std::string printed = ir::print(*parsed);
  const auto again = ir::parse(printed);
  require(again.ok() && ir::print(*again) == printed);
  require(!ir::dot(*parsed).empty());
  run(std::make_shared<const ir::Graph>(*parsed), device);
  for (const ir::PassContext& context :
       {ir::PassContext{has_kernel, DType::f64, DType::f64}, {nullptr, DType::bf16, DType::f32}}) {
    const auto optimised = ir::optimise(*parsed, context);
    if (!optimised.ok()) {
      // What a lowering makes impossible is the graph's fault; a broken graph would be a pass's.
      require(optimised.status().code() != Code::internal ||
              optimised.message().find("lower_types") != std::string::npos);
      continue;
    }
    const std::string after = ir::print(*optimised);
    const auto back = ir::parse(after);
    require(back.ok() && ir::print(*back) == after);
    if (context.wide == DType::f64) run(std::make_shared<const ir::Graph>(*optimised), device);
  }
}

}  // namespace
}  // namespace krait

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  krait::fuzz({reinterpret_cast<const char*>(data), size});
  return 0;
}
