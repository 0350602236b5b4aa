// linear on the CPU.
#include <algorithm>

#include "backends/cpu/panels.h"

namespace krait::cpu {
namespace {

constexpr std::int64_t kBlockTokens = 96;

void linear(const Call& call, const Run& run) {
  const auto [x, w, bias] = call.in<3>();
  const TensorView& y = call.outputs[0];
  LinearArgs args;
  args.x = rows_of(x);
  args.w = w.as<const std::byte>();
  args.weight = w.dtype;
  args.bias = vector_of(bias);
  args.y = rows_out(y);
  args.inputs = x.dim[1];
  args.panel_bytes = panel_bytes(w.dtype, args.inputs);
  args.outputs = y.dim[1];
  const std::int64_t tokens = x.dim[0];
  const std::int64_t panels = blocks_of(args.outputs, kPanel);
  const std::int64_t token_blocks = blocks_of(tokens, kBlockTokens);
  run.pool.parallel_for(blocks_of(panels, kBlockPanels) * token_blocks, [&](std::int64_t block) {
    const std::int64_t p = block / token_blocks * kBlockPanels;
    const std::int64_t t = block % token_blocks * kBlockTokens;
    run.isa.linear(args, t, std::min(t + kBlockTokens, tokens), p,
                   std::min(p + kBlockPanels, panels));
  });
}

const WeightLayout* weight_layout(const Call&, int i) {
  return i == 1 ? panel_layout() : nullptr;
}

}  // namespace

extern const CpuKernel linear_kernel{.op = "linear", .run = linear, .layout = weight_layout};

}  // namespace krait::cpu
