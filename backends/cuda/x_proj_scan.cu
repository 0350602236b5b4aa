// x_proj_scan for decoding one token. Every channel's scan needs all of the projection, which needs
// all channels, so that the two would be two kernels; here each cluster of blocks makes the whole
// projection for itself. Its blocks divide the inputs (channels), so that the weights are read once
// a cluster, and each sends its part of every sum to all the others. Then a few lanes per channel
// make its dt and advance its states.
//
// Products of x_proj are those of bfloat16 on tensor cores, and exact (tensor_cores.cuh): a warp
// makes sixteen sums, the terms of the one token are columns.
#include <algorithm>

#include "backends/cuda/discretise.cuh"
#include "backends/cuda/gemv.cuh"
#include "backends/cuda/tensor_cores.cuh"

namespace krait::cuda {
namespace {

constexpr int kMostThreads = 384;  ///< of a block
/// Threads whose registers fit beside those of a block of gemv.cuh, on every quarter of a
/// multiprocessor.
constexpr int kBesideThreads = 256;
constexpr int kCluster = 8;  ///< blocks
/// Every cluster reads all weights of the projection: more clusters make the scan no faster, but
/// keep the projection before this one from its weights (bench/results/cuda-h100.md).
constexpr int kMostClusters = 7;
constexpr int kTile = 16;        ///< columns of the projection that a warp makes: rows of one mma
constexpr int kStepInputs = 32;  ///< of two mma
constexpr int kHeldSteps = 2;    ///< whose weights wait in registers, the others in shared memory
constexpr int kStates = 16;

/// Packs of eight elements of a row of dt_w that one of `lanes` of a channel has.
constexpr int dt_packs(int lanes) {
  return lanes == 8 ? 4 : 5;
}

template <class X>
struct Args {
  const X* u;
  const X* z;
  X* y;
  const __nv_bfloat16* x_w;   ///< [columns, channels]
  const __nv_bfloat16* dt_w;  ///< [channels, rank]
  const float* A;
  const float* skip;
  const float* dt_bias;
  float* state;  ///< [C, D, N]
  std::int64_t A_row;
  int channels, channels_per_group, columns, rank, states;
  int steps;           ///< of kStepInputs, that a block has of the projection
  int block_channels;  ///< that a block scans
  bool dt_softplus;
  Discretisation rule;
  const std::int32_t* slot_in;
  const std::int32_t* slot_out;
};

__host__ __device__ inline int round_up(int x, int to) {
  return (x + to - 1) / to * to;
}

/// Where things lie in shared memory, in bytes.
struct Layout {
  int queue = 0;  ///< uint4 [steps − kHeldSteps][2][threads]: weights on the way
  int received;   ///< float [kCluster][columns]: every block's part of the sums
  int terms;      ///< bfloat16 [terms][inputs of the block]
  int sums;       ///< float [columns], with room to make those of dt_low a multiple of eight
  int bytes;

  __host__ __device__ Layout(int steps, int threads, int columns, int term_count) {
    const int padded = round_up(columns, kTile);
    received = (steps > kHeldSteps ? steps - kHeldSteps : 0) * 2 * threads * 16;
    terms = received + kCluster * padded * 4;
    sums = terms + term_count * steps * kStepInputs * 2;
    bytes = sums + (padded + 8) * 4;
  }
};

/// The states of a lane.
template <int count>
struct alignas(4 * count) LaneStates {
  float of[count];
};

/// `neat`: what real models have. Rows are aligned, every block has whole steps of inputs and every
/// warp whole tiles, dt_low has whole packs, there are kStates states and one group, and the rule
/// is mamba's. So there are no branches, which between the inputs' arrival and the last store would
/// cost more than the work.
template <int lanes, bool neat, class X>
__global__ void KRAIT_CLUSTER(kCluster) __launch_bounds__(kMostThreads)
    project_and_scan(Args<X> args, bool next_first, FetchAhead fetch) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  constexpr int kLaneStates = kStates / lanes, kDtPacks = dt_packs(lanes);
  using States = LaneStates<kLaneStates>;
  extern __shared__ __align__(16) unsigned char shared[];
  __shared__ std::uint64_t arrived;
  const int from = args.slot_in[0], to = args.slot_out[0];
  unsigned rank;  // of the block in its cluster
  asm("mov.u32 %0, %%cluster_ctarank;" : "=r"(rank));
  const int threads = static_cast<int>(blockDim.x);
  const Layout layout(args.steps, threads, args.columns, kTerms<X>);
  const int padded = round_up(args.columns, kTile);
  const int thread = static_cast<int>(threadIdx.x), warp = thread / 32, in_warp = thread % 32;
  const unsigned barrier = shared_address(&arrived);
  if (thread == 0) {
    barrier_init(barrier, 1);
    barrier_expect(barrier, kCluster * padded * 4);
    show_barriers();
  }
  asm volatile("barrier.cluster.arrive.release.aligned;" ::: "memory");
  // Neat rows are whole steps: unlike load_eight<true>, this does not ask for their end.
  const auto eight = [](const __nv_bfloat16* row, int i, int width) {
    return neat ? *reinterpret_cast<const uint4*>(row + i) : load_eight<false>(row, i, width).words;
  };

