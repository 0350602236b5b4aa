// Products of decoding in batches: linear alone, and with what stands before and behind it.
#include "backends/cuda/batch_product.cuh"
#include "ops/enums.h"

namespace krait::cuda {
namespace batch {  // what a device without clusters does not use would be warned of without a name

/// The rows of y, or of a residual: 32-bit offsets, since a warp runs this code once and every
/// instruction counts.
struct Rows {
  void* data;
  int row;  ///< elements from row to row
  DType type;

  /// Elements (t, o) to (t+3, o), those of them that are below `tokens`.
  __device__ void store(int t, int tokens, int o, const float (&value)[4]) const {
    if (type == DType::bf16)
      store_as<__nv_bfloat16>(t, tokens, o, value);
    else if (type == DType::f16)
      store_as<__half>(t, tokens, o, value);
    else
      store_as<float>(t, tokens, o, value);
  }
  template <class Y>
  __device__ void store_as(int t, int tokens, int o, const float (&value)[4]) const {
    Y* const to = static_cast<Y*>(data) + (t * row + o);
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      if (t + i < tokens) to[i * row] = from_float<Y>(value[i]);
    }
  }
};

/// y[t,o] = sum + bias[o] + residual[t,o]
struct PlainEpilogue {
  Rows y;
  const float* bias;      ///< may be null
  const float* residual;  ///< may be null
  int residual_row;

  struct Column {
    float bias;
  };
  struct Ahead {
    float residual[4];
  };
  __device__ Column column(int o) const { return {bias ? bias[o] : 0.0f}; }
  __device__ void fetch(int, int, int) const {}
  __device__ Ahead before(const Column&, int t, int tokens, int o) const {
    Ahead ahead{};
    if (!residual) return ahead;
    const float* const from = residual + (t * residual_row + o);
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      if (t + i < tokens) ahead.residual[i] = from[i * residual_row];
    }
    return ahead;
  }
  __device__ void store(const Column& column, const Ahead& ahead, int t, int tokens, int o,
                        const float (&sum)[4]) const {
    float value[4];
#pragma unroll
    for (int i = 0; i < 4; ++i) value[i] = sum[i] + (column.bias + ahead.residual[i]);
    y.store(t, tokens, o, value);
  }
};

/// The first `channels` columns are convolved with the state, which moves on.
constexpr int kTaps = 4;
constexpr int kConvTokens = 16;  ///< for more, a kernel of its own reads states faster
struct ConvEpilogue {
  Rows y;
  const float* bias;    ///< of the projection; may be null
  const float* conv_w;  ///< [D, 4]
  int conv_row;
  const float* conv_bias;  ///< may be null
  float* state;            ///< [C, D, 3]
  int channels;
  bool silu_after;
  const std::int32_t* slot_in;
  const std::int32_t* slot_out;

  struct Column {
    float bias, conv_bias;
    float w[kTaps];
  };
  struct Ahead {
    float history[4][kTaps - 1];
    int to[4];  ///< slots; -1: not kept
  };
  __device__ float* state_of(int slot, int d) const {
    return state + (slot * channels + d) * (kTaps - 1);
  }
  __device__ Column column(int o) const {
    Column c{};
    c.bias = bias ? bias[o] : 0.0f;
    if (o >= channels) return c;
    c.conv_bias = conv_bias ? conv_bias[o] : 0.0f;
#pragma unroll
    for (int k = 0; k < kTaps; ++k) c.w[k] = conv_w[o * conv_row + k];
    return c;
  }
  __device__ void fetch(int t, int tokens, int o) const {
    if (o >= channels) return;
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const int from = t + i < tokens ? slot_in[t + i] : -1;
      if (from >= 0) asm volatile("prefetch.global.L2 [%0];" ::"l"(state_of(from, o)));
    }
  }
  __device__ Ahead before(const Column&, int t, int tokens, int o) const {
    Ahead a{};
    if (o >= channels) return a;
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const int from = t + i < tokens ? slot_in[t + i] : -1;
      a.to[i] = t + i < tokens ? slot_out[t + i] : -1;
      if (from < 0) continue;
      const float* const history = state_of(from, o);
#pragma unroll
      for (int k = 0; k + 1 < kTaps; ++k) a.history[i][k] = history[k];
    }
    return a;
  }
  __device__ void store(const Column& c, const Ahead& a, int t, int tokens, int o,
                        const float (&sum)[4]) const {
    float value[4];
#pragma unroll
    for (int i = 0; i < 4; ++i) value[i] = sum[i] + c.bias;
    if (o < channels) {
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        if (a.to[i] >= 0) {
          float* const to = state_of(a.to[i], o);
#pragma unroll
          for (int k = 1; k + 1 < kTaps; ++k) to[k - 1] = a.history[i][k];
          to[kTaps - 2] = value[i];
        }
        float past = c.conv_bias;  // the convolution but for the latest input
#pragma unroll
        for (int k = 0; k + 1 < kTaps; ++k) past = fmaf(c.w[k], a.history[i][k], past);
        value[i] = fmaf(c.w[kTaps - 1], value[i], past);
        if (silu_after) value[i] = silu(value[i]);
      }
    }
    y.store(t, tokens, o, value);
  }
};

}  // namespace batch

