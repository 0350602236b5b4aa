// Any bytes as a state file: an error, or a state of the model that sessions can go on from.
#include <cstddef>
#include <cstdint>

#include "runtime/session/state.h"
#include "tests/fuzz/require.h"
#include "tests/helpers/graphs.h"

namespace {

using namespace krait;

using test::require;

/// A small recurrent layer: two states, [8, 3] and [8, 4].
const Program& program() {
  static const Program made =
      test::must(Program::create(test::model_of(test::kSmallSsm), *open_device("reference")));
  return made;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const auto file = std::as_bytes(std::span(data, size));
  const auto own = parse_state(file, "input", program(), false);
  const auto any = parse_state(file, "input", program(), true);
  require(!own.ok() || any.ok());
  if (!own.ok()) {
    require(own.status().code() == Code::corrupt || own.status().code() == Code::invalid_argument);
    require(own.message().rfind("input: ", 0) == 0);
  }
  if (!any.ok()) return 0;
  require(any->position() >= 0);
  require(any->tokens().empty() ||
          any->tokens().size() == static_cast<std::size_t>(any->position()));
  require(any->bytes() == 8 * (3 + 4) * 4);
  static Session session = test::must(Session::create(program()));
  require(session.restore(*any).ok());
  require(session.position() == any->position());
  std::vector<float> x(8, 0.5f);
  const std::int64_t lengths[] = {1};
  const int slots[] = {0};
  const Feed feeds[] = {{"x", dense_view(x.data(), DType::f32, {1, 8})}};
  require(session.run(lengths, slots, slots, feeds).ok());
  require(session.position() == any->position() + 1);
  return 0;
}
