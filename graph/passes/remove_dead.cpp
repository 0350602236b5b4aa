// remove_dead: tidy() after every pass drops dead nodes; this one also drops declarations of
// weights that nothing uses, so that they are never packed.
#include "graph/ir.h"

namespace krait::ir {

Status remove_dead(Graph& graph, const PassContext&) {
  tidy(graph);
  const std::vector<int> uses = use_counts(graph);
  std::vector<char> keep(graph.values.size());
  for (std::size_t id = 0; id < keep.size(); ++id) {
    keep[id] = static_cast<char>(graph.values[id].kind != Kind::weight || uses[id] > 0);
  }
  keep_values(graph, keep);
  return {};
}

}  // namespace krait::ir
