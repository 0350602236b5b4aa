// The cuda backend as the rest of Krait sees it: a module beside the library, loaded on first need,
// so that one build starts on machines with and without a GPU.
#include <cstdlib>
#include <filesystem>
#include <mutex>
#include <string>

#include "backends/backend.h"
#include "backends/cuda/dynamic_library.h"
#include "backends/cuda/module.h"
#include "runtime/core/log.h"
#include "runtime/core/try.h"
#include <krait/version.h>

namespace krait {
namespace {

#if defined(_WIN32)
constexpr const char* kModuleName = "krait_cuda.dll";
std::filesystem::path own_folder() {
  return {};
}
#else
constexpr const char* kModuleName = "libkrait_cuda.so";
/// The folder of the library or program that holds this function.
std::filesystem::path own_folder() {
  Dl_info info{};
  if (!dladdr(reinterpret_cast<void*>(&own_folder), &info) || !info.dli_fname) return {};
  std::error_code ignored;
  return std::filesystem::canonical(info.dli_fname, ignored).parent_path();
}
#endif

/// Where the module may be: as KRAIT_CUDA_MODULE says, beside us, in lib/ beside our bin/, or
/// wherever the system looks.
std::vector<std::string> candidates() {
  if (const char* forced = std::getenv("KRAIT_CUDA_MODULE")) return {forced};
  std::vector<std::string> list;
  if (const std::filesystem::path folder = own_folder(); !folder.empty()) {
    list.push_back((folder / kModuleName).string());
    list.push_back((folder.parent_path() / "lib" / kModuleName).string());
  }
  list.emplace_back(kModuleName);
  return list;
}

/// The module's backend, or why there is none. Loaded once, never unloaded: devices may outlive any
/// scope.
Result<const Backend*> load_module() {
  std::string errors;
  for (const std::string& path : candidates()) {
    void* library = cuda::open_library(path.c_str());
    if (!library) {
      errors += (errors.empty() ? "" : "; ") + cuda::library_error();
      continue;
    }
    const auto entry =
        reinterpret_cast<cuda::ModuleEntry*>(cuda::find_symbol(library, cuda::kModuleEntry));
    const Backend* backend = entry ? entry(cuda::kModuleVersion) : nullptr;
    if (backend) return backend;
    errors += (errors.empty() ? "" : "; ") + path + " belongs to another version of Krait";
  }
  return not_found("the CUDA module is not here: ", errors);
}

const Result<const Backend*>& module() {
  static const Result<const Backend*> result = [] {
    Result<const Backend*> loaded = load_module();
    if (!loaded.ok()) log(1, loaded.message());
    return loaded;
  }();
  return result;
}

}  // namespace

extern const Backend cuda_backend{
    .name = "cuda",
    .devices = [] { return module().ok() ? (*module())->devices() : std::vector<DeviceInfo>{}; },
    .open = [](int index, const DeviceOptions& options) -> Result<std::shared_ptr<Device>> {
      if (!module().ok()) return module().status();
      return (*module())->open(index, options);
    },
};

}  // namespace krait
