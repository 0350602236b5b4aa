#include <algorithm>
#include <cstring>
#include <map>

#include "runtime/core/convert.h"
#include "runtime/core/try.h"
#include "runtime/plan/execution.h"
#include "runtime/session/program.h"
#include "runtime/session/state.h"
#include <krait/session.h>

namespace krait {
namespace {

/// One piece of a segment within a packed call.
struct Piece {
  std::span<const std::int32_t> tokens;
  int slot_in;
  int slot_out;
  bool ends;  ///< whether the segment's last token is in it
};

}  // namespace

struct Session::Impl {
  Program program;
  SessionOptions options;
  std::vector<StateTensor> layout;
  std::vector<std::unique_ptr<Buffer>> states;  ///< [slots + kScratchSlots, …]
  std::vector<std::int64_t> positions;
  std::vector<std::vector<std::int32_t>> recorded;
  std::unique_ptr<Buffer> arena;
  std::map<const Plan*, std::unique_ptr<Execution>> executions;
  Execution* last = nullptr;
  std::vector<float> logits;
  std::vector<std::int32_t> tokens, starts, slot_in, slot_out, rows;  ///< of the call in flight
  std::vector<const void*> sources;  ///< of its inputs: one host address per value of the graph

  Impl(Program p, const SessionOptions& o) : program(std::move(p)), options(o) {}

  Device& device() const { return *program.impl().device; }
  const ir::Graph& graph() const { return *program.impl().ir; }
  /// Slots beyond the caller's, for segments whose state nobody keeps: a call may read one, for the
  /// end of one segment, and write the other, for the beginning of the next.
  static constexpr int kScratchSlots = 2;

  Status check_slot(int slot, int lowest = 0) const {
    if (slot >= lowest && slot < options.slots) return {};
    return invalid("slot: expected ", lowest, " to ", options.slots - 1, ", got ", slot);
  }

  /// The execution for a call's sizes, its views ready.
  Result<Execution*> execution(const Sizes& sizes) {
    KRAIT_ASSIGN(std::shared_ptr<const Plan> plan, program.impl().plan(sizes));
    if (!arena || arena->bytes() < plan->arena_bytes) {
      executions.clear();
      arena.reset();
      KRAIT_ASSIGN(arena, device().allocate(plan->arena_bytes));
    }
    std::unique_ptr<Execution>& execution = executions[plan.get()];
    if (!execution) {
      std::vector<Buffer*> buffers;
      for (const auto& state : states) buffers.push_back(state.get());
      execution = std::make_unique<Execution>(plan, std::move(buffers), arena.get());
    }
    KRAIT_TRY(execution->prepare(sizes));
    return execution.get();
  }

  /// Finds and checks what the call provides for every input, before anything is changed.
  Status find_inputs(const Sizes& sizes, std::span<const Feed> feeds) {
    sources.assign(graph().values.size(), nullptr);
    for (std::size_t id = 0; id < sources.size(); ++id) {
      const ir::Value& value = graph().values[id];
      if (value.kind != ir::Kind::input) continue;
      if (value.name == "starts") {
        sources[id] = starts.data();
      } else if (value.name == "slot_in") {
        sources[id] = slot_in.data();
      } else if (value.name == "slot_out") {
        sources[id] = slot_out.data();
      } else if (value.name == "rows") {
        sources[id] = rows.data();
      } else {
        const Feed* feed = nullptr;
        for (const Feed& candidate : feeds) {
          if (candidate.name == value.name) feed = &candidate;
        }
        const Type want{value.type.dtype, resolve(value.type.shape, sizes)};
        if (!feed || !feed->tensor || feed->tensor.dtype != want.dtype ||
            shape_of(feed->tensor) != want.shape || !is_dense(feed->tensor)) {
          return invalid("input ", value.name, ": expected a dense ", to_string(want), ", got ",
                         feed && feed->tensor
                             ? to_string(Type{feed->tensor.dtype, shape_of(feed->tensor)})
                             : "nothing");
        }
        sources[id] = feed->tensor.as<const std::byte>();
      }
    }
    return check_bounds(graph(), program.impl().bounds, sizes, sources);
  }

