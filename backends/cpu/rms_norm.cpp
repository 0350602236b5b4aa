// rms_norm on the CPU.
#include <algorithm>

#include "backends/cpu/kernel.h"

namespace krait::cpu {
namespace {

constexpr std::int64_t kBlock = 4096;  ///< elements per block: some microseconds of work

void rms_norm(const Call& call, const Run& run) {
  const auto [x, weight, residual, gate] = call.in<4>();
  RmsNormArgs args;
  args.x = rows_of(x);
  args.residual = rows_of(residual);
  args.gate = rows_of(gate);
  args.weight = vector_of(weight);
  args.y = rows_out(call.outputs[0]);
  args.sum = rows_out(call.outputs[1]);
  args.groups = static_cast<std::int64_t>(call.attr("groups"));
  args.width = x.dim[1] / args.groups;
  args.eps = static_cast<float>(call.attr("eps"));
  args.norm_before_gate = call.flag("norm_before_gate");
  const std::int64_t tokens = x.dim[0];
  const std::int64_t per_block =
      std::max<std::int64_t>(1, kBlock / std::max<std::int64_t>(1, x.dim[1]));
  run.pool.parallel_for(blocks_of(tokens, per_block), [&](std::int64_t block) {
    const std::int64_t last = std::min((block + 1) * per_block, tokens);
    for (std::int64_t t = block * per_block; t < last; ++t) run.isa.rms_norm(args, t);
  });
}

}  // namespace

extern const CpuKernel rms_norm_kernel{.op = "rms_norm", .run = rms_norm};

}  // namespace krait::cpu
