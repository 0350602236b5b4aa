#include "runtime/model/weight_type.h"

#include "runtime/core/try.h"

namespace krait {
namespace {

double bits_per_element(DType type) {
  return 8.0 * static_cast<double>(info(type).block_bytes) / static_cast<double>(info(type).block);
}

DType with_smaller_blocks(DType type) {
  switch (type) {
    case DType::q4_k:
      return DType::q5_0;
    case DType::q5_k:
      return DType::q5_1;
    case DType::q6_k:
      return DType::q8_0;
    default:
      return DType::f16;
  }
}

}  // namespace

WeightType weight_type(DType wanted, std::int64_t row, bool is_head) {
  WeightType result{wanted, {}};
  if (is_head && bits_per_element(wanted) < bits_per_element(DType::q6_k))
    result = {DType::q6_k, "the head"};
  if (row % info(result.type).block != 0)
    result.reason = cat("rows of ", row, " are not whole blocks of ", name(result.type));
  while (row % info(result.type).block != 0) result.type = with_smaller_blocks(result.type);
  return result;
}

}  // namespace krait
