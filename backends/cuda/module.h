// What the CUDA module and the library that loads it agree on.
#pragma once

#include <cstdint>

#include <krait/version.h>

namespace krait {
struct Backend;
}

namespace krait::cuda {

inline constexpr const char* kModuleEntry = "krait_cuda_module";

/// Both sides share C++ types, so they must come from one version; raise the last part whenever
/// backends/backend.h or ops/op.h changes what a module sees between versions.
inline constexpr std::int64_t kModuleVersion = KRAIT_VERSION_MAJOR * 1'000'000'000LL +
                                               KRAIT_VERSION_MINOR * 1'000'000LL +
                                               KRAIT_VERSION_PATCH * 1'000LL + 5;

/// Null if `version` is not the module's own.
using ModuleEntry = const Backend*(std::int64_t version);

}  // namespace krait::cuda
