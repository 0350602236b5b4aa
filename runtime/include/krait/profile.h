// Where the time of a call goes.
#pragma once

#include <string>
#include <vector>

namespace krait {

/// One node of a plan.
struct ProfiledNode {
  std::string op, kernel;
  std::string shapes;  ///< "bf16[3072, 768] -> f32[1, 3072]": its largest weight, its result
  double seconds = 0;  ///< the median, of the node by itself
  double bytes = 0;    ///< moved at least: every operand once
  double flops = 0;    ///< additions and multiplications
};

struct Profile {
  std::vector<ProfiledNode> nodes;  ///< in the order they run
  /// Of a whole run, measured without looking at the nodes: kernels that overlap, or follow each
  /// other faster than they can be timed, make it less than their sum.
  double run_seconds = 0;
};

}  // namespace krait
