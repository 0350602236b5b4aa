#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <iostream>
#include <memory>
#include <nlohmann/json.hpp>
#include <random>

#include "cli/commands.h"
#include "cli/terminal.h"
#include <krait/sampler.h>

namespace krait::cli {
namespace {

struct Options {
  ModelOptions model;
  std::string prompt, prompt_file, state_in, state_out;
  std::vector<std::string> stops;
  int count = 128, chunk = 512;
  SamplerOptions sampler;
  bool seed_given = false, ignore_eos = false, any_model = false, json = false;
};

/// What a run did, for the summary.
struct Summary {
  std::string text;
  std::string stopped = "length";
  std::int64_t prompt_tokens = 0, generated_tokens = 0, position = 0;
  double prompt_seconds = 0, generate_seconds = 0;
};

double rate(std::int64_t tokens, double seconds) {
  return seconds > 0 ? static_cast<double>(tokens) / seconds : 0;
}

/// Text goes out as it becomes certain; with --json it is collected.
void emit(Summary& summary, const std::string& text, bool json) {
  summary.text += text;
  if (json || text.empty()) return;
  std::fwrite(text.data(), 1, text.size(), stdout);
  std::fflush(stdout);
}

Status consume_prompt(Session& session, const std::vector<std::int32_t>& ids, Summary& summary,
                      std::vector<float>& logits) {
  const auto start = std::chrono::steady_clock::now();
  Progress progress("prompt", static_cast<std::int64_t>(ids.size()));
  const Segment segment{ids, 0, 0};
  const auto result =
      session.forward({&segment, 1}, Rows::last, [&](std::int64_t done) { progress.update(done); });
  if (!result.ok()) return result.status();
  logits.assign(result->values.begin(), result->values.end());
  summary.prompt_tokens = static_cast<std::int64_t>(ids.size());
  summary.prompt_seconds = seconds_since(start);
  return {};
}

/// What follows a token. Where that is always the likeliest one and nobody needs the state, the
/// device generates in blocks, without work of the host in between; else step by step.
class Continuation {
 public:
  Continuation(Session& session, Sampler sampler, bool on_device)
      : session_(session), sampler_(std::move(sampler)), on_device_(on_device) {}

  std::int32_t first(std::span<const float> logits, std::span<const std::int32_t> history) {
    return sampler_.sample(logits, history);
  }
  /// The token after `history`, whose last one is consumed; at most `left` more will be asked for.
  Result<std::int32_t> next(std::span<const std::int32_t> history, int left) {
    if (!on_device_) {
      const auto logits = session_.step(history.back());
      if (!logits.ok()) return logits.status();
      return sampler_.sample(logits->values, history);
    }
    if (at_ == block_.size()) {
      const auto start = std::chrono::steady_clock::now();
      const int slot = 0;
      auto ids = session_.greedy(history.last(1), {&slot, 1}, std::min(left, block_size_));
      if (!ids.ok()) return ids.status();
      block_ = std::move(*ids);
      at_ = 0;
      // Blocks as long as text may be late without anyone noticing.
      if (seconds_since(start) < 0.05) block_size_ = std::min(2 * block_size_, 256);
    }
    return block_[at_++];
  }
  /// Tokens consumed until here: the device may be ahead.
  std::int64_t position() const {
    return session_.position() - static_cast<std::int64_t>(block_.size() - at_);
  }