  /// Uploads the inputs of a packed call of these sizes, slots aside: it is ready to run.
  Result<Execution*> upload(Sizes sizes, std::span<const Feed> feeds) {
    sizes.slots = options.slots + kScratchSlots;
    KRAIT_TRY(find_inputs(sizes, feeds));
    last = nullptr;  // its memory is overwritten from here on
    KRAIT_ASSIGN(Execution * execution, this->execution(sizes));
    for (std::size_t id = 0; id < sources.size(); ++id) {
      if (graph().values[id].kind != ir::Kind::input) continue;
      const TensorView& view = execution->view(static_cast<ir::Id>(id));
      KRAIT_TRY(
          device().upload(sources[id], *arena, view.offset, bytes_of(view.dtype, view.elements())));
    }
    return execution;
  }

  /// Runs a packed call; waits for its end.
  Result<Execution*> launch(const Sizes& sizes, std::span<const Feed> feeds) {
    KRAIT_ASSIGN(Execution * execution, upload(sizes, feeds));
    KRAIT_TRY(execution->run());
    KRAIT_TRY(device().synchronize());
    return last = execution;
  }

  Result<std::vector<float>> fetch(std::string_view name) const {
    for (const ir::Output& output : graph().outputs) {
      if (output.name != name) continue;
      if (!last) return invalid("output ", name, ": nothing has run yet");
      const TensorView& view = last->view(output.value);
      KRAIT_TRY(device().synchronize());
      std::vector<float> values(static_cast<std::size_t>(view.elements()));
      KRAIT_TRY(copy_out(view, values.data()));
      return values;
    }
    return not_found("there is no output named ", name);
  }

  /// Copies an arena tensor to the host as dense float32.
  Status copy_out(const TensorView& view, float* to) const {
    const TensorView dense = dense_view(to, DType::f32, shape_of(view));
    if (device().uses_host_memory()) return convert(view, dense);
    std::int64_t span = 1;
    for (int axis = 0; axis < view.rank; ++axis) span += (view.dim[axis] - 1) * view.stride[axis];
    std::vector<std::byte> bytes(
        static_cast<std::size_t>(bytes_of(view.dtype, std::max<std::int64_t>(span, 0))));
    KRAIT_TRY(device().download(*arena, view.offset, bytes.data(),
                                static_cast<std::int64_t>(bytes.size())));
    TensorView host = view;
    host.memory = bytes.data();
    host.offset = 0;
    return convert(host, dense);
  }