  // Weights of the projection, which are needed first: a warp's tile of sixteen columns, the
  // block's inputs.
  const bool projects = warp * kTile < args.columns;
  const int row = in_warp / 4, column = in_warp % 4 * 8;  // of a step, in both operands
  const int first_input = static_cast<int>(rank) * args.steps * kStepInputs;
  const unsigned queue = shared_number(shared + 16 * thread);
  uint4 held[kHeldSteps][2];
  if (projects) {
    const __nv_bfloat16* w[2];  // the lane's first pack of both rows
#pragma unroll
    for (int n = 0; n < 2; ++n) {
      const int o = warp * kTile + 8 * n + row;  // those beyond the last are the last
      w[n] = args.x_w + std::int64_t{neat ? o : min(o, args.columns - 1)} * args.channels;
    }
#pragma unroll 2
    for (int s = kHeldSteps; s < args.steps; ++s) {
      const int i = first_input + s * kStepInputs + column;
#pragma unroll
      for (int n = 0; n < 2; ++n) {
        const unsigned slot = queue + ((s - kHeldSteps) * 2 + n) * threads * 16;
        if (neat)
          copy_pack(slot, w[n] + i);
        else
          store_shared(slot, load_eight<false>(w[n], i, args.channels).words);
      }
    }
    commit_copies();
#pragma unroll
    for (int s = 0; s < kHeldSteps; ++s) {
      if (s >= args.steps) break;
#pragma unroll
      for (int n = 0; n < 2; ++n)
        held[s][n] = eight(w[n], first_input + s * kStepInputs + column, args.channels);
    }
  }

  // What the scan needs. Lanes beyond the last channel take part in sums, but store nothing.
  const int lane = thread % lanes, of_block = thread / lanes;
  const int d = static_cast<int>(blockIdx.x) * args.block_channels + of_block;
  const bool active = of_block < args.block_channels && d < args.channels;
  const int channel = active ? d : 0;
  const int first = lane * kLaneStates;  // of the states of this lane
  uint4 dt_w[kDtPacks];
#pragma unroll
  for (int j = 0; j < kDtPacks; ++j) {
    const int i = (lane + j * lanes) * 8;
    if (i < args.rank) dt_w[j] = eight(args.dt_w + std::int64_t{channel} * args.rank, i, args.rank);
  }
  const float bias = args.dt_bias ? args.dt_bias[channel] : 0.0f;
  const float skip = args.skip ? args.skip[channel] : 0.0f;
  const auto load_states = [&](const float* array, std::int64_t row) {
    if (neat) return *reinterpret_cast<const States*>(array + row + first);
    States loaded{};
#pragma unroll
    for (int i = 0; i < kLaneStates; ++i) {
      if (first + i < args.states) loaded.of[i] = array[row + first + i];
    }
    return loaded;
  };
  const States A = load_states(args.A, channel * args.A_row);
  const auto state_row = [&](int slot) {
    return (std::int64_t{slot} * args.channels + channel) * args.states;
  };
  States h{};
  if (from >= 0) h = load_states(args.state, state_row(from));
  // Before others' sums can come here, and ours go there, all blocks have to be ready for them.
  asm volatile("barrier.cluster.wait.acquire.aligned;" ::: "memory");

