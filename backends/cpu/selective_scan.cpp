// selective_scan on the CPU: blocks of channels of a sequence.
#include "backends/cpu/kernel.h"
#include "backends/cpu/sequences.h"

namespace krait::cpu {
namespace {

constexpr std::int64_t kBlockChannels = 64;

void selective_scan(const Call& call, const Run& run) {
  const auto [u, dt, A, B, C, skip, z, dt_bias, state, starts, slot_in, slot_out] = call.in<12>();
  ScanArgs args;
  args.u = rows_of(u);
  args.dt = rows_of(dt);
  args.z = rows_of(z);
  args.A = rows_of(A);
  args.B = rows_of(B);
  args.C = rows_of(C);
  args.B_group = B.stride[1];
  args.C_group = C.stride[1];
  args.skip = vector_of(skip);
  args.dt_bias = vector_of(dt_bias);
  args.y = rows_out(call.outputs[0]);
  args.state = state.as<float>();
  args.state_slot = state.stride[0];
  args.state_row = state.stride[1];
  args.states = A.dim[1];
  args.channels_per_group = u.dim[1] / B.dim[1];
  args.dt_softplus = call.flag("dt_softplus");
  args.rule = call.choice<Discretisation>("discretisation");
  args.sequences = sequences_of(starts, slot_in, slot_out);
  for_channels(run.pool, slot_in.dim[0], u.dim[1], kBlockChannels,
               [&](std::int64_t s, std::int64_t d0, std::int64_t d1) {
                 run.isa.selective_scan(args, s, d0, d1);
               });
}

}  // namespace

extern const CpuKernel selective_scan_kernel{.op = "selective_scan", .run = selective_scan};

}  // namespace krait::cpu
