#include "runtime/plan/execution.h"

#include "runtime/core/try.h"

namespace krait {

Execution::Execution(std::shared_ptr<const Plan> plan, std::vector<Buffer*> states, Buffer* arena)
    : plan_(std::move(plan)), states_(std::move(states)), arena_(arena) {
  views_.resize(plan_->graph->values.size());
  calls_.resize(plan_->steps.size());
}

Status Execution::prepare(const Sizes& sizes) {
  if (prepared_ && sizes == sizes_) return {};
  const ir::Graph& graph = *plan_->graph;
  for (std::size_t id = 0; id < views_.size(); ++id) {
    const Home& home = plan_->homes[id];
    const Type& type = graph.values[id].type;
    switch (home.place) {
      case Home::Place::arena:
        views_[id] =
            dense_view(arena_->memory(), type.dtype, resolve(type.shape, sizes), home.offset);
        break;
      case Home::Place::state:
        views_[id] = dense_view(states_[static_cast<std::size_t>(home.state)]->memory(), type.dtype,
                                resolve(type.shape, sizes));
        break;
      default:
        break;
    }
  }
  // Views come after what they look at: nodes are in order.
  for (std::size_t n = 0; n < graph.nodes.size(); ++n) {
    const ir::Node& node = graph.nodes[n];
    if (!node.op->view || node.constant) continue;
    KRAIT_ASSIGN(views_[static_cast<std::size_t>(node.outputs[0])],
                 node.op->view(views_[static_cast<std::size_t>(node.inputs[0])], node.attrs));
  }
  for (std::size_t s = 0; s < calls_.size(); ++s) {
    const Step& step = plan_->steps[s];
    const ir::Node& node = graph.nodes[static_cast<std::size_t>(step.node)];
    Call& call = calls_[s];
    call.op = node.op;
    call.attrs = node.attrs;
    call.steps = sizes.steps;
    call.native = plan_->activations == Activations::native;
    for (std::size_t i = 0; i < node.inputs.size(); ++i) {
      if (node.inputs[i] == ir::kNone) continue;
      call.inputs[i] = step.packed[i] ? step.packed[i] : view(node.inputs[i]);
    }
    for (std::size_t o = 0; o < node.outputs.size(); ++o) {
      if (node.outputs[o] != ir::kNone) call.outputs[o] = view(node.outputs[o]);
    }
  }
  sizes_ = sizes;
  prepared_ = true;
  runs_ = 0;
  recording_.reset();
  return {};
}

Status Execution::run_steps(TimeMarks* marks) {
  for (std::size_t s = 0; s < calls_.size(); ++s) {
    const Step& step = plan_->steps[s];
    if (marks) KRAIT_TRY(marks->mark(static_cast<int>(s)));
    TensorView workspace;
    if (step.workspace_bytes) {
      workspace =
          dense_view(arena_->memory(), DType::u8, {step.workspace_bytes}, step.workspace_offset);
    }
    Launch launch{*plan_->device, workspace};
    if (!marks) {  // else each step is to have its time for itself
      launch.early = step.early;
      launch.ahead = step.ahead;
    }
    KRAIT_TRY(plan_->device->run(*step.kernel, calls_[s], launch));
  }
  return marks ? marks->mark(static_cast<int>(calls_.size())) : Status();
}

Status Execution::run() {
  Device& device = *plan_->device;
  device.begin_run();
  Status status;
  if (runs_ < 2 && ++runs_ == 2) {
    Result<std::unique_ptr<Recording>> recorded = device.record([this] { return run_steps(); });
    if (recorded.ok())
      recording_ = std::move(*recorded);
    else
      status = recorded.status();
  }
  if (status.ok()) status = recording_ ? recording_->replay() : run_steps();
  device.end_run();
  return status;
}

}  // namespace krait
