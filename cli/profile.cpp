#include "cli/profile.h"

#include <algorithm>
#include <cstdio>
#include <tuple>

namespace krait::cli {
namespace {

/// Bytes over time over bandwidth; 0 where one of them is not known.
double fraction(double bytes, double seconds, double bandwidth) {
  return seconds > 0 && bandwidth > 0 ? bytes / seconds / bandwidth : 0;
}

void print_line(const NodeGroup& group, double all_seconds, double bandwidth) {
  char of_bound[16] = "-";
  if (bandwidth > 0)
    std::snprintf(of_bound, sizeof of_bound, "%.0f %%",
                  100 * fraction(group.bytes, group.seconds, bandwidth));
  const double rate = group.seconds > 0 ? 1e-9 / group.seconds : 0;
  std::printf("| %s | %s | %s | %d | %.2f | %.1f | %.0f %% | %.3g | %.1f | %s | %.1f |\n",
              group.op.c_str(), group.kernel.c_str(), group.shapes.c_str(), group.count,
              group.seconds * 1e6 / std::max(group.count, 1), group.seconds * 1e6,
              all_seconds > 0 ? 100 * group.seconds / all_seconds : 0, group.bytes,
              group.bytes * rate, of_bound, group.flops * rate);
}

}  // namespace

std::vector<NodeGroup> group_nodes(const Profile& profile) {
  std::vector<NodeGroup> groups;
  for (const ProfiledNode& node : profile.nodes) {
    auto group = std::find_if(groups.begin(), groups.end(), [&](const NodeGroup& other) {
      return std::tie(other.op, other.kernel, other.shapes) ==
             std::tie(node.op, node.kernel, node.shapes);
    });
    if (group == groups.end())
      group = groups.insert(group, NodeGroup{node.op, node.kernel, node.shapes});
    ++group->count;
    group->seconds += node.seconds;
    group->bytes += node.bytes;
    group->flops += node.flops;
  }
  return groups;
}

void print_profile(const Profile& profile, double bandwidth) {
  const std::vector<NodeGroup> groups = group_nodes(profile);
  NodeGroup total{"nodes together", "", ""};
  for (const NodeGroup& group : groups) {
    total.count += group.count;
    total.seconds += group.seconds;
    total.bytes += group.bytes;
    total.flops += group.flops;
  }
  std::printf(
      "| op | kernel | shapes | nodes | us/node | us | share | bytes | GB/s | of read bandwidth | "
      "Gflop/s |\n");
  std::printf("| --- | --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |\n");
  for (const NodeGroup& group : groups) print_line(group, total.seconds, bandwidth);
  print_line(total, total.seconds, bandwidth);
  NodeGroup run = total;
  run.op = "one run";
  run.seconds = profile.run_seconds;
  print_line(run, total.seconds, bandwidth);
}

nlohmann::json profile_json(const Profile& profile, double bandwidth) {
  nlohmann::json nodes = nlohmann::json::array();
  for (const NodeGroup& group : group_nodes(profile)) {
    nlohmann::json entry = {{"op", group.op},           {"kernel", group.kernel},
                            {"shapes", group.shapes},   {"count", group.count},
                            {"seconds", group.seconds}, {"bytes", group.bytes},
                            {"flops", group.flops},     {"bandwidth_fraction", nullptr}};
    if (bandwidth > 0)
      entry["bandwidth_fraction"] = fraction(group.bytes, group.seconds, bandwidth);
    nodes.push_back(std::move(entry));
  }
  return {{"run_seconds", profile.run_seconds}, {"nodes", std::move(nodes)}};
}

}  // namespace krait::cli
