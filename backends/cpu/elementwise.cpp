// cast, add, mul, neg, exp, silu, softplus on the CPU.
#include <algorithm>
#include <cstddef>

#include "backends/cpu/kernel.h"
#include "runtime/core/convert.h"
#include "runtime/core/try.h"

namespace krait::cpu {
namespace {

constexpr std::int64_t kBlock = 8192;  ///< elements per block: some microseconds of work

/// Calls body(row, column, count) for pieces of a [rows, columns] matrix, shared among threads.
template <class Body>
void for_pieces(ThreadPool& pool, std::int64_t rows, std::int64_t columns, const Body& body) {
  if (rows == 0 || columns == 0) return;
  const std::int64_t rows_per_block = std::max<std::int64_t>(1, kBlock / columns);
  const std::int64_t column_blocks = blocks_of(columns, kBlock);
  pool.parallel_for(blocks_of(rows, rows_per_block) * column_blocks, [&](std::int64_t block) {
    const std::int64_t column = block % column_blocks * kBlock;
    const std::int64_t first = block / column_blocks * rows_per_block;
    for (std::int64_t row = first; row < std::min(first + rows_per_block, rows); ++row) {
      body(row, column, std::min(columns - column, kBlock));
    }
  });
}

/// for_pieces of x and y, two views of one shape; body(element of x, element of y, count).
template <class Body>
void for_elements(ThreadPool& pool, const TensorView& x, const TensorView& y, const Body& body) {
  const bool dense = is_dense(x) && is_dense(y);
  const std::int64_t columns = dense ? x.elements() : x.dim[x.rank - 1];
  for_pieces(pool, dense ? 1 : row_count(x), columns,
             [&](std::int64_t row, std::int64_t column, std::int64_t count) {
               const std::int64_t in = dense ? 0 : row_offset(x, row);
               const std::int64_t out = dense ? 0 : row_offset(y, row);
               body(in + column, out + column, count);
             });
}

template <Unary op>
void unary(const Call& call, const Run& run) {
  const TensorView& x = call.inputs[0];
  const TensorView& y = call.outputs[0];
  for_elements(run.pool, x, y, [&](std::int64_t from, std::int64_t to, std::int64_t count) {
    run.isa.unary(op, x.as<const float>() + from, y.as<float>() + to, count);
  });
}

template <Binary op>
void binary(const Call& call, const Run& run) {
  const auto [x, y] = call.in<2>();
  const Rows a = rows_of(x);
  const Rows b{y.as<const float>(), y.rank == 1 ? 0 : y.stride[0]};
  const RowsOut z = rows_out(call.outputs[0]);
  for_pieces(
      run.pool, x.dim[0], x.dim[1], [&](std::int64_t row, std::int64_t column, std::int64_t count) {
        run.isa.binary(op, a.at(row) + column, b.at(row) + column, z.at(row) + column, count);
      });
}

std::string supports_cast(const Call& call) {
  for (const TensorView* view : {&call.inputs[0], &call.outputs[0]}) {
    if (!info(view->dtype).floating || info(view->dtype).block != 1) {
      return cat("cast from ", name(call.inputs[0].dtype), " to ", name(call.outputs[0].dtype),
                 " is not supported");
    }
  }
  return {};
}

void cast(const Call& call, const Run& run) {
  const TensorView& x = call.inputs[0];
  const TensorView& y = call.outputs[0];
  if (x.dtype == DType::f64 || y.dtype == DType::f64) {
    (void)convert(x, y);  // shapes were checked; nothing of a model is float64
    return;
  }
  const std::int64_t in = info(x.dtype).block_bytes, out = info(y.dtype).block_bytes;
  for_elements(run.pool, x, y, [&](std::int64_t from, std::int64_t to, std::int64_t count) {
    const std::byte* source = x.as<const std::byte>() + from * in;
    std::byte* target = y.as<std::byte>() + to * out;
    if (x.dtype == DType::f32 || y.dtype == DType::f32) {
      return run.isa.cast(x.dtype, source, y.dtype, target, count);
    }
    // Between 16-bit types: through float32, which holds both exactly.
    constexpr std::int64_t kWide = 256;
    float wide[kWide];
    for (std::int64_t i = 0; i < count; i += kWide) {
      const std::int64_t n = std::min(kWide, count - i);
      run.isa.cast(x.dtype, source + i * in, DType::f32, wide, n);
      run.isa.cast(DType::f32, wide, y.dtype, target + i * out, n);
    }
  });
}

}  // namespace

extern const CpuKernel cast_kernel{.op = "cast", .supports = supports_cast, .run = cast};
extern const CpuKernel add_kernel{.op = "add", .run = binary<Binary::add>};
extern const CpuKernel mul_kernel{.op = "mul", .run = binary<Binary::mul>};
extern const CpuKernel neg_kernel{.op = "neg", .run = unary<Unary::neg>};
extern const CpuKernel exp_kernel{.op = "exp", .run = unary<Unary::exp>};
extern const CpuKernel silu_kernel{.op = "silu", .run = unary<Unary::silu>};
extern const CpuKernel softplus_kernel{.op = "softplus", .run = unary<Unary::softplus>};

}  // namespace krait::cpu
