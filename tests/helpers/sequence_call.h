// A call over sequences that can be made again in other pieces: tokens of a case regrouped into
// other packed calls, with the states carried from call to call.
#pragma once

#include <cstring>
#include <stdexcept>
#include <vector>

#include "backends/backend.h"
#include "ops/case.h"
#include "tests/helpers/expect.h"

namespace krait::test {

/// Tokens [first, last) of the case, as one sequence of a call.
struct Piece {
  std::int64_t first, last;
  int slot_in, slot_out;
};

class SequenceCall {
 public:
  SequenceCall(std::string_view op, const Case& c)
      : host_(must(HostCall::make(*find_op(op), c, {}))) {
    state_input_ = static_cast<std::size_t>(input_index(*host_.call.op, "state"));
    original_state_ = host_.inputs[state_input_]->bytes;
  }

  /// Operands may be changed between calls: rows of T are the case's tokens.
  TensorView& input(std::string_view name) {
    return host_.call.inputs[static_cast<std::size_t>(input_index(*host_.call.op, name))];
  }
  /// What the op convolves or scans.
  TensorView& tokens() { return host_.call.inputs[0]; }
  double tolerance(int output = 0) const { return krait::tolerance(host_.call, output); }
  void reset_states() { host_.inputs[state_input_]->bytes = original_state_; }

  /// The state of a slot.
  std::vector<double> state(int slot) const {
    const std::vector<double> all = host_.output(1);
    const TensorView& view = host_.call.inputs[state_input_];
    const std::int64_t size = view.elements() / view.dim[0];
    return {all.begin() + slot * size, all.begin() + (slot + 1) * size};
  }

  /// One packed call of these pieces, in this order; y of their tokens.
  std::vector<double> run(const std::vector<Piece>& pieces, Device& device) {
    Call call = host_.call;
    std::int64_t tokens = 0;
    std::vector<std::int32_t> starts = {0}, in, out;
    for (const Piece& piece : pieces) {
      tokens += piece.last - piece.first;
      starts.push_back(static_cast<std::int32_t>(tokens));
      in.push_back(piece.slot_in);
      out.push_back(piece.slot_out);
    }
    const auto sequences = static_cast<std::int64_t>(pieces.size());
    std::vector<std::vector<std::byte>> memory;
    memory.reserve(kMaxInputs);  // views point into it
    for (std::size_t i = 0; i < call.op->inputs.size(); ++i) {
      const Input& input = call.op->inputs[i];
      TensorView& view = call.inputs[i];
      if (!view) continue;
      if (input.name == "starts") view = dense_view(starts.data(), DType::i32, {sequences + 1});
      if (input.name == "slot_in") view = dense_view(in.data(), DType::i32, {sequences});
      if (input.name == "slot_out") view = dense_view(out.data(), DType::i32, {sequences});
      if (input.dims.substr(0, 2) != "T ") continue;
      // Rows of the pieces, one after the other.
      const std::int64_t row =
          bytes_of(view.dtype, view.elements() / std::max<std::int64_t>(view.dim[0], 1));
      memory.emplace_back();
      for (const Piece& piece : pieces) {
        for (std::int64_t t = piece.first; t < piece.last; ++t) {
          const std::byte* from = view.as<std::byte>() + bytes_of(view.dtype, t * view.stride[0]);
          memory.back().insert(memory.back().end(), from, from + row);
        }
      }
      Shape shape = shape_of(view);
      shape[0] = Dim(tokens);
      view = dense_view(memory.back().data(), view.dtype, shape);
    }
    const std::int64_t width = host_.call.outputs[0].dim[1];
    std::vector<float> y(static_cast<std::size_t>(tokens * width));
    call.outputs[0] = dense_view(y.data(), DType::f32, {tokens, width});
    if (const Status status = run_eager(call, device); !status.ok()) {
      throw std::runtime_error(status.message());
    }
    return {y.begin(), y.end()};
  }

 private:
  HostCall host_;
  std::size_t state_input_ = 0;
  std::vector<std::byte> original_state_;
};

}  // namespace krait::test
