// rms_norm: a block per token and group; the residual sum, gate and weight in the same pass.
#include "backends/cuda/early_launch.cuh"
#include "backends/cuda/numeric.cuh"
#include "runtime/core/try.h"

namespace krait::cuda {
namespace {

constexpr int kThreads = 256;

template <class X>
struct Args {
  const X* x;
  std::int64_t x_row;
  const float* weight;
  const float* residual;
  std::int64_t residual_row;
  const X* gate;
  std::int64_t gate_row;
  float* sum;
  std::int64_t sum_row;
  std::int64_t width;  ///< of a group
  float eps;
  bool norm_before_gate;
};

/// Elements of a row that a thread keeps from the sum of squares to the output, so that each is
/// read once and all reads are on the way together; longer rows are read again.
constexpr int kKept = 12;

template <class X, class Y>
__global__ void __launch_bounds__(kThreads) rms_norm(Args<X> args, Y* y, std::int64_t y_row) {
  wait_for_inputs();
  const std::int64_t t = blockIdx.x;
  const std::int64_t d0 = blockIdx.y * args.width;
  // v = (x + residual)·silu(gate)
  const auto value = [&](std::int64_t i) {
    const std::int64_t d = d0 + i;
    float v = to_float(args.x[t * args.x_row + d]);
    if (args.residual) {
      v += args.residual[t * args.residual_row + d];
      args.sum[t * args.sum_row + d] = v;
    }
    if (args.gate && !args.norm_before_gate) v *= silu(to_float(args.gate[t * args.gate_row + d]));
    return v;
  };
  float kept[kKept];
  float squares = 0;
#pragma unroll
  for (int j = 0; j < kKept; ++j) {
    const std::int64_t i = threadIdx.x + j * kThreads;
    kept[j] = i < args.width ? value(i) : 0.0f;
    squares = fmaf(kept[j], kept[j], squares);
  }
  for (std::int64_t i = threadIdx.x + kKept * kThreads; i < args.width; i += kThreads) {
    const float v = value(i);
    squares = fmaf(v, v, squares);
  }
  const float scale = 1.0f / sqrtf(block_sum(squares) / static_cast<float>(args.width) + args.eps);
  const auto store = [&](std::int64_t i, float v) {
    const std::int64_t d = d0 + i;
    v *= scale;
    if (args.weight) v *= args.weight[d];
    if (args.gate && args.norm_before_gate) v *= silu(to_float(args.gate[t * args.gate_row + d]));
    y[t * y_row + d] = from_float<Y>(v);
  };
#pragma unroll
  for (int j = 0; j < kKept; ++j) {
    const std::int64_t i = threadIdx.x + j * kThreads;
    if (i < args.width) store(i, kept[j]);
  }
  for (std::int64_t i = threadIdx.x + kKept * kThreads; i < args.width; i += kThreads)
    store(i, value(i));
}

std::string supports(const Call& call, const Device&) {
  const auto [x, weight, residual, gate] = call.in<4>();
  if (gate && gate.dtype != x.dtype)
    return cat("gate: expected ", name(x.dtype), " as x, got ", name(gate.dtype));
  std::string reason = want_float("x", x);
  if (reason.empty()) reason = want_float("y", call.outputs[0]);
  if (reason.empty() &&
      ((weight && weight.dtype != DType::f32) || (residual && residual.dtype != DType::f32))) {
    reason = "weight and residual: expected f32";
  }
  return reason;
}

Status run(const Call& call, const Launch& launch) {
  const auto [x, weight, residual, gate] = call.in<4>();
  const TensorView& y = call.outputs[0];
  if (y.elements() == 0) return {};
  const auto groups = static_cast<std::int64_t>(call.attr("groups"));
  with_float_type(x.dtype, [&](auto x_type) {
    with_float_type(y.dtype, [&](auto y_type) {
      using X = decltype(x_type);
      using Y = decltype(y_type);
      Args<X> args{};
      args.x = x.as<const X>();
      args.x_row = x.stride[0];
      if (weight) args.weight = weight.as<const float>();
      if (residual) {
        args.residual = residual.as<const float>();
        args.residual_row = residual.stride[0];
        args.sum = call.outputs[1].as<float>();
        args.sum_row = call.outputs[1].stride[0];
      }
      if (gate) {
        args.gate = gate.as<const X>();
        args.gate_row = gate.stride[0];
      }
      args.width = x.dim[1] / groups;
      args.eps = static_cast<float>(call.attr("eps"));
      args.norm_before_gate = call.flag("norm_before_gate");
      const dim3 grid(static_cast<unsigned>(x.dim[0]), static_cast<unsigned>(groups));
      launch_early(launch, rms_norm<X, Y>, grid, kThreads, 0, args, y.as<Y>(), y.stride[0]);
    });
  });
  return launched(call);
}

}  // namespace

extern const Kernel rms_norm_kernel{"rms_norm", "block_per_row", supports, run};

}  // namespace krait::cuda
