// What sessions may trust in the inputs of a call. Kernels believe indices, so every index that
// reaches one is checked on the host first; a graph where that is impossible is refused.
#pragma once

#include <span>
#include <string>
#include <vector>

#include "graph/ir.h"
#include "runtime/plan/plan.h"

namespace krait {

/// The values of input `input` count rows of a table: 0 to `below` − 1.
struct IndexBound {
  ir::Id input = ir::kNone;
  Dim below;
  std::string operand;  ///< for messages: "[embedding] ids"
};

/// The bounds of all inputs that some op takes as indices. Refuses graphs in which
/// - `starts`, `slot_in`, `slot_out` or `rows`, which sessions write themselves, have other types
///   than i32[S+1], i32[S], i32[S] and i32[M];
/// - an op over sequences takes these from elsewhere, or anything but the T tokens of a call;
/// - other indices come neither from an input nor, small enough, from argmax or top_k;
/// - a state has the name that state files give to the token ids.
Result<std::vector<IndexBound>> index_bounds(const ir::Graph& graph);

/// `values` holds one host address per value of the graph, with i32 for each bounded input.
Status check_bounds(const ir::Graph& graph, std::span<const IndexBound> bounds, const Sizes& sizes,
                    std::span<const void* const> values);

}  // namespace krait
