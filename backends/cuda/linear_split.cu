// linear for few outputs of many inputs, such as x_proj of several tokens: there is not enough of
// the result for every multiprocessor, so the inputs are divided instead. A cluster of blocks makes
// a tile of the result, every warp in it a part of each sum; each block adds up the parts of some
// sums, which the others store in its shared memory. Operands go from memory to registers at once:
// each is read by one warp of the cluster. Products are those of bfloat16 on tensor cores, and
// exact: a float32 is the sum of three bfloat16 terms.

#include "backends/cuda/early_launch.cuh"
#include "backends/cuda/linear_args.cuh"
#include "backends/cuda/shared_memory.cuh"

namespace krait::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kCluster = 8;       ///< blocks
constexpr int kTileTokens = 16;   ///< rows of one mma; a tile has one, two or four of them
constexpr int kTileOutputs = 16;  ///< columns of two

#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900

constexpr int kWarps = kThreads / 32;
constexpr int kStepInputs = 32;  ///< of two mma
constexpr int kHeldSteps = 3;    ///< whose weights a warp loads before the inputs are there
/// Of them, whose inputs are on the way together: as far as there are registers.
template <int m_tiles, class X>
constexpr int kTogether = m_tiles <= 3 / kTerms<X> ? kHeldSteps : 1;

#endif

template <int m_tiles, bool neat, class X>
__global__ void KRAIT_CLUSTER(kCluster) __launch_bounds__(kThreads, m_tiles > 2 ? 1 : 2)
    split(LinearArgs<X> args, bool next_first) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  constexpr int kElements = m_tiles * kTileTokens * kTileOutputs;
  constexpr int kShare = kElements / kCluster;  // of the sums, which a block adds up
  __shared__ alignas(16) float parts[kWarps][kElements];
  __shared__ alignas(16) float received[kCluster][kShare];
  __shared__ std::uint64_t arrived;
  const unsigned barrier = shared_address(&arrived);
  const int rank = static_cast<int>(blockIdx.x) % kCluster;
  const int thread = static_cast<int>(threadIdx.x), warp = thread / 32, lane = thread % 32;
  if (thread == 0) {
    barrier_init(barrier, 1);
    barrier_expect(barrier, static_cast<int>(sizeof received));
    show_barriers();
  }
  cluster_arrive();
  const int o0 = static_cast<int>(blockIdx.x) / kCluster * kTileOutputs;
  const int t0 = static_cast<int>(blockIdx.y) * m_tiles * kTileTokens;
  // A lane has the same eight columns of a step in x and in w: which of the instruction's columns
  // they are does not matter, since it adds them all up. Rows beyond the last are the last one.
  const int row = lane / 4, column = lane % 4 * 8;
  const int first = rank * kWarps + warp, stride = kCluster * kWarps;
  const int steps = (args.inputs + kStepInputs - 1) / kStepInputs;
  const __nv_bfloat16* w_row[2];
#pragma unroll
  for (int n = 0; n < 2; ++n)
    w_row[n] = args.w + std::int64_t{min(o0 + 8 * n + row, args.outputs - 1)} * args.inputs;
  const auto load_w = [&](int s, Eight<__nv_bfloat16>(&w)[2]) {
#pragma unroll
    for (int n = 0; n < 2; ++n)
      w[n] = load_eight<neat>(w_row[n], s * kStepInputs + column, args.inputs);
  };
  Eight<__nv_bfloat16> held[kHeldSteps][2];
#pragma unroll
  for (int i = 0; i < kHeldSteps; ++i) load_w(first + i * stride, held[i]);
  const X* x_row[m_tiles][2];
#pragma unroll
  for (int m = 0; m < m_tiles; ++m) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int t = min(t0 + kTileTokens * m + 8 * half + row, args.tokens - 1);
      x_row[m][half] = args.x + t * args.x_row;
    }
  }
  wait_for_inputs(next_first);

  float sum[m_tiles][2][4] = {};
  const auto load_x = [&](int s, Eight<X>(&x)[m_tiles][2]) {
#pragma unroll
    for (int m = 0; m < m_tiles; ++m) {
#pragma unroll
      for (int half = 0; half < 2; ++half)
        x[m][half] = load_eight<neat>(x_row[m][half], s * kStepInputs + column, args.inputs);
    }
  };
  const auto multiply = [&](const Eight<X>(&x)[m_tiles][2], const Eight<__nv_bfloat16>(&w)[2]) {
    const uint4 &b0 = w[0].words, &b1 = w[1].words;
#pragma unroll
    for (int m = 0; m < m_tiles; ++m) {
      uint4 a[2][kTerms<X>];
#pragma unroll
      for (int half = 0; half < 2; ++half) take_terms(x[m][half], a[half]);
#pragma unroll
      for (int k = kTerms<X> - 1; k >= 0; --k) {
        const uint4 &low = a[0][k], &high = a[1][k];
        multiply_add(sum[m][0], low.x, high.x, low.y, high.y, b0.x, b0.y);
        multiply_add(sum[m][1], low.x, high.x, low.y, high.y, b1.x, b1.y);
        multiply_add(sum[m][0], low.z, high.z, low.w, high.w, b0.z, b0.w);
        multiply_add(sum[m][1], low.z, high.z, low.w, high.w, b1.z, b1.w);
      }
    }
  };