 private:
  Session& session_;
  Sampler sampler_;
  bool on_device_;
  int block_size_ = 1;
  std::vector<std::int32_t> block_;  ///< generated ahead
  std::size_t at_ = 0;
};

/// Samples, prints and feeds back until something stops it. With --state-out every printed token is
/// consumed, so that the state afterwards has seen all of the text.
Status generate_text(const Options& options, Session& session, const Tokenizer& tokenizer,
                     std::vector<std::int32_t> history, const std::vector<float>& logits,
                     Summary& summary) {
  auto sampler = Sampler::create(options.sampler);
  if (!sampler.ok()) return sampler.status();
  auto decoder = tokenizer.stream({.skip_special = true});
  if (!decoder.ok()) return decoder.status();
  auto matcher = StopMatcher::create(options.stops);
  if (!matcher.ok()) return matcher.status();
  const bool keeps_state = !options.state_out.empty();
  const bool likeliest =
      options.sampler.temperature == 0 && options.sampler.repetition_penalty == 1;
  Continuation continuation(session, std::move(*sampler), likeliest && !keeps_state);
  const std::vector<std::int32_t>& eos = session.program().model().info().eos;
  const auto start = std::chrono::steady_clock::now();
  std::int32_t id = options.count > 0 ? continuation.first(logits, history) : 0;
  while (summary.generated_tokens < options.count) {
    if (!options.ignore_eos && std::find(eos.begin(), eos.end(), id) != eos.end()) {
      summary.stopped = "end of text";
      break;
    }
    ++summary.generated_tokens;
    history.push_back(id);
    const auto piece = decoder->push(id);
    if (!piece.ok()) return piece.status();
    const auto safe = matcher->push(*piece);
    if (!safe.ok()) return safe.status();
    emit(summary, *safe, options.json);
    if (matcher->stopped()) {
      summary.stopped = "stop string";
      break;
    }
    const auto left = options.count - static_cast<int>(summary.generated_tokens);
    if (left == 0 && !keeps_state) break;
    const auto next = continuation.next(history, left);
    if (!next.ok()) return next.status();
    id = *next;
  }
  summary.generate_seconds = seconds_since(start);
  summary.position = continuation.position();
  if (matcher->stopped()) return {};
  const auto tail = decoder->flush();
  if (!tail.ok()) return tail.status();
  const auto safe = matcher->push(*tail);
  if (!safe.ok()) return safe.status();
  const auto rest = matcher->flush();
  if (!rest.ok()) return rest.status();
  emit(summary, *safe + *rest, options.json);
  return {};
}

void report(const Options& options, const Opened& opened, const Summary& summary) {
  const auto kernels = opened.program.kernels(1, 1, 1);
  const std::string device =
      opened.program.device().name + " (" + opened.program.device().description + ")";
  const double prompt_rate = rate(summary.prompt_tokens, summary.prompt_seconds);
  const double generate_rate = rate(summary.generated_tokens, summary.generate_seconds);
  if (options.json) {
    std::cout << nlohmann::json{{"text", summary.text},
                                {"stopped", summary.stopped},
                                {"prompt_tokens", summary.prompt_tokens},
                                {"generated_tokens", summary.generated_tokens},
                                {"position", summary.position},
                                {"prompt_tokens_per_second", prompt_rate},
                                {"tokens_per_second", generate_rate},
                                {"seed", options.sampler.seed},
                                {"device", opened.program.device().name},
                                {"activations", opened.program.activations()},
                                {"kernels", kernels.ok() ? *kernels : ""}}
                     .dump(2, ' ', false, nlohmann::json::error_handler_t::replace)
              << "\n";
    return;
  }
  std::fprintf(stderr, "\nmodel %s, %s\ndevice %s, activations %s\n",
               opened.model.info().name.c_str(), opened.model.info().weights.c_str(),
               device.c_str(), std::string(opened.program.activations()).c_str());
  if (kernels.ok()) std::fprintf(stderr, "kernels %s\n", kernels->c_str());
  std::fprintf(
      stderr,
      "prompt %lld tokens, %.1f tokens/s; generated %lld tokens, %.1f tokens/s; stopped at %s",
      static_cast<long long>(summary.prompt_tokens), prompt_rate,
      static_cast<long long>(summary.generated_tokens), generate_rate, summary.stopped.c_str());
  if (options.sampler.temperature > 0) {
    std::fprintf(stderr, "; seed %llu", static_cast<unsigned long long>(options.sampler.seed));
  }
  std::fprintf(stderr, "\n");
}

int generate(Options options) {
  if (!options.seed_given) options.sampler.seed = std::random_device{}();
  if (!options.prompt_file.empty()) {
    auto text = read_file(options.prompt_file);
    if (!text.ok()) return fail(text.status());
    options.prompt = std::move(*text);
  }
  // What cannot work is found before gigabytes are read and hours of text are written.
  if (!options.state_out.empty()) {
    const auto folder = std::filesystem::absolute(options.state_out).parent_path();
    if (!std::filesystem::is_directory(folder))
      return fail(Status(Code::not_found, "--state-out: there is no folder " + folder.string()));
  }
  if (const auto sampler = Sampler::create(options.sampler); !sampler.ok())
    return fail(sampler.status());
  if (const auto stops = StopMatcher::create(options.stops); !stops.ok())
    return fail(stops.status());
  const auto opened = open(options.model);
  if (!opened.ok()) return fail(opened.status());
  const auto tokenizer = opened->model.tokenizer();
  if (!tokenizer.ok()) return fail(tokenizer.status());
  const auto ids = tokenizer->encode(options.prompt, {.add_special = options.state_in.empty()});
  if (!ids.ok()) return fail(ids.status());
  if (ids->empty()) {
    return fail(
        Status(Code::invalid_argument, "the prompt has no tokens; give some text with -p or -f"));
  }

  SessionOptions session_options;
  session_options.chunk = options.chunk;
  session_options.record_tokens = !options.state_out.empty();
  auto session = Session::create(opened->program, session_options);
  if (!session.ok()) return fail(session.status());
  if (!options.state_in.empty()) {
    const auto state = State::load(options.state_in, opened->program, options.any_model);
    if (!state.ok()) return fail(state.status());
    if (const Status restored = session->restore(*state); !restored.ok()) return fail(restored);
    std::fprintf(stderr, "state %s: continues after %lld tokens\n", options.state_in.c_str(),
                 static_cast<long long>(state->position()));
  }

  if (const auto loaded = load_weights(opened->program); !loaded.ok()) return fail(loaded.status());
  Summary summary;
  std::vector<float> logits;
  Status status = consume_prompt(*session, *ids, summary, logits);
  if (status.ok()) status = generate_text(options, *session, *tokenizer, *ids, logits, summary);
  if (!options.json) {
    std::fputc('\n', stdout);
    std::fflush(stdout);
  }
  if (!status.ok()) return fail(status);
  report(options, *opened, summary);
  if (!options.state_out.empty()) {
    const auto state = session->snapshot();
    if (!state.ok()) return fail(state.status());
    if (const Status saved = state->save(options.state_out); !saved.ok()) return fail(saved);
    std::fprintf(stderr, "state %s: saved after %lld tokens\n", options.state_out.c_str(),
                 static_cast<long long>(state->position()));
  }
  return 0;
}

}  // namespace

void add_generate(CLI::App& app, Action& action) {
  CLI::App* command = app.add_subcommand(
      "generate", "Continue a text; the text goes to stdout, all else to stderr");
  auto o = std::make_shared<Options>();
  command->add_option("-m,--model", o->model.model, "Folder or file of the model")->required();
  CLI::Option* prompt = command->add_option("-p,--prompt", o->prompt, "The text to continue");
  CLI::Option* file =
      command->add_option("-f,--file", o->prompt_file, "A file with the text to continue");
  prompt->excludes(file);
  command->add_option("-n,--tokens", o->count, "Tokens to generate")
      ->capture_default_str()
      ->check(CLI::Range(0, 1 << 30));
  command->add_option("--device", o->model.device, "Device: see `krait devices`");
  command->add_option("-t,--threads", o->model.threads, "CPU threads; 0: one per core")
      ->check(CLI::Range(0, 4096));
  add_activations(*command, o->model.activations);
  command
      ->add_option("--temp", o->sampler.temperature, "Temperature; 0: always the likeliest token")
      ->capture_default_str();
  command->add_option("--top-k", o->sampler.top_k, "Keep the k likeliest; 0: all")
      ->capture_default_str();
  command
      ->add_option("--top-p", o->sampler.top_p,
                   "Keep the likeliest that reach this probability together")
      ->capture_default_str();
  command
      ->add_option("--min-p", o->sampler.min_p,
                   "Keep those at least this probable relative to the likeliest")
      ->capture_default_str();
  command
      ->add_option("--repeat-penalty", o->sampler.repetition_penalty,
                   "Divides logits of recent tokens; 1: off")
      ->capture_default_str();
  command->add_option("--repeat-last-n", o->sampler.repetition_window, "How many tokens are recent")
      ->capture_default_str();
  CLI::Option* seed = command->add_option("--seed", o->sampler.seed,
                                          "Seed of the sampler; random if not given, and printed");
  command->add_option("--stop", o->stops, "Stop before this text; may be repeated")
      ->allow_extra_args(false);
  command->add_flag("--ignore-eos", o->ignore_eos, "Go on after an end-of-text token");
  command->add_option("--state-in", o->state_in,
                      "Continue from this state file, without reading its text again");
  command->add_option("--state-out", o->state_out, "Save the state after the generated text");
  command->add_flag("--any-model", o->any_model,
                    "Accept the state of another model, such as a quantised sibling");
  command->add_option("--chunk", o->chunk, "Prompt tokens that run at once")
      ->capture_default_str()
      ->check(CLI::Range(1, 1 << 20));
  command->add_flag("--json", o->json, "Print text and figures as JSON");
  command->callback([o, seed, &action] {
    o->seed_given = seed->count() > 0;
    action = [o] { return generate(*o); };
  });
}

}  // namespace krait::cli
