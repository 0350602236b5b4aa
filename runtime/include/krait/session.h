// Running models: programs (a model made ready for a device), sessions (sequences in slots) and
// their states.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include <krait/device.h>
#include <krait/export.h>
#include <krait/model.h>
#include <krait/profile.h>
#include <krait/status.h>

namespace krait {

struct ProgramOptions {
  Activations activations = Activations::exact;
};

/// A model made ready for one device: its graph after the device's passes, its weights packed once,
/// its plans. Immutable to its users, cheap to copy, shared between sessions and threads.
class KRAIT_API Program {
 public:
  static Result<Program> create(const Model& model, std::shared_ptr<Device> device,
                                const ProgramOptions& options = {});

  /// Brings the weights to the device, which otherwise happens with the first call. `progress`, if
  /// given, is called with the bytes of the weights placed so far, and of all.
  Status prepare(
      const std::function<void(std::int64_t done, std::int64_t total)>& progress = nullptr) const;

  const Model& model() const;
  const DeviceInfo& device() const;
  /// The graph that runs: fused, with final dtypes.
  const Graph& graph() const;
  /// The kernels for a call of so many tokens, sequences and rows of logits, and why others were
  /// refused.
  Result<std::string> describe_plan(std::int64_t tokens, std::int64_t sequences,
                                    std::int64_t rows) const;
  /// "exact" or "native": what the matrix products may do with activations.
  std::string_view activations() const;
  /// Bytes that packing the weights took on top of the mapped files.
  std::int64_t packed_bytes() const;
  /// Bytes that a call of these sizes moves at least: every operand of every node once.
  Result<double> bytes_per_call(std::int64_t tokens, std::int64_t sequences,
                                std::int64_t rows) const;
  /// "linear gemv.avx512, selective_scan avx512": the kernels that such a call uses.
  Result<std::string> kernels(std::int64_t tokens, std::int64_t sequences, std::int64_t rows) const;

  struct Impl;
  Impl& impl() const { return *impl_; }
  explicit Program(std::shared_ptr<Impl> impl) : impl_(std::move(impl)) {}

 private:
  std::shared_ptr<Impl> impl_;
};

/// The state of one sequence: named tensors in the device's memory, and how many tokens they have
/// seen. Immutable; copies share memory, so a snapshot kept or cloned costs nothing more.
class KRAIT_API State {
 public:
  /// Tokens consumed so far.
  std::int64_t position() const;
  /// Those tokens, if the session recorded them; else empty.
  std::span<const std::int32_t> tokens() const;
  std::int64_t bytes() const;

  /// Writes a safetensors file: every tensor float32 in canonical layout, metadata with position,
  /// tokens and the model's fingerprint. A state saved from one device continues on any other.
  Status save(const std::filesystem::path& path) const;
  /// Refuses the state of another model, by fingerprint, unless `any_model`: then shapes must
  /// fit.
  static Result<State> load(const std::filesystem::path& path, const Program& program,
                            bool any_model = false);

  struct Impl;
  const Impl& impl() const { return *impl_; }
  explicit State(std::shared_ptr<const Impl> impl) : impl_(std::move(impl)) {}

 private:
  std::shared_ptr<const Impl> impl_;
};

struct SessionOptions {
  int slots = 1;               ///< sequences whose states the session holds
  int chunk = 512;             ///< tokens that run at once; longer prompts go in pieces
  bool record_tokens = false;  ///< keep the ids each slot consumed, for state files
};

/// Part of a sequence in a call: its tokens continue from the state in `slot_in` (−1: from the
/// beginning), and the state after them goes to `slot_out` (−1: nowhere).
struct Segment {
  std::span<const std::int32_t> tokens;
  int slot_in = 0;
  int slot_out = 0;
};

/// Which tokens' logits a call returns.
enum class Rows {
  none,
  last,  ///< of every segment, in order; segments without tokens have none
  all,   ///< of every token
};

/// Logits on the host: [rows, vocab], valid until the session's next call.
struct Logits {
  std::span<const float> values;
  std::int64_t rows = 0;
  std::int64_t vocab = 0;
  std::span<const float> row(std::int64_t i) const {
    return values.subspan(static_cast<std::size_t>(i * vocab), static_cast<std::size_t>(vocab));
  }
};

/// An input of an embedder's graph: `rows` dense rows for the tokens of a call.
struct Feed {
  std::string_view name;
  TensorView tensor;  ///< on the host
};

/// Sequences in slots on one device. One thread at a time; any number of sessions per program.
class KRAIT_API Session {
 public:
  static Result<Session> create(const Program& program, const SessionOptions& options = {});
  Session(Session&&) noexcept;
  Session& operator=(Session&&) noexcept;
  ~Session();

  /// Runs several segments, of different lengths, as one packed call (or as many as chunks are
  /// needed). Refused whole, before anything changes: ids outside the embedding, slots that do not
  /// exist or are written twice, a slot that one segment writes and another reads.
  /// `progress`, if given, is called with the number of tokens done so far.
  Result<Logits> forward(std::span<const Segment> segments, Rows rows = Rows::last,
                         const std::function<void(std::int64_t)>& progress = nullptr);
  /// One sequence in `slot`, continued by `tokens`: the logits after the last.
  Result<Logits> prefill(std::span<const std::int32_t> tokens, int slot = 0);
  Result<Logits> step(std::int32_t token, int slot = 0);

  /// Continues the sequences in `slots` by `count` tokens each, always the likeliest: the first
  /// call consumes `tokens`, one of each sequence, every other what the one before yielded. Nothing
  /// returns to the host in between. Returns the ids by step: the sequences' first ones, their
  /// second ones, …; the last ones have not been consumed yet.
  Result<std::vector<std::int32_t>> greedy(std::span<const std::int32_t> tokens,
                                           std::span<const int> slots, int count);

  /// Where the time goes when the sequences in `slots` consume equal shares of `tokens` in one
  /// call: one token each is a step of greedy(), more are a prefill. Runs it `repetitions` times
  /// as a whole and as often node by node, and resets the slots.
  Result<Profile> profile(std::span<const std::int32_t> tokens, std::span<const int> slots,
                          int repetitions);

  /// For an embedder's graph: one packed call of at most `chunk` tokens. Each segment's `tokens` is
  /// ignored but for its length; `feeds` provide every input other than starts, slot_in, slot_out
  /// and rows. Outputs are fetched with output().
  Status run(std::span<const std::int64_t> lengths, std::span<const int> slot_in,
             std::span<const int> slot_out, std::span<const Feed> feeds,
             std::span<const std::int32_t> rows = {});
  /// A named output or tap of the last call, as float32 in dense order.
  Result<std::vector<float>> output(std::string_view name);

  /// The state in a slot as an object of its own, copied on the device.
  Result<State> snapshot(int slot = 0);
  /// Puts a state into a slot: O(state), on the device.
  Status restore(const State& state, int slot = 0);
  /// Forgets a slot's sequence.
  Status reset(int slot = 0);
  /// Tokens that the slot's sequence has consumed.
  std::int64_t position(int slot = 0) const;
  /// Bytes of all states and of the arena: constant in the sequences' length.
  std::int64_t memory_bytes() const;

  const Program& program() const;

 private:
  struct Impl;
  explicit Session(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace krait