  wait_for_inputs(next_first);
  const float u = to_float(args.u[channel]);
  const float z = args.z ? to_float(args.z[channel]) : 0.0f;
  auto* const terms = reinterpret_cast<unsigned short*>(shared + layout.terms);
  const int inputs = args.steps * kStepInputs;
#pragma unroll 1  // else it would divide first, for a loop that is mostly one turn
  for (int i = thread; i < inputs; i += threads) {
    float x = neat || first_input + i < args.channels ? to_float(args.u[first_input + i]) : 0.0f;
#pragma unroll
    for (int k = 0; k < kTerms<X>; ++k) {
      const std::uint32_t term = k == 0 ? take_term(x) : take_finite_term(x);
      terms[k * inputs + i] = static_cast<unsigned short>(term >> 16);
    }
  }
  __syncthreads();
  if (projects) {
    float even[4] = {}, odd[4] = {};
    const unsigned short* x_terms = terms + row * inputs + column;
    const auto step = [&](int s, const uint4& low, const uint4& high) {
      uint4 x{};
      if (row < kTerms<X>) x = *reinterpret_cast<const uint4*>(x_terms + s * kStepInputs);
      multiply_add(even, low.x, high.x, low.y, high.y, x.x, x.y);
      multiply_add(odd, low.z, high.z, low.w, high.w, x.z, x.w);
    };
#pragma unroll
    for (int s = 0; s < kHeldSteps; ++s) {
      if (s < args.steps) step(s, held[s][0], held[s][1]);
    }
    await_copies<0>();
#pragma unroll 4
    for (int s = kHeldSteps; s < args.steps; ++s) {
      const unsigned pack = queue + (s - kHeldSteps) * 2 * threads * 16;
      step(s, load_shared(pack), load_shared(pack + threads * 16));
    }
    // Rows `row` and `row + 8`; the first lane of four has the first two terms' sums, the second
    // the third.
    float low = even[0] + odd[0], high = even[2] + odd[2];
    if constexpr (kTerms<X> == 3) {
      low += __shfl_xor_sync(0xffffffffu, low, 1) + (even[1] + odd[1]);
      high += __shfl_xor_sync(0xffffffffu, high, 1) + (even[3] + odd[3]);
    }
    // Four lanes have the sixteen sums for one block: its lane q sums 4 q to 4 q + 3.
    const int quad = in_warp % 4;
    float sum[4];
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const int lane_of = (4 * quad + i) % 8 * 4;
      const float a = __shfl_sync(0xffffffffu, low, lane_of);
      const float b = __shfl_sync(0xffffffffu, high, lane_of);
      sum[i] = quad < 2 ? a : b;
    }
    static_assert(kCluster * 4 == 32);
    const auto receiver = static_cast<unsigned>(in_warp) / 4;
    const unsigned slot = shared_address(
        shared + layout.received + (static_cast<int>(rank) * padded + warp * kTile + 4 * quad) * 4);
    send(address_in(slot, receiver), {sum[0], sum[1], sum[2], sum[3]},
         address_in(barrier, receiver));
  }
  fetch.run();
  const float gate = args.z ? silu(z) : 1.0f;
  auto* const sums = reinterpret_cast<float*>(shared + layout.sums);
  const int room = neat ? 0 : round_up(args.rank, 8) - args.rank;
  if (!neat && thread < room) sums[args.rank + thread] = 0.0f;
  if (thread < args.columns) {
    barrier_wait_for_cluster(barrier);
    const auto* const part = reinterpret_cast<const float*>(shared + layout.received) + thread;
    float sum = 0;
#pragma unroll
    for (int r = 0; r < kCluster; ++r) sum += part[r * padded];
    sums[thread < args.rank ? thread : thread + room] = sum;
  }
  __syncthreads();

