// in_proj_conv1d for decoding: the lane that has a column's sum convolves it and moves its state
// on.
#include "backends/cuda/gemv.cuh"
#include "ops/enums.h"

namespace krait::cuda {
namespace {

constexpr int kMostTaps = 4;

struct ConvEpilogue {
  static constexpr bool kFollowsScan = false;
  void* y;
  std::int64_t y_row;
  DType type;
  const float* bias;    ///< of the projection; may be null
  const float* conv_w;  ///< [D, K]
  std::int64_t conv_row;
  const float* conv_bias;  ///< may be null
  float* state;            ///< [C, D, K-1]
  int channels, taps;
  bool silu_after;
  const std::int32_t* slot_in;
  const std::int32_t* slot_out;

  struct Token {
    int from, to;  ///< slots of the sequence whose only token this is
  };
  __device__ Token token(int t) const { return {slot_in[t], slot_out[t]}; }

  /// Fewer taps than kMostTaps stand at the end, behind zeros: the latest input has the last one.
  struct Ahead {
    float bias, conv_bias;
    float w[kMostTaps], history[kMostTaps - 1];
    float* to;  ///< where the first of a full history would be; null: not kept
    bool convolves;
  };
  __device__ float* state_of(int slot, int d) const {
    const int missing = kMostTaps - taps;
    return state + (static_cast<std::int64_t>(slot) * channels + d) * (taps - 1) - missing;
  }
  __device__ Ahead before(const Token& token, int, int o) const {
    Ahead a{};
    a.bias = bias ? bias[o] : 0.0f;
    a.convolves = o < channels;
    if (!a.convolves) return a;
    const int missing = kMostTaps - taps;
    const float* const w = conv_w + o * conv_row - missing;
    a.conv_bias = conv_bias ? conv_bias[o] : 0.0f;
    a.to = token.to >= 0 ? state_of(token.to, o) : nullptr;
#pragma unroll
    for (int k = 0; k < kMostTaps; ++k) {
      if (k >= missing) a.w[k] = w[k];
      if (k >= missing && k + 1 < kMostTaps && token.from >= 0)
        a.history[k] = state_of(token.from, o)[k];
    }
    return a;
  }
  __device__ void after(Ahead&, int, int) const {}
  __device__ void store(int t, int o, float sum, const Ahead& a) const {
    float value = sum + a.bias;
    if (a.convolves) {
      if (a.to) {
#pragma unroll
        for (int k = 0; k + 2 < kMostTaps; ++k) {
          if (k >= kMostTaps - taps) a.to[k] = a.history[k + 1];
        }
        if (taps > 1) a.to[kMostTaps - 2] = value;
      }
      float past = a.conv_bias;  // the convolution but for the latest input
#pragma unroll
      for (int k = 0; k + 1 < kMostTaps; ++k) past = fmaf(a.w[k], a.history[k], past);
      value = fmaf(a.w[kMostTaps - 1], value, past);
      if (silu_after) value = silu(value);
    }
    set_element(y, type, t * y_row + o, value);
  }
  ConvEpilogue from(int t) const {
    ConvEpilogue rest = *this;
    rest.y = static_cast<char*>(y) + t * y_row * info(type).block_bytes;
    rest.slot_in += t;
    rest.slot_out += t;
    return rest;
  }
};

std::string supports(const Call& call, const Device& device) {
  const auto [x, norm_weight, w, bias, conv_w] = call.in<5>();
  if (!call.steps) return "for one token of every sequence";
  if (conv_w.dim[1] > kMostTaps)
    return cat("for at most ", kMostTaps, " taps, got ", conv_w.dim[1]);
  if (x.dtype != DType::f32 || norm_weight.dtype != DType::f32)
    return "x and norm_weight: expected f32";
  return gemv_supports(call, x, w, device);
}

Status run(const Call& call, const Launch& launch) {
  const auto [x, norm_weight, w, bias, conv_w, conv_bias, state, starts, slot_in, slot_out] =
      call.in<10>();
  const TensorView& y = call.outputs[0];
  const ConvEpilogue epilogue{y.as<void>(),
                              y.stride[0],
                              y.dtype,
                              bias ? bias.as<const float>() : nullptr,
                              conv_w.as<const float>(),
                              conv_w.stride[0],
                              conv_bias ? conv_bias.as<const float>() : nullptr,
                              state.as<float>(),
                              static_cast<int>(conv_w.dim[0]),
                              static_cast<int>(conv_w.dim[1]),
                              call.choice<Activation>("activation") == Activation::silu,
                              slot_in.as<const std::int32_t>(),
                              slot_out.as<const std::int32_t>()};
  run_norm_gemv(launch, gemv_input(x, norm_weight, call.attr("eps")), w, epilogue);
  return launched(call);
}

}  // namespace

extern const Kernel in_proj_conv1d_kernel{"in_proj_conv1d", "gemv",  supports, run,
                                          nullptr,          nullptr, true};

}  // namespace krait::cuda
