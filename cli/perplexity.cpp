#include <cmath>
#include <cstdio>
#include <iostream>
#include <limits>
#include <memory>
#include <nlohmann/json.hpp>

#include "cli/commands.h"
#include "cli/terminal.h"

namespace krait::cli {
namespace {

struct Options {
  ModelOptions model;
  std::string file;
  bool json = false;
};

/// −log p(id) under softmax(logits), in float64: log Σ exp(l − max) + max − l[id].
double nll(std::span<const float> logits, std::int32_t id) {
  double largest = -std::numeric_limits<double>::infinity();
  for (const float logit : logits) largest = std::max(largest, static_cast<double>(logit));
  double sum = 0;
  for (const float logit : logits) sum += std::exp(logit - largest);
  return std::log(sum) + largest - logits[static_cast<std::size_t>(id)];
}

int perplexity(const Options& options) {
  const auto text = read_file(options.file);
  if (!text.ok()) return fail(text.status());
  const auto opened = open(options.model);
  if (!opened.ok()) return fail(opened.status());
  const auto tokenizer = opened->model.tokenizer();
  if (!tokenizer.ok()) return fail(tokenizer.status());
  const auto ids = tokenizer->encode(*text);
  if (!ids.ok()) return fail(ids.status());
  if (ids->size() < 2)
    return fail(Status(Code::invalid_argument, options.file + ": expected at least two tokens"));

  if (const auto loaded = load_weights(opened->program); !loaded.ok()) return fail(loaded.status());
  // Logits of all rows: short chunks keep their memory small (256 rows of 50280 are 51 MB).
  SessionOptions session_options;
  session_options.chunk = 256;
  auto session = Session::create(opened->program, session_options);
  if (!session.ok()) return fail(session.status());
  const auto count = static_cast<std::int64_t>(ids->size());
  double total = 0;
  {
    Progress progress("perplexity", count - 1);
    for (std::int64_t at = 0; at + 1 < count; at += session_options.chunk) {
      const std::int64_t take = std::min<std::int64_t>(session_options.chunk, count - 1 - at);
      const Segment segment{
          std::span(*ids).subspan(static_cast<std::size_t>(at), static_cast<std::size_t>(take)),
          at ? 0 : -1, 0};
      const auto logits = session->forward({&segment, 1}, Rows::all);
      if (!logits.ok()) return fail(logits.status());
      for (std::int64_t t = 0; t < take; ++t)
        total += nll(logits->row(t), (*ids)[static_cast<std::size_t>(at + t + 1)]);
      progress.update(at + take);
    }
  }
  const double bits = total / std::log(2.0) / static_cast<double>(text->size());
  const double per_token = total / static_cast<double>(count - 1);
  if (options.json) {
    std::cout << nlohmann::json{{"bits_per_byte", bits},
                                {"nll_per_token", per_token},
                                {"tokens", count},
                                {"device", opened->program.device().name},
                                {"activations", opened->program.activations()}}
                     .dump(2)
              << "\n";
  } else {
    std::printf("%.4f bits per byte, %.4f nats per token (perplexity %.2f), %lld tokens\n", bits,
                per_token, std::exp(per_token), static_cast<long long>(count));
    std::fprintf(stderr, "device %s, activations %s\n", opened->program.device().name.c_str(),
                 std::string(opened->program.activations()).c_str());
  }
  return 0;
}

}  // namespace

void add_perplexity(CLI::App& app, Action& action) {
  CLI::App* command = app.add_subcommand(
      "perplexity", "How well a model predicts a text: one sequence, state carried, no BOS");
  auto options = std::make_shared<Options>();
  command->add_option("-m,--model", options->model.model, "Folder or file of the model")
      ->required();
  command->add_option("-f,--file", options->file, "Text file, UTF-8")->required();
  command->add_option("--device", options->model.device, "Device to run on");
  command->add_option("-t,--threads", options->model.threads, "CPU threads");
  add_activations(*command, options->model.activations);
  command->add_flag("--json", options->json, "Print JSON");
  command->callback([options, &action] { action = [options] { return perplexity(*options); }; });
}

}  // namespace krait::cli
