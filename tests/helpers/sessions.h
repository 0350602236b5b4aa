// Token sequences, and what sessions make of them.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "runtime/session/program.h"
#include "runtime/session/state.h"
#include "tests/helpers/devices.h"
#include "tests/helpers/far_device.h"
#include <krait/session.h>

namespace krait::test {

using Ids = std::vector<std::int32_t>;

/// Deterministic ids of the golden models' vocabulary, 0 to 255.
inline Ids text(std::size_t length, std::uint32_t seed = 1) {
  Ids ids(length);
  for (std::int32_t& id : ids) {
    seed = seed * 1664525u + 1013904223u;
    id = static_cast<std::int32_t>(seed >> 24);
  }
  return ids;
}

/// Every device of this machine, and one whose memory the host cannot see.
inline std::vector<std::string> session_devices() {
  std::vector<std::string> names = device_names();
  names.emplace_back("far");
  return names;
}

/// A program of a golden model, kept like golden_program().
inline Program session_program(const std::string& device_name,
                               const std::string& model = "mamba-1") {
  if (device_name != "far") return golden_program(device_name, model);
  static std::map<std::string, Program> programs;
  auto found = programs.find(model);
  if (found == programs.end()) {
    found = programs
                .emplace(model,
                         must(Program::create(golden_model(model), std::make_shared<FarDevice>())))
                .first;
  }
  return found->second;
}

inline Session session(const Program& program, int slots = 1, int chunk = 512) {
  return must(Session::create(program, {.slots = slots, .chunk = chunk}));
}

inline std::vector<float> values(const Result<Logits>& logits) {
  if (!logits.ok()) throw std::runtime_error(logits.message());
  return {logits->values.begin(), logits->values.end()};
}

/// The logits after `ids`, consumed at once by a session of its own.
inline std::vector<float> logits_after(const Program& program, const Ids& ids) {
  Session fresh = session(program);
  return values(fresh.prefill(ids));
}

/// All tensors of a state, one after the other.
inline std::vector<float> state_values(const State& state) {
  std::vector<float> all;
  const std::vector<StateTensor> layout = state_tensors(state.impl().program);
  for (std::size_t i = 0; i < layout.size(); ++i) {
    std::vector<float> tensor(static_cast<std::size_t>(layout[i].bytes / 4));
    const Status status = state.impl().program.impl().device->download(
        *state.impl().tensors[i], 0, tensor.data(), layout[i].bytes);
    if (!status.ok()) throw std::runtime_error(status.message());
    all.insert(all.end(), tensor.begin(), tensor.end());
  }
  return all;
}

inline std::vector<float> slot_values(Session& session, int slot) {
  return state_values(must(session.snapshot(slot)));
}

}  // namespace krait::test
