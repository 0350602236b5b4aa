// A plan: for concrete sizes and a device, the kernel of every node, where every value lies, and
// the memory that the whole needs. Immutable; sessions share it.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "backends/backend.h"
#include "graph/ir.h"
#include "runtime/plan/weight_store.h"

namespace krait {

/// Sizes of a call: what the symbols T, S, M and C stand for.
struct Sizes {
  std::int64_t tokens = 0;
  std::int64_t sequences = 0;
  std::int64_t rows = 0;
  std::int64_t slots = 0;
  bool steps = false;  ///< every sequence has exactly one token
  /// Steps whose every token has a row of logits, and whose likeliest ids replace the tokens: the
  /// next run continues from them.
  bool greedy = false;

  friend bool operator==(const Sizes&, const Sizes&) = default;
  friend auto operator<=>(const Sizes&, const Sizes&) = default;
};

/// The sizes that a plan is made for, so that calls of similar sizes share it: tokens, sequences
/// and rows rounded up to powers of two.
Sizes bucket(const Sizes& sizes);

/// A type's shape with the symbols replaced.
Shape resolve(const Shape& shape, const Sizes& sizes);

/// Where a value lives.
struct Home {
  enum class Place { arena, weight, state, view, nowhere } place = Place::nowhere;
  std::int64_t offset = 0;  ///< in the arena
  TensorView weight;
  int state = -1;    ///< which state
  int view_of = -1;  ///< the value that the node `node` looks at
  int node = -1;
};

struct Step {
  int node = 0;  ///< in the graph
  const Kernel* kernel = nullptr;
  std::vector<std::string> refused;  ///< earlier candidates and their reasons
  std::array<TensorView, kMaxInputs>
      packed{};  ///< weights in the kernel's layout, where it has one
  std::int64_t workspace_offset = 0;
  std::int64_t workspace_bytes = 0;
  bool early = false;       ///< see Launch: no step before updates a state of this one
  TensorView ahead;         ///< see Launch
  bool next_first = false;  ///< see Launch
  Cost cost;                ///< at the plan's sizes
};

/// Runs of a greedy plan that are recorded together, as the device does something else for some
/// microseconds between two recordings.
inline constexpr int kBurst = 8;

struct Plan {
  std::shared_ptr<const ir::Graph> graph;  ///< specialised: its values have the program's numbers
  std::shared_ptr<Device> device;
  Sizes sizes;  ///< the largest call it serves
  Activations activations = Activations::exact;
  std::vector<Home> homes;  ///< one per value
  std::vector<ir::Id> states;
  std::vector<Step> steps;  ///< views and constants need none
  /// In a greedy plan: the ids that argmax yields, and the input in whose memory they lie. Before
  /// it is room for those of kBurst - 1 runs.
  ir::Id next = ir::kNone, tokens = ir::kNone;
  std::int64_t arena_bytes = 0;
};

Result<std::shared_ptr<const Plan>> make_plan(const ir::Graph& graph,
                                              std::shared_ptr<Device> device, WeightStore& weights,
                                              const Sizes& sizes,
                                              Activations activations = Activations::exact);

/// As a table: node, kernel, reasons of refusal, bytes, operations; then the arena.
std::string describe(const Plan& plan);

/// For graph passes: whether `device` has a kernel for calls of these sizes.
ir::HasKernel kernel_predicate(std::shared_ptr<Device> device,
                               Activations activations = Activations::exact,
                               const Sizes& sizes = {1, 1, 1, 1, false});

}  // namespace krait
