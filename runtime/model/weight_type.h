// Which storage type a matrix gets when a model is wanted in some type.
#pragma once

#include <cstdint>
#include <string>

#include <krait/dtype.h>

namespace krait {

struct WeightType {
  DType type = DType::f32;
  std::string reason;  ///< why not the wanted one; else empty
};

/// The rules of llama.cpp's files: the head gets no type below q6_k, and rows that are not whole
/// blocks get a type with smaller blocks or f16.
WeightType weight_type(DType wanted, std::int64_t row, bool is_head);

}  // namespace krait
