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
/// read once; longer rows are read again.
constexpr int kKept = 12;

template <class X, class Y>
__global__ void __launch_bounds__(kThreads) rms_norm(Args<X> args, Y* y, std::int64_t y_row) {
  const std::int64_t t = blockIdx.x;
  const std::int64_t d0 = blockIdx.y * args.width;
  const auto at = [&](int j) { return threadIdx.x + std::int64_t{j} * kThreads; };
  float weight[kKept];
#pragma unroll
  for (int j = 0; j < kKept; ++j)
    weight[j] = args.weight && at(j) < args.width ? args.weight[d0 + at(j)] : 1.0f;
  wait_for_inputs();
  // v = (x + residual)·silu(gate)
  const auto summed = [&](std::int64_t i) {
    const float x = to_float(args.x[t * args.x_row + d0 + i]);
    return args.residual ? x + args.residual[t * args.residual_row + d0 + i] : x;
  };
  const auto gated = [&](std::int64_t i, float v) {
    if (!args.gate || args.norm_before_gate) return v;
    return v * silu(to_float(args.gate[t * args.gate_row + d0 + i]));
  };
  const auto keep_sum = [&](std::int64_t i, float v) {
    if (args.residual) args.sum[t * args.sum_row + d0 + i] = v;
  };
  // All reads before the first store, behind which, for all the compiler knows, others might
  // change.
  float kept[kKept];
#pragma unroll
  for (int j = 0; j < kKept; ++j) kept[j] = at(j) < args.width ? summed(at(j)) : 0.0f;
  float squares = 0;
#pragma unroll
  for (int j = 0; j < kKept; ++j) {
    if (at(j) >= args.width) break;
    keep_sum(at(j), kept[j]);
    kept[j] = gated(at(j), kept[j]);
    squares = fmaf(kept[j], kept[j], squares);
  }
  for (std::int64_t i = at(kKept); i < args.width; i += kThreads) {
    const float sum = summed(i), v = gated(i, sum);
    keep_sum(i, sum);
    squares = fmaf(v, v, squares);
  }
  const float scale =
      1.0f / sqrtf(block_sum<kThreads>(squares) / static_cast<float>(args.width) + args.eps);
  const auto store = [&](std::int64_t i, float v, float w) {
    v *= scale * w;
    if (args.gate && args.norm_before_gate)
      v *= silu(to_float(args.gate[t * args.gate_row + d0 + i]));
    y[t * y_row + d0 + i] = from_float<Y>(v);
  };
#pragma unroll
  for (int j = 0; j < kKept; ++j) {
    if (at(j) < args.width) store(at(j), kept[j], weight[j]);
  }
  for (std::int64_t i = at(kKept); i < args.width; i += kThreads)
    store(i, gated(i, summed(i)), args.weight ? args.weight[d0 + i] : 1.0f);
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
