// dt_proj_scan for decoding: a few lanes per channel make its dt, then advance its states, split
// over the same lanes.
#include "backends/cuda/discretise.cuh"
#include "backends/cuda/gemv.cuh"
#include "backends/cuda/scan_step.cuh"

namespace krait::cuda {
namespace {

constexpr int kThreads = 128;      ///< of a block of one among several tokens
constexpr int kMostThreads = 384;  ///< of one, which leaves room for a block of gemv.cuh
constexpr int kFlight = 3;         ///< packs of a row that a lane has on the way together

struct Args {
  GemvInput dt_low;
  const void* u;
  const float* A;
  const void* B;
  const void* C;
  const float* skip;
  const void* z;
  const float* dt_bias;
  void* y;
  float* state;  ///< [C, D, N]
  std::int64_t u_row, A_row, B_row, B_group, C_row, C_group, z_row, y_row;
  int channels, channels_per_group, states;
  bool dt_softplus;
  Discretisation rule;
  const std::int32_t* slot_in;
  const std::int32_t* slot_out;
};

/// Elements i to i+per_lane-1 of a row of `width`; zeros beyond its end.
template <bool neat, int per_lane, class X>
__device__ void load_row(const X* row, int i, int width, float (&x)[per_lane]) {
  if constexpr (neat) {
    static_assert(per_lane == 2);
    const float2 pair = load_pair(row + i);
    x[0] = pair.x, x[1] = pair.y;
  } else {
#pragma unroll
    for (int k = 0; k < per_lane; ++k) x[k] = i + k < width ? to_float(row[i + k]) : 0.0f;
  }
}

/// `neat`: what real models have. Lanes have two states each and read them together, as all rows;
/// dt_low has whole packs, of the type of u, and no more than are on the way together; there is one
/// group, and the rule is mamba's. So there are no branches, which between the inputs' arrival and
/// the last store would cost more than the work: a warp runs this code once, and waits for every
/// instruction that it skips.
template <bool neat, int lanes, int per_lane, class X, class W>
__global__ void __launch_bounds__(kMostThreads, per_lane > 2 ? 1 : 2)
    step(Args args, GemvWeights<W> dt_w, bool next_first, FetchAhead fetch) {
  using Weights = GemvWeights<W>;
  constexpr int kQuads = Weights::kCount / 4;
  const int lane = static_cast<int>(threadIdx.x) % lanes;
  const int d = static_cast<int>(blockIdx.x * (blockDim.x / lanes) + threadIdx.x / lanes);
  const int t = static_cast<int>(blockIdx.y);  // and the sequence, since each has one token
  // Lanes beyond the last channel take part in the sums of their warp, but touch no memory.
  const bool active = d < args.channels;
  const int channel = active ? d : 0;
  const int first = lane * per_lane;  // of the states of this lane
  const int packs = dt_w.packs();
  typename Weights::Pack held[kFlight];
#pragma unroll
  for (int j = 0; j < kFlight; ++j) {
    if (lane + j * lanes < packs) held[j] = dt_w.load(channel, lane + j * lanes);
  }
  float A[per_lane];
  load_row<neat>(args.A + channel * args.A_row, first, args.states, A);
  const float bias = args.dt_bias ? args.dt_bias[channel] : 0.0f;
  const float skip = args.skip ? args.skip[channel] : 0.0f;
  const int from = args.slot_in[t], to = args.slot_out[t];
  const auto state_of = [&](int slot) {
    return args.state + (static_cast<std::int64_t>(slot) * args.channels + channel) * args.states;
  };
  float h[per_lane] = {};
  if (from >= 0) load_row<neat>(state_of(from), first, args.states, h);

  wait_for_inputs(next_first);
  const float u = to_float(static_cast<const X*>(args.u)[t * args.u_row + channel]);
  const float z = args.z ? to_float(static_cast<const X*>(args.z)[t * args.z_row + channel]) : 0.0f;
  const int group = neat ? 0 : channel / args.channels_per_group;
  float B[per_lane], C[per_lane];
  load_row<neat>(static_cast<const X*>(args.B) + t * args.B_row + group * args.B_group, first,
                 args.states, B);
  load_row<neat>(static_cast<const X*>(args.C) + t * args.C_row + group * args.C_group, first,
                 args.states, C);
  // dt[t,d] = Σ_r dt_low[t,r] dt_w[d,r]
  float4 low[kFlight][kQuads];
#pragma unroll
  for (int j = 0; j < kFlight; ++j) {
#pragma unroll
    for (int q = 0; q < kQuads; ++q) {
      const int p = lane + j * lanes;
      if (p >= packs) continue;
      if constexpr (neat)
        low[j][q] = args.dt_low.template quad<X, true>(t, p * kQuads + q);
      else
        low[j][q] = args.dt_low.quad(t, p * kQuads + q);
    }
  }
  if (blockIdx.y == 0) fetch.run();
  float dt = 0;
  const auto add = [&](const float4(&xs)[kQuads], const typename Weights::Pack& w) {
#pragma unroll
    for (int q = 0; q < kQuads; ++q) {
      const float4& x = xs[q];
      dt = fmaf(x.x, to_float(w.element[4 * q]), dt);
      dt = fmaf(x.y, to_float(w.element[4 * q + 1]), dt);
      dt = fmaf(x.z, to_float(w.element[4 * q + 2]), dt);
      dt = fmaf(x.w, to_float(w.element[4 * q + 3]), dt);
    }
  };
#pragma unroll
  for (int j = 0; j < kFlight; ++j) {
    if (lane + j * lanes < packs) add(low[j], held[j]);
  }
  for (int p = lane + kFlight * lanes; !neat && p < packs; p += lanes) {
    float4 more[kQuads];
#pragma unroll
    for (int q = 0; q < kQuads; ++q) more[q] = args.dt_low.quad(t, p * kQuads + q);
    add(more, dt_w.load(channel, p));
  }
  dt = lanes_sum<lanes>(dt);
  dt += bias;
  if (args.dt_softplus) dt = softplus(dt);

  float y = 0;
#pragma unroll
  for (int i = 0; i < per_lane; ++i) {
    if (!neat && first + i >= args.states) break;
    h[i] = neat ? advance<Discretisation::mamba>(h[i], dt * A[i], B[i], dt * u)
                : advance(args.rule, h[i], dt * A[i], B[i], dt * u);
    y = fmaf(C[i], h[i], y);
  }
  y = lanes_sum<lanes>(y);
  if (!active) return;
  if (lane == 0) {
    if (args.skip) y = fmaf(skip, u, y);
    if (args.z) y *= silu(z);
    static_cast<X*>(args.y)[t * args.y_row + channel] = from_float<X>(y);
  }
  if (to < 0) return;
  if constexpr (neat) {
    *reinterpret_cast<float2*>(state_of(to) + first) = {h[0], h[1]};
  } else {
#pragma unroll
    for (int i = 0; i < per_lane; ++i) {
      if (first + i < args.states) state_of(to)[first + i] = h[i];
    }
  }
}

constexpr int kMostStates = 256;
constexpr int kManyChannels = 4096, kFewTokens = 4;  ///< see supports()

std::string supports(const Call& call, const Device& device) {
  const auto [u, dt_low, dt_w, A, B, C, skip, z] = call.in<8>();
  if (!call.steps) return "for one token of every sequence";
  // Every token reads all of dt_w; tensor cores read it once, which pays with one term per input,
  // and with three where there is much of it.
  const bool others = u.dtype != DType::f16 && dt_w.dtype == DType::bf16 && A.dim[1] == 16 &&
                      batch_fits(u, B) &&
                      static_cast<const CudaDevice&>(device).compute_capability() >= 80;
  const int tokens = !others || (u.dtype == DType::f32 && u.dim[1] < kManyChannels) ? kGemvTokens
                     : u.dtype == DType::f32                                        ? kFewTokens
                                                                                    : 1;
  if (u.dim[0] > tokens) return cat("for at most ", tokens, " tokens, got ", u.dim[0]);
  std::string reason = want_float("u", u);
  if (reason.empty()) reason = want_float("dt_low", dt_low);
  if (reason.empty()) reason = want_float("dt_w", dt_w);
  for (const auto& [name, view] : {std::pair{"B", &B}, std::pair{"C", &C}, std::pair{"z", &z}}) {
    if (reason.empty() && *view && view->dtype != u.dtype) {
      reason =
          cat(name, ": expected ", krait::name(u.dtype), " as u, got ", krait::name(view->dtype));
    }
  }
  if (reason.empty() && A.dim[1] > kMostStates)
    reason = cat("at most ", kMostStates, " states, got ", A.dim[1]);
  return reason;
}

/// Whether a step is `neat`, for two states a lane; `type` is that of X.
template <class X, class W>
bool is_neat(const Args& args, DType type, const GemvWeights<W>& dt_w, int lanes) {
  const auto in_pairs = [](const void* p, std::int64_t row, std::size_t size) {
    return reinterpret_cast<std::uintptr_t>(p) % (2 * size) == 0 && row % 2 == 0;
  };
  return args.states == 2 * lanes && dt_w.aligned && dt_w.width % dt_w.kCount == 0 &&
         dt_w.packs() <= kFlight * lanes && args.dt_low.aligned && args.dt_low.type == type &&
         args.channels == args.channels_per_group && args.rule == Discretisation::mamba &&
         in_pairs(args.A, args.A_row, 4) && in_pairs(args.state, 0, 4) &&
         in_pairs(args.B, args.B_row, sizeof(X)) && in_pairs(args.C, args.C_row, sizeof(X));
}

template <class X, int lanes, int per_lane, class W>
void launch_step(const Launch& launch, const Args& args, DType type, const GemvWeights<W>& dt_w) {
  const auto& device = static_cast<const CudaDevice&>(launch.device);
  int threads = kThreads, shared = 0;
  if (args.dt_low.tokens == 1 && keeps_blocks_apart(device)) {
    // As many channels for every multiprocessor, in one block if that is not too large.
    const auto all = static_cast<unsigned>(device.multiprocessors());
    const unsigned each = blocks_of(args.channels * lanes, all * kMostThreads);
    const unsigned channels = blocks_of(args.channels, all * each);
    threads = static_cast<int>(blocks_of(channels * lanes, 32)) * 32;
    if (each == 1) shared = device.shared_bytes() / 3;
  }
  const dim3 grid(blocks_of(args.channels, threads / lanes),
                  static_cast<unsigned>(args.dt_low.tokens));
  auto* kernel = step<false, lanes, per_lane, X, W>;
  if constexpr (per_lane == 2) {
    if (is_neat<X>(args, type, dt_w, lanes)) kernel = step<true, lanes, per_lane, X, W>;
  }
  launch_early(launch, kernel, grid, static_cast<unsigned>(threads),
               static_cast<std::size_t>(shared), args, dt_w,
               args.dt_low.tokens == 1 && launch.next_first, FetchAhead(launch));
}

Status run(const Call& call, const Launch& launch) {
  const auto [u, dt_low, dt_w, A, B, C, skip, z, dt_bias, state, starts, slot_in, slot_out] =
      call.in<13>();
  if (slot_in.dim[0] == 0 || u.dim[1] == 0) return {};
  Args args{};
  args.dt_low = gemv_input(dt_low);
  args.u = u.as<const void>();
  args.A = A.as<const float>();
  args.B = B.as<const void>();
  args.C = C.as<const void>();
  if (skip) args.skip = skip.as<const float>();
  if (z) args.z = z.as<const void>();
  if (dt_bias) args.dt_bias = dt_bias.as<const float>();
  args.y = call.outputs[0].as<void>();
  args.state = state.as<float>();
  args.u_row = u.stride[0];
  args.A_row = A.stride[0];
  args.B_row = B.stride[0];
  args.B_group = B.stride[1];
  args.C_row = C.stride[0];
  args.C_group = C.stride[1];
  args.z_row = z ? z.stride[0] : 0;
  args.y_row = call.outputs[0].stride[0];
  args.channels = static_cast<int>(u.dim[1]);
  args.channels_per_group = static_cast<int>(u.dim[1] / B.dim[1]);
  args.states = static_cast<int>(A.dim[1]);
  args.dt_softplus = call.flag("dt_softplus");
  args.rule = call.choice<Discretisation>("discretisation");
  args.slot_in = slot_in.as<const std::int32_t>();
  args.slot_out = slot_out.as<const std::int32_t>();
  with_float_type(u.dtype, [&](auto x_type) {
    with_float_type(dt_w.dtype, [&](auto w_type) {
      using X = decltype(x_type);
      using W = decltype(w_type);
      const GemvWeights<W> weights{
          dt_w.as<const W>(), args.channels, static_cast<int>(dt_w.dim[1]),
          aligned_to_16(dt_w.as<const W>(), dt_w.dim[1] * static_cast<std::int64_t>(sizeof(W)))};
      if (args.states <= 16)
        launch_step<X, 8, 2>(launch, args, u.dtype, weights);
      else if (args.states <= 64)
        launch_step<X, 8, 8>(launch, args, u.dtype, weights);
      else
        launch_step<X, 32, 8>(launch, args, u.dtype, weights);
    });
  });
  return launched(call);
}

}  // namespace

extern const Kernel dt_proj_scan_kernel{"dt_proj_scan", "step",  supports, run,
                                        nullptr,        nullptr, true};

}  // namespace krait::cuda
