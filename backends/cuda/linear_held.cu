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

/// Inputs i to i+7 of a row; zeros beyond its end. `neat`: the row begins at a multiple of sixteen
/// bytes and is whole packs long.
template <bool neat>
__device__ void load_inputs(const float* row, int i, int width, float (&x)[8]) {
  if (neat) {
    const float4 low = load_quad(row + i), high = load_quad(row + i + 4);
    x[0] = low.x, x[1] = low.y, x[2] = low.z, x[3] = low.w;
    x[4] = high.x, x[5] = high.y, x[6] = high.z, x[7] = high.w;
  } else {
#pragma unroll
    for (int k = 0; k < 8; ++k) x[k] = i + k < width ? row[i + k] : 0.0f;
  }
}
template <bool neat>
__device__ void load_inputs(const __nv_bfloat16* row, int i, int width, float (&x)[8]) {
  unpack(neat ? *reinterpret_cast<const uint4*>(row + i) : load_eight(row, i, width, false), row,
         x);
}

template <int packs, bool neat, class X>
__global__ void __launch_bounds__(kMostThreads)
    held(LinearArgs<X> args, bool next_first, FetchAhead fetch) {
  __shared__ float parts[kRows][kMostThreads / 32];
  const int thread = static_cast<int>(threadIdx.x), warp = thread / 32, lane = thread % 32;
  const int warps = static_cast<int>(blockDim.x) / 32;
  const auto output = [&](int r) { return static_cast<int>(blockIdx.x + r * gridDim.x); };
  const auto first_of = [&](int p) { return (thread + p * static_cast<int>(blockDim.x)) * 8; };
  uint4 w[kRows][packs];
#pragma unroll
  for (int r = 0; r < kRows; ++r) {
    const auto* const row = args.w + std::int64_t{output(r)} * args.inputs;
#pragma unroll
    for (int p = 0; p < packs; ++p) {
      const int i = first_of(p);
      w[r][p] = i < args.inputs && output(r) < args.outputs ? load_eight(row, i, args.inputs, neat)
                                                            : uint4{};
    }
  }
  // The first half of the first warp stores the first output, the other half the second.
  const int o = output(lane / 16);
  const bool stores = warp == 0 && lane % 16 == 0 && o < args.outputs;
  const float bias = stores && args.bias ? args.bias[o] : 0.0f;

  wait_for_inputs(next_first);
  float x[packs][8];
#pragma unroll
  for (int p = 0; p < packs; ++p) {
    const int i = first_of(p);
    if (i < args.inputs) load_inputs<neat>(args.x, i, args.inputs, x[p]);
  }
  float sum[kRows][2] = {};
#pragma unroll
  for (int p = 0; p < packs; ++p) {
    if (first_of(p) >= args.inputs) break;
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
      float row[8];
      unpack(w[r][p], args.w, row);
#pragma unroll
      for (int k = 0; k < 8; ++k) sum[r][k % 2] = fmaf(x[p][k], row[k], sum[r][k % 2]);
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
  const bool neat =
      args.inputs % 8 == 0 && args.w_aligned && aligned_to_16(args.w) && aligned_to_16(args.x);
  // As many on each multiprocessor (keeps_blocks_apart), so that the next kernel's find as much
  // room.
  const auto& device = static_cast<const CudaDevice&>(launch.device);
  const int blocks = std::min(args.outputs, device.multiprocessors());
  const int shared = keeps_blocks_apart(device) ? device.shared_bytes() / 2 : 0;
  // No more warps than it takes: the last step waits for all.
  const unsigned threads = 32 * blocks_of(args.inputs, std::int64_t{8} * packs * 32);
  launch_early(launch, neat ? held<packs, true, X> : held<packs, false, X>,
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
