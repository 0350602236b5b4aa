// Elementwise ops: cast, add, mul, neg, exp, silu, softplus. One thread per element.
#include "backends/cuda/cuda.h"
#include "backends/cuda/numeric.cuh"
#include "runtime/core/try.h"

namespace krait::cuda {
namespace {

constexpr int kThreads = 256;

/// Up to three leading axes and the innermost one: where element (row, i) of a tensor stands.
struct Layout {
  std::int64_t dim[kMaxRank - 1];
  std::int64_t stride[kMaxRank - 1];
  __device__ std::int64_t offset(std::int64_t row) const {
    std::int64_t at = 0;
#pragma unroll
    for (int axis = kMaxRank - 2; axis >= 0; --axis) {
      at += row % dim[axis] * stride[axis];
      row /= dim[axis];
    }
    return at;
  }
};

Layout layout_of(const TensorView& view) {
  Layout layout{{1, 1, 1}, {0, 0, 0}};
  const int leading = view.rank - 1;
  for (int axis = 0; axis < leading; ++axis) {
    layout.dim[kMaxRank - 1 - leading + axis] = view.dim[axis];
    layout.stride[kMaxRank - 1 - leading + axis] = view.stride[axis];
  }
  return layout;
}

struct Identity {
  __device__ float operator()(float x) const { return x; }
};
struct Negate {
  __device__ float operator()(float x) const { return -x; }
};
struct Exponential {
  __device__ float operator()(float x) const { return expf(x); }
};
struct Silu {
  __device__ float operator()(float x) const { return silu(x); }
};
struct Softplus {
  __device__ float operator()(float x) const { return softplus(x); }
};
struct Sum {
  __device__ float operator()(float x, float y) const { return x + y; }
};
struct Product {
  __device__ float operator()(float x, float y) const { return x * y; }
};

template <class X, class Y, class Function>
__global__ void map(const X* x, Layout x_layout, Y* y, Layout y_layout, std::int64_t inner,
                    std::int64_t count, Function function) {
  const std::int64_t i = std::int64_t{blockIdx.x} * blockDim.x + threadIdx.x;
  if (i >= count) return;
  const std::int64_t row = i / inner, column = i % inner;
  y[y_layout.offset(row) + column] =
      from_float<Y>(function(to_float(x[x_layout.offset(row) + column])));
}

template <class X, class Y, class Z, class Function>
__global__ void combine(const X* x, std::int64_t x_row, const Y* y, std::int64_t y_row, Z* z,
                        std::int64_t z_row, std::int64_t inner, std::int64_t count,
                        Function function) {
  const std::int64_t i = std::int64_t{blockIdx.x} * blockDim.x + threadIdx.x;
  if (i >= count) return;
  const std::int64_t t = i / inner, d = i % inner;
  z[t * z_row + d] =
      from_float<Z>(function(to_float(x[t * x_row + d]), to_float(y[t * y_row + d])));
}

std::string supports_unary(const Call& call, const Device&) {
  const std::string reason = want_float("x", call.inputs[0]);
  return reason.empty() ? want_float("y", call.outputs[0]) : reason;
}

template <class Function>
Status run_unary(const Call& call, const Launch& launch) {
  const auto [x] = call.in<1>();
  const TensorView& y = call.outputs[0];
  const std::int64_t count = y.elements();
  if (count == 0) return {};
  with_float_type(x.dtype, [&](auto x_type) {
    with_float_type(y.dtype, [&](auto y_type) {
      using X = decltype(x_type);
      using Y = decltype(y_type);
      map<<<blocks_of(count, kThreads), kThreads, 0, stream_of(launch)>>>(
          x.as<const X>(), layout_of(x), y.as<Y>(), layout_of(y), y.dim[y.rank - 1], count,
          Function{});
    });
  });
  return launched(call);
}

std::string supports_binary(const Call& call, const Device&) {
  std::string reason = want_float("x", call.inputs[0]);
  if (reason.empty()) reason = want_float("y", call.inputs[1]);
  return reason.empty() ? want_float("output", call.outputs[0]) : reason;
}

template <class Function>
Status run_binary(const Call& call, const Launch& launch) {
  const auto [x, y] = call.in<2>();
  const TensorView& z = call.outputs[0];
  const std::int64_t count = z.elements();
  if (count == 0) return {};
  const std::int64_t y_row = y.rank == 1 ? 0 : y.stride[0];  // one row for all tokens
  with_float_type(x.dtype, [&](auto x_type) {
    with_float_type(y.dtype, [&](auto y_type) {
      using X = decltype(x_type);
      using Y = decltype(y_type);
      combine<<<blocks_of(count, kThreads), kThreads, 0, stream_of(launch)>>>(
          x.as<const X>(), x.stride[0], y.as<const Y>(), y_row, z.as<X>(), z.stride[0], z.dim[1],
          count, Function{});
    });
  });
  return launched(call);
}

}  // namespace

extern const Kernel cast_kernel{"cast", "elementwise", supports_unary, run_unary<Identity>};
extern const Kernel neg_kernel{"neg", "elementwise", supports_unary, run_unary<Negate>};
extern const Kernel exp_kernel{"exp", "elementwise", supports_unary, run_unary<Exponential>};
extern const Kernel silu_kernel{"silu", "elementwise", supports_unary, run_unary<Silu>};
extern const Kernel softplus_kernel{"softplus", "elementwise", supports_unary, run_unary<Softplus>};
extern const Kernel add_kernel{"add", "elementwise", supports_binary, run_binary<Sum>};
extern const Kernel mul_kernel{"mul", "elementwise", supports_binary, run_binary<Product>};

}  // namespace krait::cuda
