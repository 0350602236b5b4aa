// Profiles as `krait bench --profile` shows them.
#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include <krait/profile.h>

namespace krait::cli {

/// The nodes that run the same kernel on the same shapes.
struct NodeGroup {
  std::string op, kernel, shapes;
  int count = 0;
  double seconds = 0, bytes = 0, flops = 0;  ///< of all of them
};

/// In the order of their first nodes.
std::vector<NodeGroup> group_nodes(const Profile& profile);

/// A Markdown table: a line per group, then the nodes together and a run as a whole. `bandwidth` in
/// bytes per second is what fractions are of; 0 if it is not known.
void print_profile(const Profile& profile, double bandwidth);

/// {"run_seconds": …, "nodes": [{"op": …, …}, …]}
nlohmann::json profile_json(const Profile& profile, double bandwidth);

}  // namespace krait::cli
