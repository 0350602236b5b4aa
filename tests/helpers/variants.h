// Every device, and the CPU once more with each instruction set that this processor has.
#pragma once

#include <cstdlib>
#include <ostream>
#include <string>
#include <vector>

#include "tests/helpers/devices.h"

namespace krait::test {

struct Variant {
  std::string device;  ///< "cpu"
  std::string forced;  ///< "avx2": only kernels of this name run; empty for the device's own choice
  std::string name() const { return forced.empty() ? device : device + " " + forced; }
};

/// For the names that ctest shows.
inline void PrintTo(const Variant& variant, std::ostream* out) {
  *out << variant.name();
}

inline std::vector<Variant> variants() {
  std::vector<Variant> list;
  for (const DeviceInfo& info : list_devices()) {
    list.push_back({info.name, ""});
    if (info.backend != "cpu") continue;
    for (const char* isa : {"avx512", "avx2", "sse42", "neon"}) {
      // The description ends with the sets that the processor has.
      if (info.description.find(isa) != std::string::npos) list.push_back({info.name, isa});
    }
  }
  return list;
}

/// Forces a variant's kernels as long as the object lives. Not for tests with threads of their own.
class ForceKernels {
 public:
  explicit ForceKernels(const Variant& variant) : before_(std::getenv("KRAIT_FORCE_KERNEL")) {
    if (!variant.forced.empty()) setenv("KRAIT_FORCE_KERNEL", variant.forced.c_str(), 1);
  }
  ~ForceKernels() {
    if (before_) {
      setenv("KRAIT_FORCE_KERNEL", before_, 1);
    } else {
      unsetenv("KRAIT_FORCE_KERNEL");
    }
  }
  ForceKernels(const ForceKernels&) = delete;
  ForceKernels& operator=(const ForceKernels&) = delete;

 private:
  const char* before_;
};

}  // namespace krait::test