  // dt = Σ_r dt_low[r] dt_w[d,r]
  float dt = 0;
#pragma unroll
  for (int j = 0; j < kDtPacks; ++j) {
    const int i = (lane + j * lanes) * 8;
    if (i >= args.rank) break;
    const float4 a = load_quad(sums + i), b = load_quad(sums + i + 4);
    const auto& w = reinterpret_cast<const __nv_bfloat16(&)[8]>(dt_w[j]);
    float more = a.x * to_float(w[0]);
    dt = fmaf(b.x, to_float(w[4]), dt);
    more = fmaf(a.y, to_float(w[1]), more);
    dt = fmaf(b.y, to_float(w[5]), dt);
    more = fmaf(a.z, to_float(w[2]), more);
    dt = fmaf(b.z, to_float(w[6]), dt);
    more = fmaf(a.w, to_float(w[3]), more);
    dt = fmaf(b.w, to_float(w[7]), dt);
    dt += more;
  }
  dt = lanes_sum<lanes>(dt);
  dt += bias;
  if (args.dt_softplus) dt = softplus(dt);

  const int group = neat ? 0 : channel / args.channels_per_group;
  const int groups = neat ? 1 : args.channels / args.channels_per_group;
  const float* const B_row = sums + args.rank + room;
  const States B = load_states(B_row, group * args.states);
  const States C = load_states(B_row, (groups + group) * args.states);
  float y = 0;
#pragma unroll
  for (int i = 0; i < kLaneStates; ++i) {
    if (!neat && first + i >= args.states) break;
    h.of[i] = neat ? advance<Discretisation::mamba>(h.of[i], dt * A.of[i], B.of[i], dt * u)
                   : advance(args.rule, h.of[i], dt * A.of[i], B.of[i], dt * u);
    y = fmaf(C.of[i], h.of[i], y);
  }
  y = lanes_sum<lanes>(y);
  if (!active) return;
  if (lane == 0) {
    if (args.skip) y = fmaf(skip, u, y);
    args.y[channel] = from_float<X>(y * gate);
  }
  if (to < 0) return;
  float* const state = args.state + state_row(to) + first;
  if constexpr (neat) {
    *reinterpret_cast<States*>(state) = h;
  } else {
    for (int i = 0; i < min(kLaneStates, args.states - first); ++i) state[i] = h.of[i];
  }
#endif
}

/// How a call is divided.
struct Division {
  int clusters;
  int steps;           ///< of kStepInputs for each block of a cluster
  int block_channels;  ///< that a block scans
  int lanes;           ///< of a channel
  int threads;
};

Division divide(const CudaDevice& device, int channels, int columns) {
  const auto parts = [](int x, int size) { return static_cast<int>(blocks_of(x, size)); };
  Division of{};
  const int most = std::clamp(device.multiprocessors() / kCluster, 1, kMostClusters);
  of.block_channels = std::max(parts(channels, kCluster * most), 1);
  of.clusters = parts(parts(channels, of.block_channels), kCluster);
  of.steps = parts(parts(channels, kStepInputs), kCluster);
  of.lanes = of.block_channels * 8 <= kBesideThreads ? 8 : 4;
  of.threads = 32 * std::max(parts(columns, kTile), parts(of.block_channels * of.lanes, 32));
  return of;
}

/// Beyond it the two kernels are as fast, since the clusters' reading of the weights takes longer
/// than a kernel's beginning and end.
constexpr std::int64_t kMostWeights = 1 << 20;  ///< of x_w, in bytes

