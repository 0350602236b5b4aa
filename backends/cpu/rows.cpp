// embedding, gather_rows, argmax, top_k on the CPU.
#include <algorithm>
#include <cmath>
#include <cstring>

#include "backends/cpu/panels.h"

namespace krait::cpu {
namespace {

constexpr std::int64_t kRowsPerBlock = 8;

template <class Body>
void for_rows(ThreadPool& pool, std::int64_t rows, const Body& body) {
  pool.parallel_for(blocks_of(rows, kRowsPerBlock), [&](std::int64_t block) {
    const std::int64_t last = std::min((block + 1) * kRowsPerBlock, rows);
    for (std::int64_t row = block * kRowsPerBlock; row < last; ++row) body(row);
  });
}

void embedding(const Call& call, const Run& run) {
  const TensorView& ids = call.inputs[0];
  const TensorView& table = call.inputs[1];
  const auto* id = ids.as<const std::int32_t>();
  LinearArgs rows;
  rows.w = table.as<const std::byte>();
  rows.weight = table.dtype;
  rows.inputs = call.outputs[0].dim[1];
  rows.panel_bytes = panel_bytes(table.dtype, rows.inputs);
  const RowsOut y = rows_out(call.outputs[0]);
  for_rows(run.pool, ids.dim[0], [&](std::int64_t t) { run.isa.panel_row(rows, id[t], y.at(t)); });
}

void gather_rows(const Call& call, const Run& run) {
  const auto [x, rows] = call.in<2>();
  const Rows from = rows_of(x);
  const auto* row = rows.as<const std::int32_t>();
  const RowsOut y = rows_out(call.outputs[0]);
  const auto bytes = static_cast<std::size_t>(x.dim[1]) * sizeof(float);
  for_rows(run.pool, rows.dim[0],
           [&](std::int64_t m) { std::memcpy(y.at(m), from.at(row[m]), bytes); });
}

/// Every row is searched for the next value above the best so far: few steps for any order but a
/// rising one. NaN is above nothing, so it counts as −∞.
void argmax(const Call& call, const Run& run) {
  const TensorView& x = call.inputs[0];
  const std::int64_t width = x.dim[1];
  auto* ids = call.outputs[0].as<std::int32_t>();
  run.pool.parallel_for(x.dim[0], [&](std::int64_t m) {
    const float* row = rows_of(x).at(m);
    std::int64_t best = 0;
    float value = std::isnan(row[0]) ? -INFINITY : row[0];
    for (std::int64_t i = 0; (i = run.isa.next_above(row, i + 1, width, value)) < width;) {
      best = i;
      value = row[i];
    }
    ids[m] = static_cast<std::int32_t>(best);
  });
}

/// A heap of the k best positions with the worst on top; the rows' order of values falling, then
/// positions rising, with NaN as −∞.
void top_k(const Call& call, const Run& run) {
  const TensorView& x = call.inputs[0];
  const TensorView& values = call.outputs[0];
  const TensorView& ids = call.outputs[1];
  const std::int64_t width = x.dim[1], k = ids.dim[1];
  run.pool.parallel_for(x.dim[0], [&](std::int64_t m) {
    const float* row = rows_of(x).at(m);
    std::int32_t* best = ids.as<std::int32_t>() + m * ids.stride[0];
    const auto key = [row](std::int32_t i) { return std::isnan(row[i]) ? -INFINITY : row[i]; };
    const auto before = [key](std::int32_t a, std::int32_t b) {
      return key(a) > key(b) || (key(a) == key(b) && a < b);
    };
    for (std::int64_t i = 0; i < k; ++i) best[i] = static_cast<std::int32_t>(i);
    std::make_heap(best, best + k, before);
    for (std::int64_t i = k - 1;
         (i = run.isa.next_above(row, i + 1, width, key(best[0]))) < width;) {
      std::pop_heap(best, best + k, before);
      best[k - 1] = static_cast<std::int32_t>(i);
      std::push_heap(best, best + k, before);
    }
    std::sort_heap(best, best + k, before);
    for (std::int64_t i = 0; i < k; ++i) rows_out(values).at(m)[i] = row[best[i]];
  });
}

const WeightLayout* table_layout(const Call&, int i) {
  return i == 1 ? panel_layout() : nullptr;
}

}  // namespace

extern const CpuKernel embedding_kernel{
    .op = "embedding", .run = embedding, .layout = table_layout};
extern const CpuKernel gather_rows_kernel{.op = "gather_rows", .run = gather_rows};
extern const CpuKernel argmax_kernel{.op = "argmax", .run = argmax};
extern const CpuKernel top_k_kernel{.op = "top_k", .run = top_k};

}  // namespace krait::cpu
