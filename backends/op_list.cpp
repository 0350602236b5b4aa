// list_ops(): the op definitions and the backends' kernel lists, as the public API shows them.
#include <sstream>

#include "backends/backend.h"
#include "ops/op.h"
#include <krait/ops.h>

namespace krait {
namespace {

std::string_view name(Role role) {
  switch (role) {
    case Role::activation:
      return "activation";
    case Role::wide:
      return "wide";
    case Role::weight:
      return "weight";
    case Role::state:
      return "state";
    case Role::index:
      return "index";
  }
  return "";
}

std::vector<std::string> words(std::string_view text) {
  std::istringstream stream{std::string(text)};
  std::vector<std::string> list;
  for (std::string word; stream >> word;) list.push_back(std::move(word));
  return list;
}

OpInfo describe(const Op& op) {
  OpInfo info;
  info.name = op.name;
  info.summary = op.summary;
  info.view = op.view != nullptr;
  for (const Input& input : op.inputs) {
    info.inputs.push_back({std::string(input.name), std::string(input.dims),
                           std::string(name(input.role)), input.optional, ""});
  }
  for (const Output& output : op.outputs) {
    info.outputs.push_back({std::string(output.name), std::string(output.dims),
                            std::string(name(output.role)), !output.only_with.empty(),
                            std::string(output.only_with)});
  }
  for (const AttrDef& attr : op.attrs) {
    info.attributes.push_back({std::string(attr.name), attr.value, words(attr.choices)});
  }
  return info;
}

}  // namespace

std::vector<OpInfo> list_ops() {
  std::vector<OpInfo> list;
  for (const Op* op : all_ops()) list.push_back(describe(*op));
  for (const Backend* backend : all_backends()) {
    if (backend->devices().empty()) continue;
    const auto device = backend->open(0, {.threads = 1});
    if (!device.ok()) continue;
    for (OpInfo& op : list) {
      OpKernels& entry = op.kernels.emplace_back();
      entry.backend = backend->name;
      for (const Kernel& kernel : (*device)->kernels()) {
        if (kernel.op == op.name) entry.kernels.emplace_back(kernel.name);
      }
    }
  }
  return list;
}

}  // namespace krait
