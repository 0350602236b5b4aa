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
  /// Runs a greedy plan `count` times, each from the ids of the one before, all of which it copies
  /// to `history`: i32 [count, sequences].
  Status run_greedy(int count, Buffer& history);
  /// Writes the inputs: their memory is another value's as soon as nothing needs them any more.
  using Feeder = std::function<Status()>;
  /// Runs it again and again, as a whole and step by step, to say where its time goes.
  Result<Profile> profile(int repetitions, const Feeder& feed);
  /// Where an input or output lies, for the sizes of the last prepare().
  const TensorView& view(ir::Id id) const { return views_[static_cast<std::size_t>(id)]; }
  const Plan& plan() const { return *plan_; }

 private:
  /// Puts the views into the calls. Runs of a greedy plan find their ids `from` bytes after the
  /// place of the input, and leave the next ones `to` bytes after it.
  Status bind(std::int64_t from = 0, std::int64_t to = 0);
  /// With `marks`, one before each step and one behind the last. `follows`: as part of a recording,
  /// behind another run.
  Status run_steps(TimeMarks* marks = nullptr, bool follows = false);
  /// kBurst runs of a greedy plan.
  Status run_burst();
  /// Runs `body`, or replays its recording, which is made first if it is to be.
  Status run(const std::function<Status()>& body, std::unique_ptr<Recording>& recording,
             bool record);
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
  bool has_bursts_ = false;        ///< whether runs may be recorded together
  std::unique_ptr<Recording> recording_, burst_;
};

}  // namespace krait
