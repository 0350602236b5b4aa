#include <algorithm>
#include <cstdlib>
#include <cstring>

#include "backends/cuda/cublaslt.h"
#include "backends/cuda/cuda.h"
#include "backends/cuda/module.h"
#include "backends/cuda/staging.h"
#include "runtime/core/try.h"

namespace krait::cuda {
namespace {

/// Uploads up to this size are not worth a detour.
constexpr std::int64_t kSmallUpload = 64 << 10;

/// A captured graph, ready to launch.
class CudaRecording final : public Recording {
 public:
  CudaRecording(cudaGraphExec_t graph, std::vector<std::string_view> ops, CudaDevice& device)
      : graph_(graph), ops_(std::move(ops)), device_(device) {}
  ~CudaRecording() override { cudaGraphExecDestroy(graph_); }
  CudaRecording(const CudaRecording&) = delete;
  CudaRecording& operator=(const CudaRecording&) = delete;
  Status replay() override {
    device_.note(ops_);
    return device_.explained(
        check(cudaGraphLaunch(graph_, device_.stream()), "replaying a recording"));
  }

 private:
  cudaGraphExec_t graph_;
  std::vector<std::string_view> ops_;
  CudaDevice& device_;
};

class CudaBuffer final : public Buffer {
 public:
  CudaBuffer(int device, void* memory, std::int64_t bytes)
      : device_(device), memory_(memory), bytes_(bytes) {}
  ~CudaBuffer() override {
    cudaSetDevice(device_);
    cudaFree(memory_);
  }
  CudaBuffer(const CudaBuffer&) = delete;
  CudaBuffer& operator=(const CudaBuffer&) = delete;
  void* memory() const override { return memory_; }
  std::int64_t bytes() const override { return bytes_; }

 private:
  int device_;
  void* memory_;
  std::int64_t bytes_;
};

std::byte* address(const Buffer& buffer, std::int64_t offset) {
  return static_cast<std::byte*>(buffer.memory()) + offset;
}

DeviceInfo describe(int index, const cudaDeviceProp& properties) {
  DeviceInfo info;
  info.name = cat("cuda:", index);
  info.backend = "cuda";
  info.memory = static_cast<std::int64_t>(properties.totalGlobalMem);
  info.description = cat(properties.name, ", compute capability ", properties.major, ".",
                         properties.minor, ", ", properties.totalGlobalMem >> 20, " MiB");
  return info;
}

}  // namespace

Status check(cudaError_t error, std::string_view what) {
  if (error == cudaSuccess) return {};
  const Code code = error == cudaErrorMemoryAllocation ? Code::out_of_memory
                    : error == cudaErrorNoKernelImageForDevice || error == cudaErrorNoDevice
                        ? Code::unsupported
                        : Code::device_lost;
  cudaGetLastError();  // a failed call must not be reported again by the next one
  return Status(code, cat("[cuda] ", what, ": ", cudaGetErrorString(error)));
}

Status launched(const Call& call) {
  return check(cudaGetLastError(), cat("[", call.op->name, "] launch"));
}

std::string want_float(std::string_view operand, const TensorView& view) {
  if (!view || view.dtype == DType::f32 || view.dtype == DType::f16 || view.dtype == DType::bf16)
    return {};
  return cat(operand, ": expected f32, f16 or bf16, got ", name(view.dtype));
}

std::vector<DeviceInfo> list_cuda_devices() {
  std::vector<DeviceInfo> list;
  int count = 0;
  if (cudaGetDeviceCount(&count) != cudaSuccess) {
    cudaGetLastError();
    return list;
  }
  for (int index = 0; index < count; ++index) {
    cudaDeviceProp properties{};
    if (cudaGetDeviceProperties(&properties, index) == cudaSuccess)
      list.push_back(describe(index, properties));
  }
  return list;
}

CudaDevice::CudaDevice(int index, cudaStream_t stream, const cudaDeviceProp& properties)
    : index_(index),
      stream_(stream),
      multiprocessors_(properties.multiProcessorCount),
      shared_bytes_(static_cast<int>(properties.sharedMemPerBlockOptin)),
      early_launch_(properties.major >= 9 && compiled_for_early_launch()),
      compute_capability_(properties.major * 10 + properties.minor),
      names_kernels_(std::getenv("KRAIT_NVTX") != nullptr),
      waits_for_kernels_(std::getenv("KRAIT_SYNC") != nullptr),
      info_(describe(index, properties)) {}

Result<std::shared_ptr<Device>> CudaDevice::open(int index) {
  KRAIT_TRY(check(cudaSetDevice(index), "selecting the device"));
  cudaDeviceProp properties{};
  KRAIT_TRY(check(cudaGetDeviceProperties(&properties, index), "reading its properties"));
  if (properties.major * 10 + properties.minor < 75) {
    return unsupported("cuda:", index, ": expected compute capability 7.5 or newer, got ",
                       properties.major, ".", properties.minor);
  }
  cudaStream_t stream = nullptr;
  KRAIT_TRY(check(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking), "creating a stream"));
  std::shared_ptr<CudaDevice> device(new CudaDevice(index, stream, properties));
  KRAIT_ASSIGN(device->staging_, Staging::create(index));
  return std::shared_ptr<Device>(std::move(device));
}

