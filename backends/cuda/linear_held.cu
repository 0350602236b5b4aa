// linear for one token with few outputs of many inputs, such as x_proj: a block makes one output or
// two. Its weights are in registers before the inputs are there; then a thread loads its inputs,
// eight or sixteen, and uses them where they are. What is left between the inputs' arrival and the
// last store is short, and that is all this kernel takes: it reads its weights beside the one
// before.
#include "backends/cuda/gemv.cuh"
#include "backends/cuda/linear_args.cuh"

namespace krait::cuda {
namespace {

constexpr int kRows = 2;  ///< of w, whose outputs a block makes
constexpr int kMostThreads = 512;
constexpr int kMostPacks = 2;  ///< of eight inputs, that a thread has

__device__ void unpack(const Eight<float>& x, float (&to)[8]) {
  to[0] = x.low.x, to[1] = x.low.y, to[2] = x.low.z, to[3] = x.low.w;
  to[4] = x.high.x, to[5] = x.high.y, to[6] = x.high.z, to[7] = x.high.w;
}
__device__ void unpack(const Eight<__nv_bfloat16>& x, float (&to)[8]) {
  cuda::unpack(x.words, static_cast<const __nv_bfloat16*>(nullptr), to);
}

template <int packs, bool neat, class X>
__global__ void __launch_bounds__(kMostThreads)
    held(LinearArgs<X> args, bool next_first, FetchAhead fetch) {
  __shared__ float parts[kRows][kMostThreads / 32];
  const int thread = static_cast<int>(threadIdx.x), warp = thread / 32, lane = thread % 32;
  const int warps = static_cast<int>(blockDim.x) / 32;
  const auto output = [&](int r) { return static_cast<int>(blockIdx.x + r * gridDim.x); };
  const auto first_of = [&](int p) { return (thread + p * static_cast<int>(blockDim.x)) * 8; };
  Eight<__nv_bfloat16> w[kRows][packs];
#pragma unroll
  for (int r = 0; r < kRows; ++r) {
    const auto* const row = args.w + std::int64_t{output(r)} * args.inputs;
    const int width = output(r) < args.outputs ? args.inputs : 0;
#pragma unroll
    for (int p = 0; p < packs; ++p) w[r][p] = load_eight<neat>(row, first_of(p), width);
  }
  // The first half of the first warp stores the first output, the other half the second.
  const int o = output(lane / 16);
  const bool stores = warp == 0 && lane % 16 == 0 && o < args.outputs;
  const float bias = stores && args.bias ? args.bias[o] : 0.0f;

  wait_for_inputs(next_first);
  Eight<X> x[packs];
#pragma unroll
  for (int p = 0; p < packs; ++p) x[p] = load_eight<neat>(args.x, first_of(p), args.inputs);
  float sum[kRows][2] = {};
#pragma unroll
  for (int p = 0; p < packs; ++p) {
    if (first_of(p) >= args.inputs) break;
    float input[8];
    unpack(x[p], input);
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
      float row[8];
      unpack(w[r][p], row);
#pragma unroll
      for (int k = 0; k < 8; ++k) sum[r][k % 2] = fmaf(input[k], row[k], sum[r][k % 2]);
    }
  }
  fetch.run();
  // Each half of a warp adds up one output.
  const bool second = lane >= 16;
  const float sum0 = sum[0][0] + sum[0][1], sum1 = sum[1][0] + sum[1][1];
  float total = second ? sum1 : sum0;
  total += __shfl_xor_sync(0xffffffffu, second ? sum0 : sum1, 16);
  total = lanes_sum<16>(total);
  if (lane % 16 == 0) parts[lane / 16][warp] = total;
  __syncthreads();
  if (warp == 0) {
    total = lane % 16 < warps ? parts[lane / 16][lane % 16] : 0.0f;
    total = lanes_sum<16>(total);
    if (stores) store_float(args.y, args.type, o, total + bias);
  }
}

// With fewer inputs, or more outputs than blocks that run at once can make, the other kernels have
// enough to do as well.
constexpr int kLeastInputs = 1024;
constexpr int kMostInputs = 8 * kMostPacks * kMostThreads;

std::string supports(const Call& call, const Device& device) {
  const auto [x, w, bias] = call.in<3>();
  const auto& cuda = static_cast<const CudaDevice&>(device);
  if (cuda.compute_capability() < 80) return "needs compute capability 8.0";
  const int most = kRows * cuda.multiprocessors();
  if (x.dim[0] > 1 || w.dim[0] > most || w.dim[1] < kLeastInputs || w.dim[1] > kMostInputs)
    return cat("for one token, at most ", most, " outputs and ", kLeastInputs, " to ", kMostInputs,
               " inputs, got ", x.dim[0], ", ", w.dim[0], " and ", w.dim[1]);
  return linear_args_refusal(call);
}

template <int packs, class X>
void launch_held(const Launch& launch, const LinearArgs<X>& args) {
  // As many on each multiprocessor (keeps_blocks_apart), so that the next kernel's find as much
  // room.
  const auto& device = static_cast<const CudaDevice&>(launch.device);
  const int blocks = std::min(args.outputs, device.multiprocessors());
  const int shared = keeps_blocks_apart(device) ? device.shared_bytes() / 2 : 0;
  // No more warps than it takes: the last step waits for all.
  const unsigned threads = 32 * blocks_of(args.inputs, std::int64_t{8} * packs * 32);
  launch_early(launch, args.neat ? held<packs, true, X> : held<packs, false, X>,
               dim3(static_cast<unsigned>(blocks)), threads, static_cast<std::size_t>(shared), args,
               launch.next_first, FetchAhead(launch));
}

Status run(const Call& call, const Launch& launch) {
  if (call.outputs[0].elements() == 0) return {};
  with_linear_args(call, [&](const auto& args) {
    if (args.inputs <= 8 * kMostThreads)
      launch_held<1>(launch, args);
    else
      launch_held<2>(launch, args);
  });
  return launched(call);
}

}  // namespace

extern const Kernel linear_held_kernel{"linear", "held", supports, run, nullptr, nullptr, true};

}  // namespace krait::cuda
