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
  prepared_ = false;  // until bind() has succeeded
  sizes_ = sizes;
  KRAIT_TRY(bind());
  prepared_ = true;
  runs_ = 0;
  has_bursts_ = true;
  recording_.reset();
  burst_.reset();
  return {};
}

Status Execution::bind(std::int64_t from, std::int64_t to) {
  const ir::Graph& graph = *plan_->graph;
  for (std::size_t id = 0; id < views_.size(); ++id) {
    const Home& home = plan_->homes[id];
    const Type& type = graph.values[id].type;
    const auto is = [&](ir::Id other) { return static_cast<ir::Id>(id) == other; };
    const std::int64_t moved = is(plan_->tokens) ? from : is(plan_->next) ? to : 0;
    switch (home.place) {
      case Home::Place::arena:
        views_[id] = dense_view(arena_->memory(), type.dtype, resolve(type.shape, sizes_),
                                home.offset + moved);
        break;
      case Home::Place::state:
        views_[id] = dense_view(states_[static_cast<std::size_t>(home.state)]->memory(), type.dtype,
                                resolve(type.shape, sizes_));
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
    call.steps = sizes_.steps;
    call.native = plan_->activations == Activations::native;
    for (std::size_t i = 0; i < node.inputs.size(); ++i) {
      if (node.inputs[i] == ir::kNone) continue;
      call.inputs[i] = step.packed[i] ? step.packed[i] : view(node.inputs[i]);
    }
    for (std::size_t o = 0; o < node.outputs.size(); ++o) {
      if (node.outputs[o] != ir::kNone) call.outputs[o] = view(node.outputs[o]);
    }
  }
  return {};
}

Status Execution::run_steps(TimeMarks* marks, bool follows) {
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
      launch.early = step.early && (s > 0 || follows);
      launch.ahead = step.ahead;
      launch.next_first = step.next_first;
    }
    KRAIT_TRY(plan_->device->run(*step.kernel, calls_[s], launch));
  }
  return marks ? marks->mark(static_cast<int>(calls_.size())) : Status();
}

Status Execution::run(const std::function<Status()>& body, std::unique_ptr<Recording>& recording,
                      bool record) {
  Device& device = *plan_->device;
  device.begin_run();
  Status status;
  if (record) {
    Result<std::unique_ptr<Recording>> recorded = device.record(body);
    if (recorded.ok())
      recording = std::move(*recorded);
    else
      status = recorded.status();
  }
  if (status.ok()) status = recording ? recording->replay() : body();
  device.end_run();
  return status;
}

Status Execution::run() {
  return run([this] { return run_steps(); }, recording_, runs_ < 2 && ++runs_ == 2);
}

Status Execution::run_burst() {
  const TensorView& ids = view(plan_->next);
  const std::int64_t bytes = bytes_of(ids.dtype, ids.elements());
  const auto body = [&]() -> Status {
    std::int64_t from = 0;
    for (int i = 0; i < kBurst; ++i) {
      const std::int64_t to = (i + 1 - kBurst) * bytes;
      KRAIT_TRY(bind(from, to));
      KRAIT_TRY(run_steps(nullptr, i > 0));
      from = to;
    }
    return {};
  };
  if (burst_) return run(body, burst_, false);
  const Status status = run(body, burst_, true);
  KRAIT_TRY(bind());
  return status;
}

Status Execution::run_greedy(int count, Buffer& history) {
  constexpr int kWorthRecording = 4;  // bursts
  const TensorView& ids = view(plan_->next);
  const std::int64_t bytes = bytes_of(ids.dtype, ids.elements()), place = ids.offset;
  for (int i = 0; i < count;) {
    int runs = 1;
    if (runs_ > 0 && has_bursts_ && count - i >= (burst_ ? 1 : kWorthRecording) * kBurst) {
      KRAIT_TRY(run_burst());
      runs = kBurst;
      has_bursts_ = burst_ != nullptr;
    } else {
      KRAIT_TRY(run());
    }
    KRAIT_TRY(
        plan_->device->copy(*arena_, place - (runs - 1) * bytes, history, i * bytes, runs * bytes));
    i += runs;
  }
  return {};
}

}  // namespace krait
