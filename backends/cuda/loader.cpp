// The cuda backend as the rest of Krait sees it: a module beside the library, loaded on first need,
// so that one build starts on machines with and without a GPU.
#include <cstdlib>
#include <filesystem>
#include <mutex>
#include <string>

#include "backends/backend.h"
#include "backends/cuda/module.h"
#include "runtime/core/log.h"
#include "runtime/core/try.h"
#include <krait/version.h>

#if defined(_WIN32)
#include <windows.h>
#else
#include <dlfcn.h>
#endif

namespace krait {
namespace {

#if defined(_WIN32)
constexpr const char* kModuleName = "krait_cuda.dll";
void* open_library(const char* path) {
  return reinterpret_cast<void*>(LoadLibraryA(path));
}
void* find_symbol(void* library, const char* name) {
  return reinterpret_cast<void*>(GetProcAddress(static_cast<HMODULE>(library), name));
}
std::string last_error() {
  return "error " + std::to_string(GetLastError());
}
std::filesystem::path own_folder() {
  return {};
}
#else
constexpr const char* kModuleName = "libkrait_cuda.so";
void* open_library(const char* path) {
  return dlopen(path, RTLD_NOW | RTLD_LOCAL);
}
void* find_symbol(void* library, const char* name) {
  return dlsym(library, name);
}
std::string last_error() {
  const char* text = dlerror();
  return text ? text : "unknown error";
}
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
    void* library = open_library(path.c_str());
    if (!library) {
      errors += (errors.empty() ? "" : "; ") + last_error();
      continue;
    }
    const auto entry =
        reinterpret_cast<cuda::ModuleEntry*>(find_symbol(library, cuda::kModuleEntry));
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
