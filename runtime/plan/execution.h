// An execution: one session's memory for plans, and the calls with every pointer in place.
#pragma once

#include <functional>
#include <memory>
#include <vector>

#include "runtime/plan/plan.h"
#include <krait/profile.h>

namespace krait {

class Execution {
 public:
  /// `states` holds one buffer per state of the graph, in the graph's order; `arena` has at least
  /// plan->arena_bytes.
  Execution(std::shared_ptr<const Plan> plan, std::vector<Buffer*> states, Buffer* arena);

  /// Puts the true sizes, at most the plan's, into every view. Cheap when nothing changed.
  Status prepare(const Sizes& sizes);
  /// Runs every step; inputs were written to their views before. Does not allocate.
  /// The second run with the same sizes is recorded where the device can; later ones replay it.
  Status run();
  /// Writes the inputs: their memory is another value's as soon as nothing needs them any more.
  using Feeder = std::function<Status()>;
  /// Runs it again and again, as a whole and step by step, to say where its time goes.
  Result<Profile> profile(int repetitions, const Feeder& feed);
  /// Where an input or output lies, for the sizes of the last prepare().
  const TensorView& view(ir::Id id) const { return views_[static_cast<std::size_t>(id)]; }
  const Plan& plan() const { return *plan_; }

 private:
  /// With `marks`, one before each step and one behind the last.
  Status run_steps(TimeMarks* marks = nullptr);
  /// Seconds of every run.
  Result<std::vector<double>> time_runs(int repetitions, const Feeder& feed);
  /// Seconds of every step in every run.
  Result<std::vector<std::vector<double>>> time_steps(int repetitions, const Feeder& feed);

  std::shared_ptr<const Plan> plan_;
  std::vector<Buffer*> states_;
  Buffer* arena_;
  Sizes sizes_;
  bool prepared_ = false;
  std::vector<TensorView> views_;  ///< one per value
  std::vector<Call> calls_;        ///< one per step
  int runs_ = 0;                   ///< with these sizes
  std::unique_ptr<Recording> recording_;
};

}  // namespace krait
