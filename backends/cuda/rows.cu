// Ops that pick rows or positions: embedding, gather_rows, argmax, top_k.
#include "backends/cuda/early_launch.cuh"
#include "backends/cuda/numeric.cuh"
#include "runtime/core/try.h"

namespace krait::cuda {
namespace {

constexpr int kThreads = 256;

/// y[t, d] = table[index[t], d]; a block per row. Indices were checked on the host.
template <class From, class To>
__global__ void pick(const From* table, std::int64_t table_row, const std::int32_t* index, To* y,
                     std::int64_t y_row, std::int64_t width) {
  wait_for_inputs();
  const From* from = table + index[blockIdx.x] * table_row;
  To* to = y + blockIdx.x * y_row;
  for (std::int64_t d = threadIdx.x; d < width; d += blockDim.x)
    to[d] = from_float<To>(to_float(from[d]));
}

std::string supports_embedding(const Call& call, const Device&) {
  const std::string reason = want_float("table", call.inputs[1]);
  return reason.empty() ? want_float("y", call.outputs[0]) : reason;
}

std::string supports_rows(const Call& call, const Device&) {
  return want_float("x", call.inputs[0]);
}

Status run_pick(const Call& call, const Launch& launch, const TensorView& table,
                const TensorView& index) {
  const TensorView& y = call.outputs[0];
  if (y.elements() == 0) return {};
  with_float_type(table.dtype, [&](auto from) {
    with_float_type(y.dtype, [&](auto to) {
      using From = decltype(from);
      using To = decltype(to);
      launch_early(launch, pick<From, To>, dim3(static_cast<unsigned>(y.dim[0])), kThreads, 0,
                   table.as<const From>(), table.stride[0], index.as<const std::int32_t>(),
                   y.as<To>(), y.stride[0], y.dim[1]);
    });
  });
  return launched(call);
}

Status run_embedding(const Call& call, const Launch& launch) {
  return run_pick(call, launch, call.inputs[1], call.inputs[0]);
}
Status run_gather_rows(const Call& call, const Launch& launch) {
  return run_pick(call, launch, call.inputs[0], call.inputs[1]);
}

/// A value and its position; ordered by falling value, then by rising position.
struct Ranked {
  float value;
  std::int32_t position;
  __device__ bool before(const Ranked& other) const {
    return value > other.value || (value == other.value && position < other.position);
  }
};

constexpr std::int32_t kNowhere = 0x7fffffff;

/// The first of a block's candidates, on every thread.
__device__ Ranked first_of_block(Ranked best) {
  constexpr int kWarps = kThreads / 32;
  __shared__ Ranked best_of[kWarps];
  const auto compare = [&](const Ranked& other) {
    if (other.before(best)) best = other;
  };
#pragma unroll
  for (int lanes = 16; lanes > 0; lanes /= 2) {
    compare({__shfl_xor_sync(0xffffffffu, best.value, lanes),
             __shfl_xor_sync(0xffffffffu, best.position, lanes)});
  }
  if (threadIdx.x % 32 == 0) best_of[threadIdx.x / 32] = best;
  __syncthreads();
#pragma unroll
  for (int i = 0; i < kWarps; ++i) compare(best_of[i]);
  __syncthreads();
  return best;
}

template <class Type>
__device__ Ranked ranked(const Type* row, std::int64_t i) {
  const float value = to_float(row[i]);
  return {isnan(value) ? -INFINITY : value, static_cast<std::int32_t>(i)};
}

/// The first in that order of a row's values that come after `after`, found by the whole block.
template <class Type>
__device__ Ranked next_ranked(const Type* row, std::int64_t width, Ranked after) {
  Ranked best{-INFINITY, kNowhere};
  for (std::int64_t i = threadIdx.x; i < width; i += kThreads) {
    const Ranked here = ranked(row, i);
    if (after.before(here) && here.before(best)) best = here;
  }
  return first_of_block(best);
}

constexpr int kPart = 16 * kThreads;  ///< elements of a row that a block of argmax looks at

/// The first of every part of every row.
template <class Type>
__global__ void first_of_parts(const Type* x, std::int64_t x_row, std::int64_t width,
                               Ranked* first) {
  wait_for_inputs();
  const Type* row = x + blockIdx.y * x_row;
  const std::int64_t begin = std::int64_t{blockIdx.x} * kPart + threadIdx.x;
  Ranked best{-INFINITY, kNowhere};
#pragma unroll
  for (int j = 0; j < kPart / kThreads; ++j) {
    if (begin + j * kThreads >= width) break;
    const Ranked here = ranked(row, begin + j * kThreads);
    if (here.before(best)) best = here;
  }
  best = first_of_block(best);
  if (threadIdx.x == 0) first[blockIdx.y * gridDim.x + blockIdx.x] = best;
}

/// The first of the parts' first ones; a block per row.
__global__ void first_of_firsts(const Ranked* first, int parts, std::int32_t* ids) {
  wait_for_inputs();
  Ranked best{-INFINITY, kNowhere};
  for (int i = static_cast<int>(threadIdx.x); i < parts; i += kThreads) {
    const Ranked here = first[blockIdx.x * parts + i];
    if (here.before(best)) best = here;
  }
  best = first_of_block(best);
  if (threadIdx.x == 0) ids[blockIdx.x] = best.position;
}

/// The k first of every row, one block per row, one pass over the row for each.
template <class Type>
__global__ void rank(const Type* x, std::int64_t x_row, std::int64_t width, std::int64_t k,
                     Type* values, std::int64_t values_row, std::int32_t* ids,
                     std::int64_t ids_row) {
  const Type* row = x + blockIdx.x * x_row;
  Ranked last{INFINITY, -1};
  for (std::int64_t i = 0; i < k; ++i) {
    last = next_ranked(row, width, last);
    if (threadIdx.x == 0) {
      ids[blockIdx.x * ids_row + i] = last.position;
      values[blockIdx.x * values_row + i] = row[last.position];
    }
  }
}

std::int64_t argmax_workspace(const Call& call, const Device&) {
  const TensorView& x = call.inputs[0];
  return x.dim[0] * blocks_of(x.dim[1], kPart) * static_cast<std::int64_t>(sizeof(Ranked));
}

Status run_argmax(const Call& call, const Launch& launch) {
  const TensorView& x = call.inputs[0];
  const TensorView& ids = call.outputs[0];
  if (ids.elements() == 0) return {};
  const unsigned parts = blocks_of(x.dim[1], kPart);
  auto* first = launch.workspace.as<Ranked>();
  with_float_type(x.dtype, [&](auto type) {
    using Type = decltype(type);
    const dim3 grid(parts, static_cast<unsigned>(x.dim[0]));
    launch_early(launch, first_of_parts<Type>, grid, kThreads, 0, x.as<const Type>(), x.stride[0],
                 x.dim[1], first);
  });
  launch_early(launch, first_of_firsts, dim3(static_cast<unsigned>(x.dim[0])), kThreads, 0, first,
               static_cast<int>(parts), ids.as<std::int32_t>());
  return launched(call);
}

std::string supports_argmax(const Call& call, const Device& device) {
  if (call.inputs[0].dim[0] > 65535) return cat("at most 65535 rows, got ", call.inputs[0].dim[0]);
  return supports_rows(call, device);
}

Status run_top_k(const Call& call, const Launch& launch) {
  const auto [x] = call.in<1>();
  const TensorView& values = call.outputs[0];
  const TensorView& ids = call.outputs[1];
  if (ids.elements() == 0) return {};
  with_float_type(x.dtype, [&](auto type) {
    using Type = decltype(type);
    rank<<<static_cast<unsigned>(x.dim[0]), kThreads, 0, stream_of(launch)>>>(
        x.as<const Type>(), x.stride[0], x.dim[1], ids.dim[1], values.as<Type>(), values.stride[0],
        ids.as<std::int32_t>(), ids.stride[0]);
  });
  return launched(call);
}

}  // namespace

extern const Kernel embedding_kernel{"embedding", "rows", supports_embedding, run_embedding};
extern const Kernel gather_rows_kernel{"gather_rows", "rows", supports_rows, run_gather_rows};
extern const Kernel argmax_kernel{"argmax", "parts", supports_argmax, run_argmax, argmax_workspace};
extern const Kernel top_k_kernel{"top_k", "block_per_row", supports_rows, run_top_k};

}  // namespace krait::cuda
