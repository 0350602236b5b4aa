// norm_linear for few tokens: inputs are normalised as they are staged.
#include "backends/cuda/gemv.cuh"

namespace krait::cuda {
namespace {

std::string supports(const Call& call, const Device& device) {
  const auto [x, norm_weight, w, bias] = call.in<4>();
  if (x.dtype != DType::f32 || norm_weight.dtype != DType::f32)
    return "x and norm_weight: expected f32";
  return gemv_supports(call, x, w, device);
}

Status run(const Call& call, const Launch& launch) {
  const auto [x, norm_weight, w, bias] = call.in<4>();
  run_norm_gemv(launch, gemv_input(x, norm_weight, call.attr("eps")), w,
                plain_epilogue(call.outputs[0], bias));
  return launched(call);
}

}  // namespace

extern const Kernel norm_linear_kernel{"norm_linear", "gemv",  supports, run,
                                       nullptr,       nullptr, true};

}  // namespace krait::cuda
