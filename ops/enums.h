// Choices of attributes, as enumerations for kernels and as text for everybody else.
#pragma once

#include <string_view>

namespace krait {

/// How the continuous system h' = A h + B u becomes a recurrence h ← Ā h + B̄ u over a step dt.
enum class Discretisation : int { mamba, zoh, euler, bilinear };
inline constexpr std::string_view kDiscretisations = "mamba zoh euler bilinear";

enum class Activation : int { none, silu };
inline constexpr std::string_view kActivations = "none silu";

/// In the order of krait::DType, so that a choice is a DType.
inline constexpr std::string_view kDTypes = "f64 f32 f16 bf16 i64 i32 u8";

}  // namespace krait
