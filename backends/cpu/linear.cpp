// linear on the CPU, with inputs as they are.
#include "backends/cpu/panels.h"

namespace krait::cpu {
namespace {

void linear(const Call& call, const Run& run) {
  const LinearArgs args = linear_args(call);
  for_blocks(run.pool, call,
             [&](std::int64_t t0, std::int64_t t1, std::int64_t p0, std::int64_t p1) {
               run.isa.linear(args, t0, t1, p0, p1);
             });
}

const WeightLayout* weight_layout(const Call&, int i) {
  return i == 1 ? panel_layout() : nullptr;
}

}  // namespace

extern const CpuKernel linear_kernel{.op = "linear", .run = linear, .layout = weight_layout};

}  // namespace krait::cpu
