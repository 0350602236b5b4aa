#include "runtime/session/program.h"

#include <algorithm>

#include "runtime/core/try.h"
#include "runtime/model/model_impl.h"

namespace krait {
namespace {

class CheckpointWeights final : public WeightSource {
 public:
  explicit CheckpointWeights(std::shared_ptr<const Checkpoint> checkpoint)
      : checkpoint_(std::move(checkpoint)) {}

  Result<TensorView> find(std::string_view name) const override {
    KRAIT_ASSIGN(const CheckpointTensor* tensor, checkpoint_->get(name));
    // Kernels never write weights; views have one pointer type for all operands.
    return dense_view(const_cast<std::byte*>(tensor->data), tensor->dtype, tensor->shape);
  }
  void release(std::string_view name) const override {
    if (const CheckpointTensor* tensor = checkpoint_->find(name)) checkpoint_->release(*tensor);
  }
  void release_part(std::string_view name, std::int64_t offset, std::int64_t bytes) const override {
    if (const CheckpointTensor* tensor = checkpoint_->find(name))
      checkpoint_->release(*tensor, offset, bytes);
  }

 private:
  std::shared_ptr<const Checkpoint> checkpoint_;
};

}  // namespace

Program::Impl::Impl(Model m, std::shared_ptr<Device> d, const ProgramOptions& o,
                    std::shared_ptr<const ir::Graph> i, std::vector<IndexBound> b,
                    std::shared_ptr<const WeightSource> source)
    : model(std::move(m)),
      device(std::move(d)),
      options(o),
      graph(i),
      ir(std::move(i)),
      bounds(std::move(b)),
      weights(ir, std::move(source), device) {}

Result<std::shared_ptr<const Plan>> Program::Impl::plan(const Sizes& sizes) {
  const Sizes key = bucket(sizes);
  const std::lock_guard lock(mutex_);
  if (const auto found = plans_.find(key); found != plans_.end()) return found->second;
  KRAIT_ASSIGN(std::shared_ptr<const Plan> plan,
               make_plan(*ir, device, weights, key, options.activations));
  plans_.emplace(key, plan);
  return plan;
}

Result<Program> Program::create(const Model& model, std::shared_ptr<Device> device,
                                const ProgramOptions& options) {
  return guarded([&]() -> Result<Program> {
    if (!device) return invalid("Program::create: no device");
    const PlanTypes types = device->plan_types(options.activations);
    KRAIT_ASSIGN(ir::Graph optimised,
                 ir::optimise(model.graph().ir(), {kernel_predicate(device, options.activations),
                                                   types.activation, types.wide}));
    auto graph = std::make_shared<const ir::Graph>(std::move(optimised));
    KRAIT_ASSIGN(std::vector<IndexBound> bounds, index_bounds(*graph));
    auto source = std::make_shared<CheckpointWeights>(model.impl().checkpoint);
    return Program(std::make_shared<Impl>(model, std::move(device), options, std::move(graph),
                                          std::move(bounds), std::move(source)));
  });
}

Status Program::prepare(
    const std::function<void(std::int64_t done, std::int64_t total)>& progress) const {
  return guarded([&]() -> Status {
    const ir::Graph& graph = *impl_->ir;
    std::vector<bool> constant(graph.values.size()), used(graph.values.size());
    for (std::size_t id = 0; id < graph.values.size(); ++id)
      constant[id] = graph.values[id].kind == ir::Kind::weight;
    for (const ir::Node& node : graph.nodes) {
      for (const ir::Id id : node.constant ? node.outputs : node.inputs) {
        if (id == ir::kNone) continue;
        (node.constant ? constant : used)[static_cast<std::size_t>(id)] = true;
      }
    }
    std::int64_t total = 0;
    for (std::size_t id = 0; id < graph.values.size(); ++id) {
      const Type& type = graph.values[id].type;
      if (constant[id] && used[id]) total += bytes_of(type.dtype, type.shape.elements());
    }
    if (progress) {
      impl_->weights.observe([progress, total, done = std::int64_t{0}](std::int64_t bytes) mutable {
        progress(done += bytes, total);
      });
    }
    // Every plan takes the same weights; that of a step is the smallest.
    const Status planned = impl_->plan({1, 1, 1, 1, true}).status();
    impl_->weights.observe(nullptr);
    KRAIT_TRY(planned);
    return impl_->device->synchronize();
  });
}

const Model& Program::model() const {
  return impl_->model;
}
const DeviceInfo& Program::device() const {
  return impl_->device->info();
}
const Graph& Program::graph() const {
  return impl_->graph;
}
std::string_view Program::activations() const {
  return name(impl_->options.activations);
}
std::int64_t Program::packed_bytes() const {
  return impl_->weights.allocated_bytes();
}

namespace {

Result<std::shared_ptr<const Plan>> plan_for(Program::Impl& impl, std::int64_t tokens,
                                             std::int64_t sequences, std::int64_t rows) {
  if (tokens < 0 || sequences < 0 || rows < 0) return invalid("a plan needs sizes of at least 0");
  return impl.plan({tokens, sequences, rows, sequences, tokens == sequences});
}

}  // namespace

Result<std::string> Program::describe_plan(std::int64_t tokens, std::int64_t sequences,
                                           std::int64_t rows) const {
  return guarded([&]() -> Result<std::string> {
    KRAIT_ASSIGN(const auto plan, plan_for(*impl_, tokens, sequences, rows));
    return describe(*plan);
  });
}

Result<double> Program::bytes_per_call(std::int64_t tokens, std::int64_t sequences,
                                       std::int64_t rows) const {
  return guarded([&]() -> Result<double> {
    KRAIT_ASSIGN(const auto plan, plan_for(*impl_, tokens, sequences, rows));
    double bytes = 0;
    for (const Step& step : plan->steps) bytes += step.cost.bytes;
    return bytes;
  });
}

Result<std::string> Program::kernels(std::int64_t tokens, std::int64_t sequences,
                                     std::int64_t rows) const {
  return guarded([&]() -> Result<std::string> {
    KRAIT_ASSIGN(const auto plan, plan_for(*impl_, tokens, sequences, rows));
    std::vector<std::string> used;
    for (const Step& step : plan->steps) {
      std::string entry = cat(step.kernel->op, " ", step.kernel->name);
      if (std::find(used.begin(), used.end(), entry) == used.end())
        used.push_back(std::move(entry));
    }
    std::string text;
    for (const std::string& entry : used) text += (text.empty() ? "" : ", ") + entry;
    return text;
  });
}

}  // namespace krait
