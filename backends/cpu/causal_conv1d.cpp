// causal_conv1d on the CPU: blocks of channels of a sequence.
#include <algorithm>

#include "backends/cpu/kernel.h"
#include "backends/cpu/sequences.h"

namespace krait::cpu {
namespace {

constexpr std::int64_t kBlockChannels = 64;

void causal_conv1d(const Call& call, const Run& run) {
  const auto [x, w, bias, state, starts, slot_in, slot_out] = call.in<7>();
  ConvArgs args;
  args.x = rows_of(x);
  args.w = w.as<const float>();
  args.w_row = w.stride[0];
  args.bias = vector_of(bias);
  args.y = rows_out(call.outputs[0]);
  args.state = state.as<float>();
  args.state_slot = state.stride[0];
  args.state_row = state.stride[1];
  args.taps = w.dim[1];
  args.activation = call.choice<Activation>("activation");
  args.sequences = sequences_of(starts, slot_in, slot_out);
  for_channels(run.pool, slot_in.dim[0], x.dim[1], kBlockChannels,
               [&](std::int64_t s, std::int64_t d0, std::int64_t d1) {
                 run.isa.causal_conv1d(args, s, d0, d1);
               });
}

}  // namespace

extern const CpuKernel causal_conv1d_kernel{.op = "causal_conv1d", .run = causal_conv1d};

}  // namespace krait::cpu
