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

/// The first in that order of a row's values that come after `after`, found by the whole block.
template <class Type>
__device__ Ranked next_ranked(const Type* row, std::int64_t width, Ranked after) {
  __shared__ Ranked best_of[kThreads];
  Ranked best{-INFINITY, kNowhere};
  for (std::int64_t i = threadIdx.x; i < width; i += kThreads) {
    const float value = to_float(row[i]);
    const Ranked here{isnan(value) ? -INFINITY : value, static_cast<std::int32_t>(i)};
    if (after.before(here) && here.before(best)) best = here;
  }
  best_of[threadIdx.x] = best;
  __syncthreads();
  for (int half = kThreads / 2; half > 0; half /= 2) {
    if (static_cast<int>(threadIdx.x) < half &&
        best_of[threadIdx.x + half].before(best_of[threadIdx.x])) {
      best_of[threadIdx.x] = best_of[threadIdx.x + half];
    }
    __syncthreads();
  }
  best = best_of[0];
  __syncthreads();
  return best;
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
      if (values) values[blockIdx.x * values_row + i] = row[last.position];
    }
  }
}

Status run_rank(const Call& call, const Launch& launch, const TensorView& values,
                const TensorView& ids, std::int64_t k) {
  const auto [x] = call.in<1>();
  if (ids.elements() == 0) return {};
  with_float_type(x.dtype, [&](auto type) {
    using Type = decltype(type);
    rank<<<static_cast<unsigned>(x.dim[0]), kThreads, 0, stream_of(launch)>>>(
        x.as<const Type>(), x.stride[0], x.dim[1], k, values ? values.as<Type>() : nullptr,
        values.stride[0], ids.as<std::int32_t>(), ids.rank > 1 ? ids.stride[0] : 1);
  });
  return launched(call);
}

Status run_argmax(const Call& call, const Launch& launch) {
  return run_rank(call, launch, TensorView{}, call.outputs[0], 1);
}
Status run_top_k(const Call& call, const Launch& launch) {
  return run_rank(call, launch, call.outputs[0], call.outputs[1], call.outputs[1].dim[1]);
}

}  // namespace

extern const Kernel embedding_kernel{"embedding", "rows", supports_embedding, run_embedding};
extern const Kernel gather_rows_kernel{"gather_rows", "rows", supports_rows, run_gather_rows};
extern const Kernel argmax_kernel{"argmax", "block_per_row", supports_rows, run_argmax};
extern const Kernel top_k_kernel{"top_k", "block_per_row", supports_rows, run_top_k};

}  // namespace krait::cuda