  Status check_segments(std::span<const Segment> segments) const;
  void pack(std::span<const Segment> segments);
  Result<std::vector<std::int32_t>> run_greedy(std::span<const Segment> segments, int count);
  Status run_pieces(std::span<const Piece> pieces, Rows which);
};

/// What every call on a session that was moved from returns.
Status moved_from() {
  return invalid("this session was moved from; use the one it was moved to");
}

/// What would go wrong, before anything is changed.
Status Session::Impl::check_segments(std::span<const Segment> segments) const {
  const std::int64_t vocab = program.model().info().vocab_size;
  std::vector<int> writer(static_cast<std::size_t>(options.slots), -1);
  for (std::size_t s = 0; s < segments.size(); ++s) {
    const Segment& segment = segments[s];
    KRAIT_TRY(check_slot(segment.slot_in, -1));
    KRAIT_TRY(check_slot(segment.slot_out, -1));
    if (vocab == 0 && !segment.tokens.empty()) {
      return invalid("this model has no vocabulary; feed its inputs through Session::run");
    }
    for (std::size_t t = 0; t < segment.tokens.size(); ++t) {
      if (segment.tokens[t] < 0 || segment.tokens[t] >= vocab) {
        return invalid("token ", t, " of segment ", s, ": expected an id from 0 to ", vocab - 1,
                       ", got ", segment.tokens[t]);
      }
    }
    if (segment.slot_out < 0) continue;
    int& mine = writer[static_cast<std::size_t>(segment.slot_out)];
    if (mine >= 0)
      return invalid("segments ", mine, " and ", s, " both write slot ", segment.slot_out);
    mine = static_cast<int>(s);
  }
  for (std::size_t s = 0; s < segments.size(); ++s) {
    if (segments[s].slot_in < 0) continue;
    const int other = writer[static_cast<std::size_t>(segments[s].slot_in)];
    if (other >= 0 && other != static_cast<int>(s)) {
      return invalid("segment ", s, " reads slot ", segments[s].slot_in, ", which segment ", other,
                     " writes; restore a snapshot into another slot first");
    }
  }
  return {};
}

/// One packed call; appends the wanted rows to `logits`.
Status Session::Impl::run_pieces(std::span<const Piece> pieces, Rows which) {
  tokens.clear();
  starts.assign(1, 0);
  slot_in.clear();
  slot_out.clear();
  rows.clear();
  bool steps = true;
  for (const Piece& piece : pieces) {
    const auto first = static_cast<std::int32_t>(tokens.size());
    tokens.insert(tokens.end(), piece.tokens.begin(), piece.tokens.end());
    const auto end = static_cast<std::int32_t>(tokens.size());
    starts.push_back(end);
    slot_in.push_back(piece.slot_in);
    slot_out.push_back(piece.slot_out);
    steps = steps && end - first == 1;
    if (which == Rows::all) {
      for (std::int32_t t = first; t < end; ++t) rows.push_back(t);
    } else if (which == Rows::last && piece.ends && end > first) {
      rows.push_back(end - 1);
    }
  }
  const auto count = [](const auto& list) { return static_cast<std::int64_t>(list.size()); };
  const Feed feed{"tokens", dense_view(tokens.data(), DType::i32, {count(tokens)})};
  KRAIT_ASSIGN(Execution * execution,
               launch({count(tokens), count(slot_in), count(rows), 0, steps}, {&feed, 1}));
  for (const Piece& piece : pieces) {
    // What the slot's sequence has now consumed: what the one it continues had, and these.
    const bool fresh = piece.slot_in < 0;
    const std::int64_t before = fresh ? 0 : positions[static_cast<std::size_t>(piece.slot_in)];
    if (piece.slot_out < 0) continue;
    const auto out = static_cast<std::size_t>(piece.slot_out);
    positions[out] = before + count(piece.tokens);
    if (!options.record_tokens) continue;
    if (piece.slot_in != piece.slot_out) {
      recorded[out] =
          fresh ? std::vector<std::int32_t>() : recorded[static_cast<std::size_t>(piece.slot_in)];
    }
    recorded[out].insert(recorded[out].end(), piece.tokens.begin(), piece.tokens.end());
  }
  if (rows.empty()) return {};
  for (const ir::Output& output : graph().outputs) {
    if (output.name != "logits") continue;
    const TensorView& view = execution->view(output.value);
    const std::size_t at = logits.size();
    logits.resize(at + static_cast<std::size_t>(view.elements()));
    KRAIT_TRY(copy_out(view, logits.data() + at));
  }
  return {};
}

/// Makes whole segments the call in flight, with logits of their last tokens.
void Session::Impl::pack(std::span<const Segment> segments) {
  tokens.clear();
  starts.assign(1, 0);
  slot_in.clear();
  slot_out.clear();
  rows.clear();
  for (const Segment& segment : segments) {
    tokens.insert(tokens.end(), segment.tokens.begin(), segment.tokens.end());
    starts.push_back(static_cast<std::int32_t>(tokens.size()));
    rows.push_back(static_cast<std::int32_t>(tokens.size()) - 1);
    slot_in.push_back(segment.slot_in);
    slot_out.push_back(segment.slot_out);
  }
}

Result<std::vector<std::int32_t>> Session::Impl::run_greedy(std::span<const Segment> segments,
                                                            int count) {
  const auto sequences = static_cast<std::int64_t>(segments.size());
  pack(segments);
  const Feed feed{"tokens", dense_view(tokens.data(), DType::i32, {sequences})};
  KRAIT_ASSIGN(Execution * execution,
               upload({sequences, sequences, sequences, 0, true, true}, {&feed, 1}));
  const std::int64_t bytes = sequences * static_cast<std::int64_t>(sizeof(std::int32_t));
  KRAIT_ASSIGN(std::unique_ptr<Buffer> history, device().allocate(count * bytes));
  KRAIT_TRY(execution->run_greedy(count, *history));
  std::vector<std::int32_t> ids(static_cast<std::size_t>(count * sequences));
  KRAIT_TRY(device().download(*history, 0, ids.data(), count * bytes));
  KRAIT_TRY(device().synchronize());
  last = execution;
  for (std::size_t s = 0; s < segments.size(); ++s) {
    const auto slot = static_cast<std::size_t>(segments[s].slot_out);
    positions[slot] += count;
    if (!options.record_tokens) continue;
    recorded[slot].push_back(tokens[s]);
    for (std::size_t i = 0; i + 1 < static_cast<std::size_t>(count); ++i)
      recorded[slot].push_back(ids[i * segments.size() + s]);
  }
  return ids;
}

Session::Session(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Session::Session(Session&&) noexcept = default;
Session& Session::operator=(Session&&) noexcept = default;
Session::~Session() = default;

Result<Session> Session::create(const Program& program, const SessionOptions& options) {
  return guarded([&]() -> Result<Session> {
    if (options.slots < 1 || options.slots > (1 << 20)) {
      return invalid("slots: expected 1 to ", 1 << 20, ", got ", options.slots);
    }
    if (options.chunk < 1 || options.chunk > (1 << 20)) {
      return invalid("chunk: expected 1 to ", 1 << 20, " tokens, got ", options.chunk);
    }
    auto impl = std::make_unique<Impl>(program, options);
    impl->layout = state_tensors(program);
    const std::int64_t slots = options.slots + Impl::kScratchSlots;
    for (const StateTensor& tensor : impl->layout) {
      KRAIT_ASSIGN(std::unique_ptr<Buffer> buffer, impl->device().allocate(slots * tensor.bytes));
      KRAIT_TRY(impl->device().fill_zero(*buffer, 0, slots * tensor.bytes));
      impl->states.push_back(std::move(buffer));
    }
    impl->positions.resize(static_cast<std::size_t>(slots));
    impl->recorded.resize(static_cast<std::size_t>(slots));
    return Session(std::move(impl));
  });
}

Result<Logits> Session::forward(std::span<const Segment> segments, Rows rows,
                                const std::function<void(std::int64_t)>& progress) {
  if (!impl_) return moved_from();
  return guarded([&]() -> Result<Logits> {
    KRAIT_TRY(impl_->check_segments(segments));
    impl_->logits.clear();
    const std::int64_t vocab = impl_->program.model().info().vocab_size;
    const auto chunk = static_cast<std::size_t>(impl_->options.chunk);
    std::vector<Piece> pieces;
    std::size_t packed = 0;
    std::int64_t done = 0;
    const auto flush = [&]() -> Status {
      if (pieces.empty()) return {};
      KRAIT_TRY(impl_->run_pieces(pieces, rows));
      done += static_cast<std::int64_t>(packed);
      if (progress) progress(done);
      pieces.clear();
      packed = 0;
      return {};
    };
    int scratch = impl_->options.slots;
    for (const Segment& segment : segments) {
      std::size_t at = 0;
      int slot_in = segment.slot_in;
      bool used_scratch = false;
      do {
        const std::size_t take = std::min(segment.tokens.size() - at, chunk - packed);
        const bool ends = at + take == segment.tokens.size();
        // A segment whose state nobody keeps still needs one between its pieces.
        const int slot_out = !ends && segment.slot_out < 0 ? scratch : segment.slot_out;
        pieces.push_back({segment.tokens.subspan(at, take), slot_in, slot_out, ends});
        used_scratch = used_scratch || slot_out == scratch;
        slot_in = slot_out;
        at += take;
        packed += take;
        if (packed == chunk) KRAIT_TRY(flush());
      } while (at < segment.tokens.size());
      // The call that reads this segment's scratch slot may hold the next one's beginning.
      if (used_scratch) scratch = 2 * impl_->options.slots + 1 - scratch;
    }
    KRAIT_TRY(flush());
    Logits result{impl_->logits, 0, vocab};
    result.rows = vocab ? static_cast<std::int64_t>(impl_->logits.size()) / vocab : 0;
    return result;
  });
}

Result<Logits> Session::prefill(std::span<const std::int32_t> tokens, int slot) {
  const Segment segment{tokens, slot, slot};
  return forward({&segment, 1});
}

Result<Logits> Session::step(std::int32_t token, int slot) {
  return prefill({&token, 1}, slot);
}

Result<std::vector<std::int32_t>> Session::greedy(std::span<const std::int32_t> tokens,
                                                  std::span<const int> slots, int count) {
  if (!impl_) return moved_from();
  return guarded([&]() -> Result<std::vector<std::int32_t>> {
    if (tokens.size() != slots.size() || tokens.empty()) {
      return invalid("greedy: expected a token for each of the slots, got ", tokens.size(),
                     " tokens and ", slots.size(), " slots");
    }
    if (tokens.size() > static_cast<std::size_t>(impl_->options.chunk)) {
      return invalid("greedy: expected at most ", impl_->options.chunk,
                     " sequences; raise SessionOptions::chunk");
    }
    if (count < 1 || count > (1 << 24))
      return invalid("greedy: expected 1 to ", 1 << 24, " steps, got ", count);
    std::vector<Segment> segments;
    for (std::size_t s = 0; s < tokens.size(); ++s) {
      KRAIT_TRY(impl_->check_slot(slots[s]));
      segments.push_back({tokens.subspan(s, 1), slots[s], slots[s]});
    }
    KRAIT_TRY(impl_->check_segments(segments));
    return impl_->run_greedy(segments, count);
  });
}

Result<Profile> Session::profile(std::span<const std::int32_t> tokens, std::span<const int> slots,
                                 int repetitions) {
  if (!impl_) return moved_from();
  return guarded([&]() -> Result<Profile> {
    Impl& impl = *impl_;
    if (slots.empty() || tokens.empty() || tokens.size() % slots.size() != 0) {
      return invalid("profile: expected as many tokens for each of the slots, got ", tokens.size(),
                     " tokens and ", slots.size(), " slots");
    }
    if (tokens.size() > static_cast<std::size_t>(impl.options.chunk)) {
      return invalid("profile: expected at most ", impl.options.chunk,
                     " tokens; raise SessionOptions::chunk");
    }
    if (repetitions < 1) return invalid("profile: expected at least 1 run, got ", repetitions);
    const std::size_t share = tokens.size() / slots.size();
    std::vector<Segment> segments;
    for (std::size_t s = 0; s < slots.size(); ++s) {
      KRAIT_TRY(impl.check_slot(slots[s]));
      segments.push_back({tokens.subspan(s * share, share), slots[s], slots[s]});
    }
    KRAIT_TRY(impl.check_segments(segments));
    impl.pack(segments);
    const auto count = static_cast<std::int64_t>(tokens.size());
    const auto sequences = static_cast<std::int64_t>(slots.size());
    const Sizes sizes{count, sequences, sequences, 0, share == 1, share == 1};
    const Feed feed{"tokens", dense_view(impl.tokens.data(), DType::i32, {count})};
    const auto upload = [&] { return impl.upload(sizes, {&feed, 1}); };
    KRAIT_ASSIGN(Execution * execution, upload());
    KRAIT_ASSIGN(Profile profile,
                 execution->profile(repetitions, [&] { return upload().status(); }));
    for (const int slot : slots) KRAIT_TRY(reset(slot));
    return profile;
  });
}

Status Session::run(std::span<const std::int64_t> lengths, std::span<const int> slot_in,
                    std::span<const int> slot_out, std::span<const Feed> feeds,
                    std::span<const std::int32_t> rows) {
  if (!impl_) return moved_from();
  return guarded([&]() -> Status {
    Impl& impl = *impl_;
    if (lengths.size() != slot_in.size() || lengths.size() != slot_out.size()) {
      return invalid("run: expected as many slots as sequences (", lengths.size(), "), got ",
                     slot_in.size(), " and ", slot_out.size());
    }
    // Slots are checked as those of segments are.
    std::vector<Segment> segments;
    for (std::size_t s = 0; s < lengths.size(); ++s)
      segments.push_back({{}, slot_in[s], slot_out[s]});
    KRAIT_TRY(impl.check_segments(segments));
    impl.starts.assign(1, 0);
    std::int64_t total = 0;
    bool steps = true;
    for (const std::int64_t length : lengths) {
      if (length < 0 || length > impl.options.chunk - total) {
        return invalid("run: expected at most ", impl.options.chunk,
                       " tokens in all; raise SessionOptions::chunk");
      }
      total += length;
      steps = steps && length == 1;
      impl.starts.push_back(static_cast<std::int32_t>(total));
    }
    impl.slot_in.assign(slot_in.begin(), slot_in.end());
    impl.slot_out.assign(slot_out.begin(), slot_out.end());
    impl.rows.assign(rows.begin(), rows.end());
    for (const std::int32_t row : rows) {
      if (row < 0 || row >= total) return invalid("rows: expected 0 to ", total - 1, ", got ", row);
    }
    const Sizes sizes{total, static_cast<std::int64_t>(lengths.size()),
                      static_cast<std::int64_t>(rows.size()), 0, steps};
    KRAIT_TRY(impl.launch(sizes, feeds).status());
    for (std::size_t s = 0; s < lengths.size(); ++s) {
      if (slot_out[s] < 0) continue;
      const std::int64_t before =
          slot_in[s] < 0 ? 0 : impl.positions[static_cast<std::size_t>(slot_in[s])];
      impl.positions[static_cast<std::size_t>(slot_out[s])] = before + lengths[s];
      impl.recorded[static_cast<std::size_t>(slot_out[s])].clear();
    }
    return {};
  });
}

Result<std::vector<float>> Session::output(std::string_view name) {
  if (!impl_) return moved_from();
  return guarded([&] { return impl_->fetch(name); });
}

Result<State> Session::snapshot(int slot) {
  if (!impl_) return moved_from();
  return guarded([&]() -> Result<State> {
    KRAIT_TRY(impl_->check_slot(slot));
    auto state = std::make_shared<State::Impl>(impl_->program);
    for (std::size_t i = 0; i < impl_->layout.size(); ++i) {
      const std::int64_t bytes = impl_->layout[i].bytes;
      KRAIT_ASSIGN(std::unique_ptr<Buffer> buffer, impl_->device().allocate(bytes));
      KRAIT_TRY(impl_->device().copy(*impl_->states[i], slot * bytes, *buffer, 0, bytes));
      state->tensors.push_back(std::move(buffer));
    }
    KRAIT_TRY(impl_->device().synchronize());
    state->position = impl_->positions[static_cast<std::size_t>(slot)];
    // A record with gaps, from calls that did not keep it, is none.
    if (const auto& tokens = impl_->recorded[static_cast<std::size_t>(slot)];
        static_cast<std::int64_t>(tokens.size()) == state->position) {
      state->tokens = tokens;
    }
    return State(std::move(state));
  });
}

Status Session::restore(const State& state, int slot) {
  if (!impl_) return moved_from();
  return guarded([&]() -> Status {
    KRAIT_TRY(impl_->check_slot(slot));
    const State::Impl& from = state.impl();
    const bool same_program = &from.program.impl() == &impl_->program.impl();
    const std::vector<StateTensor> layout = state_tensors(from.program);
    if (!same_program) {
      // Another device, or the same model loaded twice: the tensors must fit, the model must be it.
      KRAIT_ASSIGN(const std::string theirs, from.program.model().fingerprint());
      KRAIT_ASSIGN(const std::string ours, impl_->program.model().fingerprint());
      if (theirs != ours) return invalid("restore: this state belongs to another model");
    }
    for (std::size_t i = 0; i < impl_->layout.size(); ++i) {
      const std::int64_t bytes = impl_->layout[i].bytes;
      if (from.program.impl().device.get() == &impl_->device()) {
        KRAIT_TRY(
            impl_->device().copy(*from.tensors[i], 0, *impl_->states[i], slot * bytes, bytes));
        continue;
      }
      std::vector<std::byte> host(static_cast<std::size_t>(bytes));
      KRAIT_TRY(from.program.impl().device->download(*from.tensors[i], 0, host.data(), bytes));
      KRAIT_TRY(impl_->device().upload(host.data(), *impl_->states[i], slot * bytes, bytes));
    }
    impl_->positions[static_cast<std::size_t>(slot)] = from.position;
    impl_->recorded[static_cast<std::size_t>(slot)] = from.tokens;
    return {};
  });
}

Status Session::reset(int slot) {
  if (!impl_) return moved_from();
  return guarded([&]() -> Status {
    KRAIT_TRY(impl_->check_slot(slot));
    for (std::size_t i = 0; i < impl_->layout.size(); ++i) {
      const std::int64_t bytes = impl_->layout[i].bytes;
      KRAIT_TRY(impl_->device().fill_zero(*impl_->states[i], slot * bytes, bytes));
    }
    impl_->positions[static_cast<std::size_t>(slot)] = 0;
    impl_->recorded[static_cast<std::size_t>(slot)].clear();
    return {};
  });
}

std::int64_t Session::position(int slot) const {
  return impl_ && impl_->check_slot(slot).ok() ? impl_->positions[static_cast<std::size_t>(slot)]
                                               : -1;
}

std::int64_t Session::memory_bytes() const {
  if (!impl_) return 0;
  std::int64_t bytes = impl_->arena ? impl_->arena->bytes() : 0;
  for (const auto& state : impl_->states) bytes += state->bytes();
  return bytes;
}

const Program& Session::program() const {
  return impl_->program;
}

}  // namespace krait
