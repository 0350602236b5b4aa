// linear_residual for few tokens: the residual is added where the product's sum is stored.
#include "backends/cuda/gemv.cuh"

namespace krait::cuda {
namespace {

struct ResidualEpilogue : PlainEpilogue {
  static constexpr bool kFollowsScan = true;  // out_proj
  ResidualEpilogue from(int t) const { return {PlainEpilogue::from(t)}; }
};

std::string supports(const Call& call, const Device& device) {
  const auto [x, w, bias, residual] = call.in<4>();
  if (residual.dtype != DType::f32) return "residual: expected f32";
  return gemv_supports(call, x, w, device);
}

Status run(const Call& call, const Launch& launch) {
  const auto [x, w, bias, residual] = call.in<4>();
  run_gemv(launch, gemv_input(x), w,
           ResidualEpilogue{plain_epilogue(call.outputs[0], bias, residual)});
  return launched(call);
}

}  // namespace

extern const Kernel linear_residual_kernel{"linear_residual", "gemv",  supports, run,
                                           nullptr,           nullptr, true};

}  // namespace krait::cuda