std::string supports(const Call& call, const Device& device) {
  const auto [u, x_w, dt_w, A, skip, z] = call.in<6>();
  const auto& cuda = static_cast<const CudaDevice&>(device);
  if (!cuda.has_clusters()) return "needs compute capability 9.0, and code for it";
  if (u.dim[0] > 1 || !call.steps) return cat("for one token, got ", u.dim[0]);
  for (const auto& [name, view] : {std::pair{"x_w", &x_w}, std::pair{"dt_w", &dt_w}}) {
    if (view->dtype != DType::bf16)
      return cat(name, ": expected bf16, got ", krait::name(view->dtype));
  }
  if (u.dtype != DType::f32 && u.dtype != DType::bf16)
    return cat("u: expected f32 or bf16, got ", name(u.dtype));
  if (z && z.dtype != u.dtype)
    return cat("z: expected ", name(u.dtype), " as u, got ", name(z.dtype));
  if (A.dim[1] > kStates) return cat("for at most ", kStates, " states, got ", A.dim[1]);
  if (x_w.dim[0] > kMostThreads / 32 * kTile)
    return cat("for at most ", kMostThreads / 32 * kTile, " rows of x_w, got ", x_w.dim[0]);
  if (bytes_of(x_w.dtype, x_w.elements()) > kMostWeights)
    return cat("for at most ", kMostWeights, " bytes of x_w, got ",
               bytes_of(x_w.dtype, x_w.elements()));
  const auto columns = static_cast<int>(x_w.dim[0]);
  const Division of = divide(cuda, static_cast<int>(u.dim[1]), columns);
  const int most_rank = 8 * of.lanes * dt_packs(of.lanes);
  if (dt_w.dim[1] > most_rank)
    return cat("for at most ", most_rank, " columns of dt_w, got ", dt_w.dim[1]);
  const Layout layout(of.steps, of.threads, columns, kTerms<float>);
  if (of.threads > kMostThreads || layout.bytes > cuda.shared_bytes() - 1024)
    return cat("too many channels for this device, got ", u.dim[1]);
  return {};
}

template <class X>
void run_as(const Call& call, const Launch& launch) {
  const auto [u, x_w, dt_w, A, skip, z, dt_bias, state, starts, slot_in, slot_out] = call.in<11>();
  Args<X> args{};
  args.u = u.as<const X>();
  if (z) args.z = z.as<const X>();
  args.y = call.outputs[0].as<X>();
  args.x_w = x_w.as<const __nv_bfloat16>();
  args.dt_w = dt_w.as<const __nv_bfloat16>();
  args.A = A.as<const float>();
  if (skip) args.skip = skip.as<const float>();
  if (dt_bias) args.dt_bias = dt_bias.as<const float>();
  args.state = state.as<float>();
  args.A_row = A.stride[0];
  args.channels = static_cast<int>(u.dim[1]);
  args.channels_per_group = args.channels / static_cast<int>(call.attr("groups"));
  args.columns = static_cast<int>(x_w.dim[0]);
  args.rank = static_cast<int>(dt_w.dim[1]);
  args.states = static_cast<int>(A.dim[1]);
  args.dt_softplus = call.flag("dt_softplus");
  args.rule = call.choice<Discretisation>("discretisation");
  args.slot_in = slot_in.as<const std::int32_t>();
  args.slot_out = slot_out.as<const std::int32_t>();
  const Division of =
      divide(static_cast<const CudaDevice&>(launch.device), args.channels, args.columns);
  args.steps = of.steps;
  args.block_channels = of.block_channels;
  const bool neat = aligned_to_16(args.x_w, x_w.dim[1] * 2) && aligned_to_16(args.dt_w) &&
                    args.rank % 8 == 0 && args.channels == of.steps * kStepInputs * kCluster &&
                    args.columns % kTile == 0 && args.states == kStates &&
                    aligned_to_16(args.A, 4 * args.A_row) && aligned_to_16(args.state) &&
                    args.channels_per_group == args.channels && args.rule == Discretisation::mamba;
  const Layout layout(of.steps, of.threads, args.columns, kTerms<X>);
  const auto launch_as = [&](auto kernel) {
    launch_early(launch, kernel, dim3(static_cast<unsigned>(kCluster * of.clusters)),
                 static_cast<unsigned>(of.threads), static_cast<std::size_t>(layout.bytes), args,
                 launch.next_first, FetchAhead(launch));
  };
  if (of.lanes == 8)
    launch_as(neat ? project_and_scan<8, true, X> : project_and_scan<8, false, X>);
  else
    launch_as(neat ? project_and_scan<4, true, X> : project_and_scan<4, false, X>);
}

Status run(const Call& call, const Launch& launch) {
  if (call.inputs[0].elements() == 0) return {};
  with_term_type(call.inputs[0].dtype, [&](auto type) { run_as<decltype(type)>(call, launch); });
  return launched(call);
}

}  // namespace

extern const Kernel x_proj_scan_kernel{"x_proj_scan", "cluster", supports, run};

}  // namespace krait::cuda
