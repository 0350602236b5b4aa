// Cases: inputs of an op made from a name, in host memory between sentinels, for the conformance
// runs, the tests and the benchmarks.
#pragma once

#include <cstddef>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "ops/op.h"

namespace krait {

/// Which slots the sequences of a call read and write.
enum class Slots {
  in_place,  ///< sequence s uses slot s
  shuffled,  ///< in place, in an order that is not that of the sequences, with unused slots between
  fork,      ///< all read slot 0, each writes a slot of its own
  fresh,     ///< all start from zeros (slot_in −1)
  discard,   ///< no state is kept (slot_out −1)
  mixed,     ///< in turn: in place, fresh, all others from one slot that nobody writes, discarded
};

/// How activations lie in memory.
enum class Layout {
  dense,
  strided,         ///< rows further apart than dense, as a slice has them
  misaligned,      ///< first element off any vector boundary
  time_invariant,  ///< B and C with token stride 0: one row for all tokens
};

struct Case {
  std::string name;
  std::vector<std::pair<char, std::int64_t>> dims;  ///< of every letter but T, S and C
  std::vector<std::int64_t> lengths = {};           ///< of the sequences; T is their sum
  std::vector<std::string_view> omit = {};          ///< optional inputs that are left out
  std::vector<std::pair<std::string_view, double>> attrs = {};
  Slots slots = Slots::in_place;
  Layout layout = Layout::dense;
  std::vector<std::pair<std::string_view, Range>> ranges = {};      ///< instead of the op's own
  std::vector<std::pair<std::string_view, int>> alternatives = {};  ///< of dims, by position
  std::vector<std::pair<std::string_view, double>> plant = {};      ///< one value put into an input
  /// A call that must be refused: this input gets this shape, and the message contains `error`.
  std::pair<std::string_view, std::vector<std::int64_t>> bad_shape = {};
  std::string error = {};
};

/// The letters' values in a case, T, S and C included.
std::int64_t extent(const Case& c, char letter);

/// The types of a call: activations' dtype, and the weights' where the op has weights; and whether
/// inputs may be rounded (Call::native), which concerns matrix products only.
struct CaseTypes {
  DType activation = DType::f32;
  DType weight = DType::f32;
  bool native = false;
};
/// "f32", or "f32/bf16" and "f32/bf16 native" where the op has a weight.
std::string to_string(const Op& op, const CaseTypes& types);
bool has_weight(const Op& op);
/// Whether there can be such a call: weights of block types have rows of whole blocks.
bool can_exist(const Op& op, const Case& c, const CaseTypes& types);

/// One operand's memory: sentinels, the tensor (perhaps with gaps, filled with sentinels), more
/// sentinels.
struct Region {
  std::vector<std::byte> bytes;
  TensorView view;  ///< memory = bytes.data()
};

/// A call with the memory of its operands on the host. Move-only: views point into it.
class HostCall {
 public:
  /// Deterministic: the values depend on the names of op, case and operand alone.
  static Result<HostCall> make(const Op& op, const Case& c, const CaseTypes& types);
  HostCall(HostCall&&) = default;
  HostCall& operator=(HostCall&&) = default;

  Call call;                                     ///< on the host memory below
  std::vector<std::unique_ptr<Region>> inputs;   ///< null where absent
  std::vector<std::unique_ptr<Region>> outputs;  ///< null where absent or a state (see inputs)

  /// The float64 oracle's outputs for the current inputs: one dense tensor per output; a state's
  /// output holds all slots.
  std::vector<std::vector<double>> reference() const;
  /// Output `i` after a run, as float64 in dense order.
  std::vector<double> output(int i) const;
  /// Whether the sentinels around and between the tensors are untouched.
  Status check_sentinels() const;

 private:
  HostCall() = default;
};

/// Runs the oracle on host views of any type: inputs are read, outputs and states written.
Status run_reference(const Call& call);

/// The largest |got − want| relative to max(|want|, rms(want)). Infinity where one is not finite
/// and the other differs.
double relative_error(const std::vector<double>& got, const std::vector<double>& want);

/// What relative_error may be for output `i` of a call: the roundings of float32 accumulation that
/// the op states, plus one rounding to the output's type.
double tolerance(const Call& call, int i);

}  // namespace krait
