// An execution: one session's memory for plans, and the calls with every pointer in place.
#pragma once

#include <memory>
#include <vector>

#include "runtime/plan/plan.h"

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
  /// Where an input or output lies, for the sizes of the last prepare().
  const TensorView& view(ir::Id id) const { return views_[static_cast<std::size_t>(id)]; }
  const Plan& plan() const { return *plan_; }

 private:
  Status run_steps();

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