CudaDevice::~CudaDevice() {
  cudaSetDevice(index_);
  products_.reset();
  staging_.reset();
  cudaStreamDestroy(stream_);
}

Products& CudaDevice::products() {
  if (!products_) products_ = std::make_unique<Products>();
  return *products_;
}

Result<std::unique_ptr<Buffer>> CudaDevice::allocate(std::int64_t bytes) {
  KRAIT_TRY(check(cudaSetDevice(index_), "selecting the device"));
  void* memory = nullptr;
  KRAIT_TRY(check(cudaMalloc(&memory, static_cast<std::size_t>(std::max<std::int64_t>(bytes, 1))),
                  cat("allocating ", bytes, " bytes")));
  return std::unique_ptr<Buffer>(new CudaBuffer(index_, memory, bytes));
}

Status CudaDevice::upload(const void* from, Buffer& to, std::int64_t offset, std::int64_t bytes) {
  KRAIT_TRY(check(cudaSetDevice(index_), "selecting the device"));
  const std::lock_guard lock(stream_mutex_);
  if (bytes <= kSmallUpload) {
    // The runtime takes a copy before it returns.
    return explained(
        check(cudaMemcpyAsync(address(to, offset), from, static_cast<std::size_t>(bytes),
                              cudaMemcpyHostToDevice, stream_),
              "upload"));
  }
  return explained(
      staging_->upload(static_cast<const std::byte*>(from), address(to, offset), bytes, stream_));
}

Status CudaDevice::download(const Buffer& from, std::int64_t offset, void* to, std::int64_t bytes) {
  if (bytes <= 0) return {};
  KRAIT_TRY(check(cudaSetDevice(index_), "selecting the device"));
  const std::lock_guard lock(stream_mutex_);
  KRAIT_TRY(
      explained(check(cudaMemcpyAsync(to, address(from, offset), static_cast<std::size_t>(bytes),
                                      cudaMemcpyDeviceToHost, stream_),
                      "download")));
  return synchronize();
}

Status CudaDevice::copy(const Buffer& from, std::int64_t from_offset, Buffer& to,
                        std::int64_t to_offset, std::int64_t bytes) {
  if (bytes <= 0) return {};
  KRAIT_TRY(check(cudaSetDevice(index_), "selecting the device"));
  const std::lock_guard lock(stream_mutex_);
  return explained(
      check(cudaMemcpyAsync(address(to, to_offset), address(from, from_offset),
                            static_cast<std::size_t>(bytes), cudaMemcpyDeviceToDevice, stream_),
            "copy"));
}

Status CudaDevice::fill_zero(Buffer& buffer, std::int64_t offset, std::int64_t bytes) {
  if (bytes <= 0) return {};
  KRAIT_TRY(check(cudaSetDevice(index_), "selecting the device"));
  const std::lock_guard lock(stream_mutex_);
  return explained(
      check(cudaMemsetAsync(address(buffer, offset), 0, static_cast<std::size_t>(bytes), stream_),
            "fill"));
}

void CudaDevice::begin_run() {
  stream_mutex_.lock();
  cudaSetDevice(index_);  // of this thread; kernels that cannot run there report it
}

Result<std::unique_ptr<Recording>> CudaDevice::record(const std::function<Status()>& body) {
  if (names_kernels_ || waits_for_kernels_) return std::unique_ptr<Recording>();
  KRAIT_TRY(check(cudaStreamBeginCapture(stream_, cudaStreamCaptureModeThreadLocal), "recording"));
  std::vector<std::string_view> ops;
  const auto note_in = [&](std::vector<std::string_view>* list) {
    const std::lock_guard lock(queued_mutex_);
    recorded_ = list;
  };
  note_in(&ops);
  const Status queued = body();
  note_in(nullptr);
  cudaGraph_t graph = nullptr;
  const Status ended = check(cudaStreamEndCapture(stream_, &graph), "recording");
  KRAIT_TRY(queued);
  KRAIT_TRY(ended);
  cudaGraphExec_t executable = nullptr;
  const Status made = check(cudaGraphInstantiate(&executable, graph, 0), "preparing a recording");
  cudaGraphDestroy(graph);
  KRAIT_TRY(made);
  return std::unique_ptr<Recording>(new CudaRecording(executable, std::move(ops), *this));
}

std::int64_t CudaDevice::free_memory() {
  std::size_t free = 0, total = 0;
  if (cudaSetDevice(index_) != cudaSuccess || cudaMemGetInfo(&free, &total) != cudaSuccess) {
    cudaGetLastError();
    return 0;
  }
  return static_cast<std::int64_t>(free);
}

namespace {

const Backend kBackend{
    .name = "cuda",
    .devices = list_cuda_devices,
    .open = [](int index, const DeviceOptions&) { return CudaDevice::open(index); },
};

}  // namespace
}  // namespace krait::cuda

extern "C" KRAIT_API const krait::Backend* krait_cuda_module(std::int64_t version) {
  return version == krait::cuda::kModuleVersion ? &krait::cuda::kBackend : nullptr;
}
