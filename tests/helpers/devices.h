// The devices of this machine, and the models that tests run on them.
#pragma once

#include <cctype>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "backends/backend.h"
#include "tests/helpers/expect.h"
#include "tests/helpers/files.h"
#include <krait/session.h>

namespace krait::test {

inline std::shared_ptr<Device> device(std::string_view name, int threads = 2) {
  return must(open_device(name, {.threads = threads}));
}

inline std::vector<std::string> device_names() {
  std::vector<std::string> names;
  for (const DeviceInfo& info : list_devices()) names.push_back(info.name);
  return names;
}

/// A small model of tests/golden/data/models: "mamba-1", "mamba-bias-n8-1", "falcon-mamba-1".
inline Model golden_model(const std::string& name) {
  static std::map<std::string, Model> models;
  auto found = models.find(name);
  if (found == models.end()) {
    found = models.emplace(name, must(Model::load(goldens() / "models" / name))).first;
  }
  return found->second;
}

/// Made once per device and model: tests are many.
inline Program golden_program(const std::string& device_name,
                              const std::string& model_name = "mamba-1") {
  static std::map<std::pair<std::string, std::string>, Program> programs;
  const std::pair key(device_name, model_name);
  auto found = programs.find(key);
  if (found == programs.end()) {
    found =
        programs.emplace(key, must(Program::create(golden_model(model_name), device(device_name))))
            .first;
  }
  return found->second;
}

/// For the names of parametrised tests: letters and digits only.
inline std::string test_name(std::string text) {
  for (char& c : text) {
    if (!std::isalnum(static_cast<unsigned char>(c))) c = '_';
  }
  return text;
}

}  // namespace krait::test
