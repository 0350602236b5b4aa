// What the oracles of fused ops are made of: the oracles of the ops that they fuse.
#pragma once

#include <algorithm>
#include <initializer_list>
#include <vector>

#include "ops/op.h"

namespace krait {

/// A dense float64 tensor with memory of its own, for what a fused op does not store.
struct Scratch64 {
  std::vector<double> values;
  Tensor64 tensor;

  explicit Scratch64(std::initializer_list<std::int64_t> dims) {
    std::int64_t elements = 1;
    for (const std::int64_t dim : dims) {
      tensor.dim[static_cast<std::size_t>(tensor.rank++)] = dim;
      elements *= dim;
    }
    values.resize(static_cast<std::size_t>(elements));
    tensor.data = values.data();
  }
};

/// Runs the oracle of `op`; attributes that are not named have their defaults.
inline void run_part(const Op& op, std::initializer_list<Tensor64> inputs,
                     std::initializer_list<Tensor64> outputs,
                     std::initializer_list<std::pair<std::string_view, double>> attrs = {}) {
  Call64 call;
  call.op = &op;
  std::copy(inputs.begin(), inputs.end(), call.inputs.begin());
  std::copy(outputs.begin(), outputs.end(), call.outputs.begin());
  call.attrs = default_attrs(op);
  for (const auto& [name, value] : attrs) {
    if (const int at = attr_index(op, name); at >= 0)
      call.attrs[static_cast<std::size_t>(at)] = value;
  }
  op.reference(call);
}

}  // namespace krait