namespace {

using namespace batch;

Rows rows_of(const TensorView& view) {
  return {view.as<void>(), static_cast<int>(view.stride[0]), view.dtype};
}

/// Empty if an operand's elements can be told by 32-bit numbers.
std::string want_small(std::string_view operand, const TensorView& view) {
  constexpr std::int64_t kMost = std::int64_t{1} << 30;
  return view.dim[0] * view.stride[0] <= kMost ? "" : cat(operand, ": for at most 2^30 elements");
}

std::string supports(const Call& call, const TensorView& w, const Device& device) {
  std::string reason = batch_supports(call, w, device);
  return reason.empty() ? want_small("y", call.outputs[0]) : reason;
}

PlainEpilogue plain_epilogue(const TensorView& y, const TensorView& bias,
                             const TensorView& residual = {}) {
  return {rows_of(y), bias ? bias.as<const float>() : nullptr,
          residual ? residual.as<const float>() : nullptr,
          residual ? static_cast<int>(residual.stride[0]) : 0};
}

// ---- linear ----

std::string supports_linear(const Call& call, const Device& device) {
  return supports(call, call.inputs[1], device);
}

Status run_linear(const Call& call, const Launch& launch) {
  const auto [x, w, bias] = call.in<3>();
  if (call.outputs[0].elements() == 0) return {};
  KRAIT_TRY(run_batch(launch, batch_input(call, launch), w, plain_epilogue(call.outputs[0], bias)));
  return launched(call);
}

// ---- linear_residual ----

std::string supports_residual(const Call& call, const Device& device) {
  const auto [x, w, bias, residual] = call.in<4>();
  if (residual.dtype != DType::f32) return "residual: expected f32";
  const std::string reason = supports(call, w, device);
  return reason.empty() ? want_small("residual", residual) : reason;
}

Status run_residual(const Call& call, const Launch& launch) {
  const auto [x, w, bias, residual] = call.in<4>();
  if (call.outputs[0].elements() == 0) return {};
  KRAIT_TRY(run_batch(launch, batch_input(call, launch), w,
                      plain_epilogue(call.outputs[0], bias, residual)));
  return launched(call);
}

// ---- norm_linear ----

std::string supports_norm(const Call& call, const Device& device) {
  const auto [x, norm_weight, w, bias] = call.in<4>();
  if (x.dtype != DType::f32 || norm_weight.dtype != DType::f32)
    return "x and norm_weight: expected f32";
  return supports(call, w, device);
}

Status run_norm(const Call& call, const Launch& launch) {
  const auto [x, norm_weight, w, bias] = call.in<4>();
  if (call.outputs[0].elements() == 0) return {};
  const BatchInput input = batch_input(call, launch, norm_weight, call.attr("eps"));
  KRAIT_TRY(run_batch(launch, input, w, plain_epilogue(call.outputs[0], bias)));
  return launched(call);
}

// ---- in_proj_conv1d ----

std::string supports_conv1d(const Call& call, const Device& device) {
  const auto [x, norm_weight, w, bias, conv_w, conv_bias, state] = call.in<7>();
  if (!call.steps) return "for one token of every sequence";
  if (x.dim[0] > kConvTokens) return cat("for at most ", kConvTokens, " tokens, got ", x.dim[0]);
  if (conv_w.dim[1] != kTaps) return cat("for ", kTaps, " taps, got ", conv_w.dim[1]);
  if (x.dtype != DType::f32 || norm_weight.dtype != DType::f32)
    return "x and norm_weight: expected f32";
  const std::string reason = supports(call, w, device);
  return reason.empty() ? want_small("state", state) : reason;
}

Status run_conv1d(const Call& call, const Launch& launch) {
  const auto [x, norm_weight, w, bias, conv_w, conv_bias, state, starts, slot_in, slot_out] =
      call.in<10>();
  const TensorView& y = call.outputs[0];
  if (y.elements() == 0) return {};
  const ConvEpilogue epilogue{rows_of(y),
                              bias ? bias.as<const float>() : nullptr,
                              conv_w.as<const float>(),
                              static_cast<int>(conv_w.stride[0]),
                              conv_bias ? conv_bias.as<const float>() : nullptr,
                              state.as<float>(),
                              static_cast<int>(conv_w.dim[0]),
                              call.choice<Activation>("activation") == Activation::silu,
                              slot_in.as<const std::int32_t>(),
                              slot_out.as<const std::int32_t>()};
  const BatchInput input = batch_input(call, launch, norm_weight, call.attr("eps"));
  KRAIT_TRY(run_batch(launch, input, w, epilogue));
  return launched(call);
}

}  // namespace

extern const Kernel linear_batch_kernel{"linear", "batch", supports_linear, run_linear,
                                        batch_workspace};
extern const Kernel linear_residual_batch_kernel{"linear_residual", "batch", supports_residual,
                                                 run_residual, batch_workspace};
extern const Kernel norm_linear_batch_kernel{"norm_linear", "batch", supports_norm, run_norm,
                                             batch_workspace};
extern const Kernel in_proj_conv1d_batch_kernel{"in_proj_conv1d", "batch", supports_conv1d,
                                                run_conv1d, batch_workspace};

}  // namespace krait::cuda
