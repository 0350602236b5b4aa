// What a State holds.
#pragma once

#include <cstddef>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "backends/backend.h"
#include <krait/session.h>

namespace krait {

struct State::Impl {
  Program program;  ///< whose device holds the tensors and whose graph names them
  std::vector<std::unique_ptr<Buffer>> tensors;  ///< in the order of the graph's states
  std::int64_t position = 0;
  std::vector<std::int32_t> tokens;

  explicit Impl(Program p) : program(std::move(p)) {}
};

/// The states of a program's graph: names, shapes of one slot, bytes.
struct StateTensor {
  std::string name;
  Shape shape;  ///< of one slot: without C
  std::int64_t bytes = 0;
};
std::vector<StateTensor> state_tensors(const Program& program);

/// State::load() for the bytes of a file, which `what` names in messages.
Result<State> parse_state(std::span<const std::byte> bytes, const std::string& what,
                          const Program& program, bool any_model);

}  // namespace krait
