#include "backends/cpu/linear_rounded.h"

#include <algorithm>

#include "backends/cpu/panels.h"
#include "runtime/core/try.h"

namespace krait::cpu {
namespace {

constexpr std::int64_t kRoundTokens = 8;  ///< tokens that a thread rounds at a time

/// Bytes of a rounded token; linear_int8.hpp and linear_bf16.hpp say what they hold.
std::int64_t row_bytes(const Call& call) {
  const DType weight = call.inputs[1].dtype;
  const std::int64_t inputs = call.inputs[0].dim[1];
  const std::int64_t scales = 2 * 4 * (inputs / (weight == DType::q6_k ? 16 : 32));
  return blocks_of(is_block(weight) ? inputs + scales : 2 * inputs, 64) * 64;
}

}  // namespace

std::string rounded_refusal(const Call& call, RoundedTo inputs) {
  if (!call.native) return "activations are exact";
  const DType weight = call.inputs[1].dtype;
  const bool fits = inputs == RoundedTo::int8 ? is_block(weight) : weight == DType::bf16;
  if (fits) return {};
  return cat("w: ", name(weight), " is not multiplied by ",
             inputs == RoundedTo::int8 ? "int8" : "bf16");
}

std::int64_t rounded_workspace(const Call& call, const Device&) {
  return call.inputs[0].dim[0] * row_bytes(call);
}

void linear_rounded(const Call& call, const RoundedIsa& isa, ThreadPool& pool,
                    const TensorView& workspace) {
  const RoundedArgs args{linear_args(call), workspace.as<std::byte>(), row_bytes(call)};
  const std::int64_t tokens = call.inputs[0].dim[0];
  pool.parallel_for(blocks_of(tokens, kRoundTokens), [&](std::int64_t block) {
    const std::int64_t t = block * kRoundTokens;
    isa.round(args, t, std::min(t + kRoundTokens, tokens));
  });
  for_blocks(pool, call, [&](std::int64_t t0, std::int64_t t1, std::int64_t p0, std::int64_t p1) {
    isa.linear(args, t0, t1, p0, p1);
  });
}

}  // namespace krait::cpu
