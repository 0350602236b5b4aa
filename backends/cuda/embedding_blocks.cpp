// embedding from a block-quantised table: the rows that are asked for, decoded.
#include "backends/cuda/operands.h"

namespace krait::cuda {
namespace {

std::string supports(const Call& call, const Device&) {
  const std::string reason = want_blocks("table", call.inputs[1]);
  return reason.empty() ? want_float("y", call.outputs[0]) : reason;
}

Status run(const Call& call, const Launch& launch) {
  const auto [ids, table] = call.in<2>();
  const TensorView& y = call.outputs[0];
  write_rows(table, ids.as<const std::int32_t>(), 0, y.dim[0], {y.as<void>(), y.dtype, y.stride[0]},
             stream_of(launch));
  return launched(call);
}

}  // namespace

extern const Kernel embedding_blocks_kernel{.op = "embedding",
                                            .name = "block_rows",
                                            .supports = supports,
                                            .run = run,
                                            .layout = weight_layout};

}  // namespace krait::cuda
