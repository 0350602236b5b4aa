// Ops that only look at memory differently: slice, split, merge. They have no kernels.
#include "ops/enums.h"
#include "ops/op.h"
#include "runtime/core/try.h"

namespace krait {

// Views have shapes that depend on attributes, which the dims cannot spell: their inputs are "*",
// and graph building asks `view` itself with a view of no memory.

const Op slice_op{
    .name = "slice",
    .summary = "columns [offset, offset + size) of the last axis, as a view",
    .inputs = {{"x", "*"}},
    .outputs = {{"y", "*", Role::activation, "x"}},
    .attrs = {{"offset"}, {"size"}},
    .view = [](const TensorView& x, const Attrs& attrs) -> Result<TensorView> {
      const auto offset = static_cast<std::int64_t>(attrs[0]);
      const auto size = static_cast<std::int64_t>(attrs[1]);
      const auto last = static_cast<std::size_t>(x.rank - 1);
      if (offset < 0 || size < 1 || offset > x.dim[last] - size) {
        return invalid("[slice] x: columns ", offset, " to ", offset + size, " of ",
                       to_string(shape_of(x)), " do not exist");
      }
      TensorView y = x;
      y.dim[last] = size;
      y.offset += bytes_of(x.dtype, offset);
      return y;
    },
};

const Op split_op{
    .name = "split",
    .summary = "the last axis in `parts` equal parts, as an axis of its own: [T,H·P] as [T,H,P]",
    .inputs = {{"x", "*"}},
    .outputs = {{"y", "*", Role::activation, "x"}},
    .attrs = {{"parts", 1}},
    .view = [](const TensorView& x, const Attrs& attrs) -> Result<TensorView> {
      const auto parts = static_cast<std::int64_t>(attrs[0]);
      const auto last = static_cast<std::size_t>(x.rank - 1);
      if (x.rank >= kMaxRank || parts < 1 || x.dim[last] % parts != 0) {
        return invalid("[split] x: ", to_string(shape_of(x)), " does not split in ", parts,
                       " equal parts");
      }
      TensorView y = x;
      y.rank = x.rank + 1;
      y.dim[last] = parts;
      y.dim[last + 1] = x.dim[last] / parts;
      y.stride[last] = y.dim[last + 1];
      y.stride[last + 1] = 1;
      return y;
    },
};

const Op merge_op{
    .name = "merge",
    .summary = "the last two axes as one: [T,H,P] as [T,H·P]",
    .inputs = {{"x", "*"}},
    .outputs = {{"y", "*", Role::activation, "x"}},
    .view = [](const TensorView& x, const Attrs&) -> Result<TensorView> {
      const auto last = static_cast<std::size_t>(x.rank - 1);
      if (x.rank < 2 || (x.dim[last - 1] > 1 && x.stride[last - 1] != x.dim[last])) {
        return invalid("[merge] x: the last two axes of ", to_string(shape_of(x)),
                       " do not lie densely");
      }
      TensorView y = x;
      y.rank = x.rank - 1;
      y.dim[last - 1] = x.dim[last - 1] * x.dim[last];
      y.stride[last - 1] = 1;
      return y;
    },
};

}  // namespace krait
