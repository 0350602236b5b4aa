#include "backends/cuda/cublaslt.h"

#include <cstdlib>
#include <map>
#include <vector>

#include "backends/cuda/dynamic_library.h"
#include "runtime/core/log.h"
#include "runtime/core/try.h"

#if __has_include(<cublasLt.h>)
#include <cublasLt.h>

namespace krait::cuda {
namespace {

#define KRAIT_CUBLASLT_FUNCTIONS(X) \
  X(Create)                         \
  X(Destroy)                        \
  X(GetStatusString)                \
  X(GetVersion)                     \
  X(Matmul)                         \
  X(MatmulAlgoGetHeuristic)         \
  X(MatmulDescCreate)               \
  X(MatmulDescDestroy)              \
  X(MatmulDescSetAttribute)         \
  X(MatmulPreferenceCreate)         \
  X(MatmulPreferenceDestroy)        \
  X(MatmulPreferenceSetAttribute)   \
  X(MatrixLayoutCreate)             \
  X(MatrixLayoutDestroy)

/// Its functions, under their names without the prefix.
struct Library {
  std::string missing;
#define X(name) decltype(&cublasLt##name) name = nullptr;
  KRAIT_CUBLASLT_FUNCTIONS(X)
#undef X
};

/// What KRAIT_CUBLASLT names, or the library of a CUDA version whose interface this code knows.
std::vector<std::string> candidates() {
  if (const char* forced = std::getenv("KRAIT_CUBLASLT")) return {forced};
#if defined(_WIN32)
  return {"cublasLt64_13.dll", "cublasLt64_12.dll"};
#else
  return {"libcublasLt.so.13", "libcublasLt.so.12"};
#endif
}

Library open() {
  Library library;
  void* opened = nullptr;
  std::string errors;
  for (const std::string& path : candidates()) {
    opened = open_library(path.c_str());
    if (opened) break;
    errors += (errors.empty() ? "" : "; ") + library_error();
  }
  if (!opened) {
    library.missing = "cuBLASLt is not here: " + errors;
    return library;
  }
#define X(name)                                                                           \
  library.name =                                                                          \
      reinterpret_cast<decltype(&cublasLt##name)>(find_symbol(opened, "cublasLt" #name)); \
  if (!library.name) library.missing = "cuBLASLt has no cublasLt" #name;
  KRAIT_CUBLASLT_FUNCTIONS(X)
#undef X
  return library;
}

/// Opened once and never closed: devices may outlive any scope.
const Library& library() {
  static const Library opened = [] {
    Library result = open();
    log(1,
        result.missing.empty()
            ? cat("cuBLASLt ", result.GetVersion(), " computes large matrix products")
            : cat(result.missing, "; slower kernels of Krait's own compute large matrix products"));
    return result;
  }();
  return opened;
}

Status checked(cublasStatus_t status, std::string_view what) {
  if (status == CUBLAS_STATUS_SUCCESS) return {};
  const Code code = status == CUBLAS_STATUS_ALLOC_FAILED    ? Code::out_of_memory
                    : status == CUBLAS_STATUS_NOT_SUPPORTED ? Code::unsupported
                                                            : Code::device_lost;
  return Status(code, cat("[linear] cuBLASLt, ", what, ": ", library().GetStatusString(status)));
}

struct Destroy {
  void operator()(cublasLtMatmulDescOpaque_t* p) const { library().MatmulDescDestroy(p); }
  void operator()(cublasLtMatmulPreferenceOpaque_t* p) const {
    library().MatmulPreferenceDestroy(p);
  }
  void operator()(cublasLtMatrixLayoutOpaque_t* p) const { library().MatrixLayoutDestroy(p); }
};
template <class Opaque>
using Owned = std::unique_ptr<Opaque, Destroy>;

cudaDataType_t data_type(DType type) {
  return type == DType::f16 ? CUDA_R_16F : type == DType::bf16 ? CUDA_R_16BF : CUDA_R_32F;
}

/// The largest power of two, up to 256, that divides an address.
std::uint32_t alignment(const void* p) {
  const auto address = reinterpret_cast<std::uintptr_t>(p) | 256u;
  return static_cast<std::uint32_t>(address & (~address + 1));
}

/// What an algorithm is chosen by.
struct Key {
  DType operands, result;
  std::int64_t rows, outputs, inputs, x_row, w_row, y_row;
  std::uint32_t x_alignment, w_alignment, y_alignment;
  friend auto operator<=>(const Key&, const Key&) = default;
};

/// A product made ready. cuBLASLt counts in columns, so it computes the transposed: yᵀ = w xᵀ,
/// where each of our rows is one of its columns.
struct Ready {
  Owned<cublasLtMatmulDescOpaque_t> operation;
  Owned<cublasLtMatrixLayoutOpaque_t> w, x, y;
  cublasLtMatmulAlgo_t algorithm;
};

Result<Owned<cublasLtMatrixLayoutOpaque_t>> layout(DType type, std::int64_t width,
                                                   std::int64_t rows, std::int64_t row) {
  cublasLtMatrixLayout_t made = nullptr;
  KRAIT_TRY(checked(
      library().MatrixLayoutCreate(&made, data_type(type), static_cast<std::uint64_t>(width),
                                   static_cast<std::uint64_t>(rows), row),
      "describing a matrix"));
  return Owned<cublasLtMatrixLayoutOpaque_t>(made);
}

template <class Value>
Status prefer(cublasLtMatmulPreference_t preference, cublasLtMatmulPreferenceAttributes_t attribute,
              const Value& value) {
  return checked(
      library().MatmulPreferenceSetAttribute(preference, attribute, &value, sizeof value),
      "setting a preference");
}

Result<Owned<cublasLtMatmulPreferenceOpaque_t>> preferences(const Key& key) {
  cublasLtMatmulPreference_t made = nullptr;
  KRAIT_TRY(checked(library().MatmulPreferenceCreate(&made), "making preferences"));
  Owned<cublasLtMatmulPreferenceOpaque_t> owned(made);
  KRAIT_TRY(prefer(made, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES,
                   static_cast<std::uint64_t>(kProductWorkspace)));
  // A sum may be split only where its parts meet in a fixed order, and in float32.
  KRAIT_TRY(prefer(made, CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK,
                   std::uint32_t{CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE}));
  KRAIT_TRY(prefer(made, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, key.w_alignment));
  KRAIT_TRY(prefer(made, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, key.x_alignment));
  KRAIT_TRY(prefer(made, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, key.y_alignment));
  KRAIT_TRY(prefer(made, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, key.y_alignment));
  return owned;
}

Result<Ready> make_ready(cublasLtHandle_t handle, const Key& key) {
  Ready ready;
  cublasLtMatmulDesc_t operation = nullptr;
  KRAIT_TRY(checked(library().MatmulDescCreate(&operation, CUBLAS_COMPUTE_32F, CUDA_R_32F),
                    "describing a product"));
  ready.operation.reset(operation);
  const cublasOperation_t transposed = CUBLAS_OP_T;
  KRAIT_TRY(checked(library().MatmulDescSetAttribute(operation, CUBLASLT_MATMUL_DESC_TRANSA,
                                                     &transposed, sizeof transposed),
                    "describing a product"));
  KRAIT_ASSIGN(ready.w, layout(key.operands, key.inputs, key.outputs, key.w_row));
  KRAIT_ASSIGN(ready.x, layout(key.operands, key.inputs, key.rows, key.x_row));
  KRAIT_ASSIGN(ready.y, layout(key.result, key.outputs, key.rows, key.y_row));
  KRAIT_ASSIGN(const auto preference, preferences(key));
  cublasLtMatmulHeuristicResult_t best{};
  int found = 0;
  KRAIT_TRY(checked(library().MatmulAlgoGetHeuristic(handle, operation, ready.w.get(),
                                                     ready.x.get(), ready.y.get(), ready.y.get(),
                                                     preference.get(), 1, &best, &found),
                    cat("choosing an algorithm for ", key.rows, " x ", key.inputs, " by ",
                        key.outputs, " in ", name(key.operands))));
  if (found == 0) return unsupported("[linear] cuBLASLt has no algorithm for this product");
  KRAIT_TRY(checked(best.state, "choosing an algorithm"));
  ready.algorithm = best.algo;
  return ready;
}

/// Products of more shapes than this are forgotten and chosen anew.
constexpr std::size_t kMostReady = 1024;

}  // namespace

struct Products::Plans {
  cublasLtHandle_t handle = nullptr;
  std::map<Key, Ready> ready;
};

const std::string& cublaslt_missing() {
  return library().missing;
}

Products::Products() : plans_(std::make_unique<Plans>()) {}

Products::~Products() {
  plans_->ready.clear();
  if (plans_->handle) library().Destroy(plans_->handle);
}

Status Products::run(const Product& product, void* workspace, cudaStream_t stream) {
  if (!plans_->handle) KRAIT_TRY(checked(library().Create(&plans_->handle), "starting"));
  const Key key{product.operands,     product.result,       product.rows,        product.outputs,
                product.inputs,       product.x_row,        product.w_row,       product.y_row,
                alignment(product.x), alignment(product.w), alignment(product.y)};
  auto at = plans_->ready.find(key);
  if (at == plans_->ready.end()) {
    KRAIT_ASSIGN(Ready made, make_ready(plans_->handle, key));
    if (plans_->ready.size() >= kMostReady) plans_->ready.clear();
    at = plans_->ready.emplace(key, std::move(made)).first;
  }
  const Ready& ready = at->second;
  const float one = 1, kept = product.accumulate ? 1 : 0;
  return checked(library().Matmul(plans_->handle, ready.operation.get(), &one, product.w,
                                  ready.w.get(), product.x, ready.x.get(), &kept, product.y,
                                  ready.y.get(), product.y, ready.y.get(), &ready.algorithm,
                                  workspace, static_cast<std::size_t>(kProductWorkspace), stream),
                 "queueing a product");
}

}  // namespace krait::cuda

#else

namespace krait::cuda {

struct Products::Plans {};

const std::string& cublaslt_missing() {
  static const std::string reason = [] {
    std::string text = "cuBLASLt: its header was not there when Krait was built";
    log(1, cat(text, "; slower kernels of Krait's own compute large matrix products"));
    return text;
  }();
  return reason;
}

Products::Products() = default;
Products::~Products() = default;
Status Products::run(const Product&, void*, cudaStream_t) {
  return unsupported(cublaslt_missing());
}

}  // namespace krait::cuda

#endif