#pragma unroll
  for (int i = 0; i < kHeldSteps; i += kTogether<m_tiles, X>) {
    Eight<X> x[kTogether<m_tiles, X>][m_tiles][2];
#pragma unroll
    for (int j = 0; j < kTogether<m_tiles, X>; ++j) load_x(first + (i + j) * stride, x[j]);
#pragma unroll
    for (int j = 0; j < kTogether<m_tiles, X>; ++j) multiply(x[j], held[i + j]);
  }
#pragma unroll 1
  for (int s = first + kHeldSteps * stride; s < steps; s += stride) {
    Eight<X> x[m_tiles][2];
    Eight<__nv_bfloat16> w[2];
    load_x(s, x);
    load_w(s, w);
    multiply(x, w);
  }

  // The sums of this warp, then of the block, then of the cluster, in a fixed order.
#pragma unroll
  for (int m = 0; m < m_tiles; ++m) {
#pragma unroll
    for (int n = 0; n < 2; ++n) {
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        float* const to =
            &parts[warp][(kTileTokens * m + 8 * half + row) * kTileOutputs + 8 * n + lane % 4 * 2];
        to[0] = sum[m][n][2 * half];
        to[1] = sum[m][n][2 * half + 1];
      }
    }
  }
  __syncthreads();
  cluster_await();  // until all can receive
  constexpr int kQuads = kElements / 4;
  static_assert(kQuads <= kThreads);
  if (thread < kQuads) {
    float4 total{};
#pragma unroll
    for (int k = 0; k < kWarps; ++k) {
      const float4 part = load_quad(&parts[k][4 * thread]);
      total.x += part.x, total.y += part.y, total.z += part.z, total.w += part.w;
    }
    const int receiver = thread / (kQuads / kCluster), quad = thread % (kQuads / kCluster);
    send(address_in(shared_address(&received[rank][4 * quad]), receiver), total,
         address_in(barrier, receiver));
  }
  if (thread >= kShare) return;
  barrier_wait_for_cluster(barrier);
  float total = 0;
#pragma unroll
  for (int r = 0; r < kCluster; ++r) total += received[r][thread];
  const int i = rank * kShare + thread;
  const int t = t0 + i / kTileOutputs, o = o0 + i % kTileOutputs;
  if (t >= args.tokens || o >= args.outputs) return;
  if (args.bias) total += args.bias[o];
  store_float(args.y, args.type, t * args.y_row + o, total);
#endif
}

// Beyond these there is enough of the result for every multiprocessor, and each cluster reads its
// part of x again (bench/results/cuda-h100.md).
constexpr std::int64_t kMostOutputs = 256, kMostTokens = 64;
constexpr std::int64_t kLeastInputs = 512;

std::string supports(const Call& call, const Device& device) {
  const auto [x, w, bias] = call.in<3>();
  const auto& cuda = static_cast<const CudaDevice&>(device);
  if (!cuda.has_clusters()) return "needs compute capability 9.0, and code for it";
  if (x.dim[0] > kMostTokens || w.dim[0] > kMostOutputs || w.dim[1] < kLeastInputs)
    return cat("for at most ", kMostTokens, " tokens, ", kMostOutputs, " outputs and at least ",
               kLeastInputs, " inputs, got ", x.dim[0], ", ", w.dim[0], " and ", w.dim[1]);
  return linear_args_refusal(call);
}

template <int m_tiles, class X>
void launch_split(const Launch& launch, const LinearArgs<X>& args) {
  const dim3 grid(kCluster * blocks_of(args.outputs, kTileOutputs),
                  blocks_of(args.tokens, m_tiles * kTileTokens));
  launch_early(launch, args.neat ? split<m_tiles, true, X> : split<m_tiles, false, X>, grid,
               kThreads, 0, args, launch.next_first);
}

Status run(const Call& call, const Launch& launch) {
  if (call.outputs[0].elements() == 0) return {};
  with_linear_args(call, [&](const auto& args) {
    const auto all =
        static_cast<unsigned>(static_cast<const CudaDevice&>(launch.device).multiprocessors());
    const unsigned blocks = kCluster * blocks_of(args.outputs, kTileOutputs);  // for a row of tiles
    if (args.tokens <= kTileTokens)
      launch_split<1>(launch, args);
    else if (args.tokens <= 2 * kTileTokens || 2 * blocks <= all)
      launch_split<2>(launch, args);
    else  // each reads its weights once
      launch_split<4>(launch, args);
  });
  return launched(call);
}

}  // namespace

extern const Kernel linear_split_kernel{"linear", "split", supports, run, nullptr, nullptr, true};

}  // namespace krait::cuda
