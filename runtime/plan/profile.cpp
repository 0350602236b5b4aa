// Execution::profile(): the time of each step, and of all of them together.
#include <algorithm>

#include "ops/case.h"
#include "runtime/core/try.h"
#include "runtime/plan/execution.h"

namespace krait {
namespace {

double median(std::vector<double>& values) {
  const auto middle = values.begin() + static_cast<std::ptrdiff_t>(values.size() / 2);
  std::nth_element(values.begin(), middle, values.end());
  return *middle;
}

Type type_of(const TensorView& view) {
  return {view.dtype, shape_of(view)};
}

/// Its largest weight, if it has one, and its first result.
std::string shapes_of(const Call& call) {
  const TensorView* largest = nullptr;
  for (std::size_t i = 0; i < call.op->inputs.size(); ++i) {
    const TensorView& view = call.inputs[i];
    if (call.op->inputs[i].role != Role::weight || !view) continue;
    if (!largest || view.elements() > largest->elements()) largest = &view;
  }
  const std::string result = to_string(type_of(call.outputs[0]));
  return largest ? to_string(type_of(*largest)) + " -> " + result : result;
}

}  // namespace

Result<std::vector<double>> Execution::time_runs(int repetitions, const Feeder& feed) {
  // Queued without waiting in between, as sessions do.
  KRAIT_ASSIGN(const std::unique_ptr<TimeMarks> marks, plan_->device->time_marks(2 * repetitions));
  for (int r = 0; r < repetitions; ++r) {
    KRAIT_TRY(feed());
    KRAIT_TRY(marks->mark(2 * r));
    KRAIT_TRY(run());
    KRAIT_TRY(marks->mark(2 * r + 1));
  }
  KRAIT_ASSIGN(const std::vector<double> intervals, marks->intervals());
  std::vector<double> seconds;
  for (std::size_t i = 0; i < intervals.size(); i += 2) seconds.push_back(intervals[i]);
  return seconds;
}

Result<std::vector<std::vector<double>>> Execution::time_steps(int repetitions,
                                                               const Feeder& feed) {
  Device& device = *plan_->device;
  KRAIT_ASSIGN(const std::unique_ptr<TimeMarks> marks,
               device.time_marks(static_cast<int>(calls_.size()) + 1));
  // Recorded where that is possible, so that the host's work between the steps does not count.
  const auto body = [&] { return run_steps(marks.get()); };
  device.begin_run();
  const Result<std::unique_ptr<Recording>> recording = device.record(body);
  device.end_run();
  KRAIT_TRY(recording.status());
  std::vector<std::vector<double>> samples(calls_.size());
  for (int r = 0; r < repetitions; ++r) {
    KRAIT_TRY(feed());
    device.begin_run();
    const Status status = *recording ? (*recording)->replay() : body();
    device.end_run();
    KRAIT_TRY(status);
    KRAIT_ASSIGN(const std::vector<double> seconds, marks->intervals());
    for (std::size_t s = 0; s < samples.size(); ++s) samples[s].push_back(seconds[s]);
  }
  return samples;
}

Result<Profile> Execution::profile(int repetitions, const Feeder& feed) {
  // The first run opens what is opened on first need, the second is recorded.
  for (int r = 0; r < 2; ++r) {
    KRAIT_TRY(feed());
    KRAIT_TRY(run());
  }
  Profile profile;
  KRAIT_ASSIGN(std::vector<double> runs, time_runs(repetitions, feed));
  profile.run_seconds = median(runs);
  KRAIT_ASSIGN(std::vector<std::vector<double>> steps, time_steps(repetitions, feed));
  for (std::size_t s = 0; s < calls_.size(); ++s) {
    // As the op has it, not in a kernel's layout.
    Call call = calls_[s];
    const Step& step = plan_->steps[s];
    const ir::Node& node = plan_->graph->nodes[static_cast<std::size_t>(step.node)];
    for (std::size_t i = 0; i < node.inputs.size(); ++i) {
      if (!step.packed[i]) continue;
      const Type& type = (*plan_->graph)[node.inputs[i]].type;
      call.inputs[i] = dense_view(step.packed[i].memory, type.dtype, type.shape);
    }
    const Cost work = cost(call);
    profile.nodes.push_back({std::string(step.kernel->op), std::string(step.kernel->name),
                             shapes_of(call), median(steps[s]), work.bytes, work.flops});
  }
  return profile;
}

}  // namespace krait
