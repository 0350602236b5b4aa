#include "backends/backend.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <optional>

#include "runtime/core/log.h"
#include "runtime/core/try.h"

namespace krait {

#define KRAIT_BACKEND(name) extern const Backend name##_backend;
#include "backends/backends.inc"
#undef KRAIT_BACKEND

namespace {

constexpr const Backend* kBackends[] = {
#define KRAIT_BACKEND(name) &name##_backend,
#include "backends/backends.inc"
#undef KRAIT_BACKEND
};

/// The kernel name that KRAIT_FORCE_KERNEL demands for an op; the last matching entry wins.
std::optional<std::string> forced_kernel(std::string_view op) {
  const char* variable = std::getenv("KRAIT_FORCE_KERNEL");
  std::optional<std::string> forced;
  for (std::string_view rest = variable ? variable : ""; !rest.empty();) {
    const std::size_t end = std::min(rest.find(','), rest.size());
    std::string_view entry = rest.substr(0, end);
    rest.remove_prefix(std::min(end + 1, rest.size()));
    if (const std::size_t colon = entry.find(':'); colon != std::string_view::npos) {
      if (entry.substr(0, colon) != op) continue;
      entry.remove_prefix(colon + 1);
    }
    if (!entry.empty()) forced = entry;
  }
  return forced;
}

}  // namespace

std::span<const Backend* const> all_backends() {
  return kBackends;
}

std::vector<DeviceInfo> list_devices() {
  std::vector<DeviceInfo> list;
  for (const Backend* backend : kBackends) {
    for (DeviceInfo& device : backend->devices()) list.push_back(std::move(device));
  }
  return list;
}

Result<std::shared_ptr<Device>> open_device(std::string_view name, const DeviceOptions& options) {
  return guarded([&]() -> Result<std::shared_ptr<Device>> {
    const char* variable = std::getenv("KRAIT_DEVICE");
    std::string wanted(name.empty() && variable ? std::string_view(variable) : name);
    std::string known;
    for (const Backend* backend : kBackends) {
      const std::vector<DeviceInfo> devices = backend->devices();
      for (std::size_t i = 0; i < devices.size(); ++i) {
        if (wanted.empty() || devices[i].name == wanted || (i == 0 && backend->name == wanted)) {
          return backend->open(static_cast<int>(i), options);
        }
        known += (known.empty() ? "" : ", ") + devices[i].name;
      }
    }
    return not_found("device ", wanted, " is not here; there are: ", known);
  });
}

std::string_view name(Activations activations) {
  return activations == Activations::native ? "native" : "exact";
}

const DeviceInfo& info(const Device& device) {
  return device.info();
}

int device_threads(const Device& device) {
  return device.threads();
}

Result<double> read_bandwidth(Device& device, std::int64_t bytes) {
  return guarded([&] { return device.read_bandwidth(bytes); });
}

Result<KernelChoice> choose_kernel(const Call& call, const Device& device) {
  KernelChoice choice;
  const std::optional<std::string> forced = forced_kernel(call.op->name);
  for (const Kernel& kernel : device.kernels()) {
    if (kernel.op != call.op->name) continue;
    std::string reason;
    if (forced && kernel.name.find(*forced) == std::string_view::npos) {
      reason = "KRAIT_FORCE_KERNEL asks for " + *forced;
    } else {
      reason = kernel.supports(call, device);
    }
    if (reason.empty()) {
      choice.kernel = &kernel;
      log(1, cat(device.info().name, " ", call.op->name, " -> ", kernel.name));
      return choice;
    }
    choice.refused.push_back(cat(kernel.name, ": ", reason));
    log(2, cat(device.info().name, " ", call.op->name, " declined by ", choice.refused.back()));
  }
  std::string reasons;
  for (const std::string& refusal : choice.refused) reasons += "; " + refusal;
  return unsupported("[", call.op->name, "] no kernel of ", device.info().name, " runs this call",
                     reasons.empty() ? "; the backend has none for this op" : reasons);
}

namespace {

const std::int32_t* indices(const Call& call, std::string_view name) {
  const int at = input_index(*call.op, name);
  return at < 0 ? nullptr : call.inputs[static_cast<std::size_t>(at)].as<const std::int32_t>();
}

Status check_below(const Call& call, int input, std::int64_t bound) {
  const TensorView& view = call.inputs[static_cast<std::size_t>(input)];
  for (std::int64_t i = 0; i < view.dim[0]; ++i) {
    const std::int32_t value = view.as<const std::int32_t>()[i];
    if (value < 0 || value >= bound) {
      return invalid("[", call.op->name, "] ",
                     call.op->inputs[static_cast<std::size_t>(input)].name, "[", i,
                     "]: expected 0 to ", bound - 1, ", got ", value);
    }
  }
  return {};
}

Status check_sequences(const Call& call) {
  const TensorView& x = call.inputs[0];
  const TensorView& state = call.inputs[static_cast<std::size_t>(input_index(*call.op, "state"))];
  const TensorView& starts_view =
      call.inputs[static_cast<std::size_t>(input_index(*call.op, "starts"))];
  const std::int64_t sequences = starts_view.dim[0] - 1;
  const std::int32_t* starts = indices(call, "starts");
  const std::int32_t* in = indices(call, "slot_in");
  const std::int32_t* out = indices(call, "slot_out");
  if (sequences < 0 || starts[0] != 0 || starts[sequences] != x.dim[0]) {
    return invalid("[", call.op->name, "] starts: expected to run from 0 to ", x.dim[0]);
  }
  std::vector<std::int64_t> writer(static_cast<std::size_t>(state.dim[0]), -1);
  for (std::int64_t s = 0; s < sequences; ++s) {
    if (starts[s + 1] < starts[s]) {
      return invalid("[", call.op->name, "] starts[", s + 1, "]: expected at least ", starts[s],
                     ", got ", starts[s + 1]);
    }
    for (const std::int32_t slot : {in[s], out[s]}) {
      if (slot < -1 || slot >= state.dim[0]) {
        return invalid("[", call.op->name, "] slots of sequence ", s, ": expected -1 to ",
                       state.dim[0] - 1, ", got ", slot);
      }
    }
    if (out[s] < 0) continue;
    std::int64_t& mine = writer[static_cast<std::size_t>(out[s])];
    if (mine >= 0) {
      return invalid("[", call.op->name, "] slot_out: sequences ", mine, " and ", s,
                     " both write slot ", out[s]);
    }
    mine = s;
  }
  for (std::int64_t s = 0; s < sequences; ++s) {
    if (in[s] < 0) continue;
    const std::int64_t other = writer[static_cast<std::size_t>(in[s])];
    if (other >= 0 && other != s) {
      return invalid("[", call.op->name, "] sequence ", s, " reads slot ", in[s],
                     ", which sequence ", other, " writes; copy the state first");
    }
  }
  return {};
}

}  // namespace

Status check_indices(const Call& call) {
  if (input_index(*call.op, "starts") >= 0) return check_sequences(call);
  for (std::size_t i = 0; i < call.op->inputs.size(); ++i) {
    const Input& input = call.op->inputs[i];
    if (!input.below) continue;
    // The table is the operand whose first axis is that letter.
    for (std::size_t table = 0; table < call.op->inputs.size(); ++table) {
      if (call.op->inputs[table].dims.front() == input.below) {
        KRAIT_TRY(check_below(call, static_cast<int>(i), call.inputs[table].dim[0]));
      }
    }
  }
  return {};
}

namespace {

/// The bytes a view spans from its first element on.
std::int64_t span_bytes(const TensorView& view) {
  std::int64_t last = 0;
  for (int axis = 0; axis < view.rank; ++axis) {
    if (view.dim[axis] == 0) return 0;
    if (axis < view.rank - 1) last += (view.dim[axis] - 1) * view.stride[axis];
  }
  return bytes_of(view.dtype, last + view.dim[view.rank - 1]);
}

/// One operand of so many bytes on the device, with the same offset from a vector boundary as on
/// the host.
Result<std::unique_ptr<Buffer>> to_device(const TensorView& host, std::int64_t bytes,
                                          Device& device, TensorView& view) {
  const std::int64_t shift =
      static_cast<std::int64_t>(reinterpret_cast<std::uintptr_t>(host.as<std::byte>()) % 64);
  KRAIT_ASSIGN(std::unique_ptr<Buffer> buffer, device.allocate(shift + bytes));
  KRAIT_TRY(device.upload(host.as<std::byte>(), *buffer, shift, bytes));
  view = host;
  view.memory = buffer->memory();
  view.offset = shift;
  return buffer;
}

/// Whether every sequence of the call has exactly one token.
bool all_steps(const Call& call) {
  const std::int32_t* starts = indices(call, "starts");
  if (!starts) return false;
  const std::int64_t sequences =
      call.inputs[static_cast<std::size_t>(input_index(*call.op, "starts"))].dim[0] - 1;
  for (std::int64_t s = 0; s < sequences; ++s) {
    if (starts[s + 1] != starts[s] + 1) return false;
  }
  return true;
}

}  // namespace

Status run_eager(const Call& host_call, Device& device, std::string* chosen) {
  KRAIT_TRY(check(host_call));
  KRAIT_TRY(check_indices(host_call));
  const Op& op = *host_call.op;
  Call call = host_call;
  call.steps = all_steps(host_call);
  KRAIT_ASSIGN(const KernelChoice choice, choose_kernel(call, device));
  const Kernel& kernel = *choice.kernel;
  if (chosen) *chosen = kernel.name;
  std::vector<std::unique_ptr<Buffer>> buffers;
  std::array<const Buffer*, kMaxOutputs> output_buffers{};
  std::vector<std::vector<std::byte>> packed;
  for (std::size_t i = 0; i < op.inputs.size(); ++i) {
    if (!host_call.inputs[i]) continue;
    TensorView source = host_call.inputs[i];
    std::int64_t bytes = span_bytes(source);
    if (const WeightLayout* layout =
            kernel.layout ? kernel.layout(host_call, static_cast<int>(i)) : nullptr) {
      bytes = layout->bytes(source);
      packed.emplace_back(static_cast<std::size_t>(bytes) + 64);
      const auto address = reinterpret_cast<std::uintptr_t>(packed.back().data());
      std::byte* aligned = packed.back().data() + (64 - address % 64) % 64;
      layout->pack(source, aligned);
      source = layout->view(source);
      source.memory = aligned;
      source.offset = 0;
    }
    KRAIT_ASSIGN(std::unique_ptr<Buffer> buffer, to_device(source, bytes, device, call.inputs[i]));
    buffers.push_back(std::move(buffer));
    for (std::size_t o = 0; o < op.outputs.size(); ++o) {
      if (op.outputs[o].role == Role::state && op.outputs[o].like == op.inputs[i].name) {
        call.outputs[o] = call.inputs[i];
        output_buffers[o] = buffers.back().get();
      }
    }
  }
  for (std::size_t o = 0; o < op.outputs.size(); ++o) {
    if (!host_call.outputs[o] || output_buffers[o]) continue;
    KRAIT_ASSIGN(
        std::unique_ptr<Buffer> buffer,
        to_device(host_call.outputs[o], span_bytes(host_call.outputs[o]), device, call.outputs[o]));
    buffers.push_back(std::move(buffer));
    output_buffers[o] = buffers.back().get();
  }
  TensorView workspace;
  if (const std::int64_t bytes = kernel.workspace ? kernel.workspace(call, device) : 0; bytes > 0) {
    KRAIT_ASSIGN(std::unique_ptr<Buffer> buffer, device.allocate(bytes));
    workspace = dense_view(buffer->memory(), DType::u8, {bytes});
    buffers.push_back(std::move(buffer));
  }
  device.begin_run();
  Status status = device.run(kernel, call, Launch{device, workspace});
  device.end_run();
  KRAIT_TRY(status);
  KRAIT_TRY(device.synchronize());
  for (std::size_t o = 0; o < op.outputs.size(); ++o) {
    if (!host_call.outputs[o]) continue;
    KRAIT_TRY(device.download(*output_buffers[o], call.outputs[o].offset,
                              host_call.outputs[o].as<std::byte>(), span_bytes(call.outputs[o])));
  }
  return {};
}

}  // namespace krait
