#include <array>

#include <krait/dtype.h>

namespace krait {
namespace {

// In the order of the enumeration.
constexpr std::array<DTypeInfo, kDTypeCount> kInfos{{
    {"f64", 1, 8, true},
    {"f32", 1, 4, true},
    {"f16", 1, 2, true},
    {"bf16", 1, 2, true},
    {"i64", 1, 8, false},
    {"i32", 1, 4, false},
    {"u8", 1, 1, false},
    {"q8_0", 32, 34, false},
    {"q4_0", 32, 18, false},
    {"q4_1", 32, 20, false},
    {"q5_0", 32, 22, false},
    {"q5_1", 32, 24, false},
    {"q4_k", 256, 144, false},
    {"q5_k", 256, 176, false},
    {"q6_k", 256, 210, false},
}};

}  // namespace

const DTypeInfo& info(DType type) {
  return kInfos[static_cast<std::size_t>(type)];
}

std::optional<DType> parse_dtype(std::string_view name) {
  for (int i = 0; i < kDTypeCount; ++i) {
    if (kInfos[i].name == name) return static_cast<DType>(i);
  }
  return std::nullopt;
}

}  // namespace krait
