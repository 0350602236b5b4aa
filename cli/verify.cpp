#include <cstdio>
#include <filesystem>
#include <iostream>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>

#include "cli/commands.h"
#include "cli/terminal.h"
#include <krait/verify.h>

namespace krait::cli {
namespace {

struct VerifyOptions {
  ModelOptions model;
  std::string expected;
  std::optional<double> tolerance;
  bool json = false;
};

int run_verify(const VerifyOptions& options) {
  const auto opened = open(options.model);
  if (!opened.ok()) return fail(opened.status());
  if (const auto loaded = load_weights(opened->program); !loaded.ok()) return fail(loaded.status());
  const std::filesystem::path expected =
      options.expected.empty() ? std::filesystem::path(options.model.model) / "expected.safetensors"
                               : std::filesystem::path(options.expected);
  Result<VerifyReport> report = [&] {
    Progress progress("verify", 1000);
    return verify(opened->program, expected, [&](double fraction) {
      progress.update(static_cast<std::int64_t>(1000 * fraction));
    });
  }();
  if (!report.ok()) return fail(report.status());
  // Exact activations leave float32's roundings; native ones those of bfloat16 inputs, and then the
  // likeliest tokens may differ.
  const bool exact = opened->program.activations() == "exact";
  const double tolerance = options.tolerance.value_or(exact ? 1e-5 : 2e-2);
  bool good = !exact || report->greedy_equal.value_or(true);
  nlohmann::json modes = nlohmann::json::array();
  for (const VerifyMode& mode : report->modes) {
    good = good && mode.rel_l2 <= tolerance;
    modes.push_back({{"mode", mode.mode},
                     {"activations", mode.activations},
                     {"max_abs", mode.max_abs},
                     {"rel_l2", mode.rel_l2}});
  }
  if (options.json) {
    nlohmann::json result = {{"device", report->device},
                             {"modes", modes},
                             {"greedy_equal", nullptr},
                             {"tolerance", tolerance},
                             {"passed", good}};
    if (report->greedy_equal) result["greedy_equal"] = *report->greedy_equal;
    std::cout << result.dump(2) << "\n";
    return good ? 0 : 1;
  }
  std::printf("device %s\n", report->device.c_str());
  for (const VerifyMode& mode : report->modes) {
    std::printf("%-8s %s  max |error| %.3g  relative L2 %.3g  %s\n", mode.mode.c_str(),
                mode.activations.c_str(), mode.max_abs, mode.rel_l2,
                mode.rel_l2 <= tolerance ? "ok" : "BEYOND THE TOLERANCE");
  }
  std::printf("greedy   %s\n", !report->greedy_equal   ? "not in the file"
                               : *report->greedy_equal ? "equal"
                                                       : "DIFFERENT");
  std::printf("%s at relative L2 <= %g\n", good ? "passed" : "failed", tolerance);
  return good ? 0 : 1;
}

}  // namespace

void add_verify(CLI::App& app, Action& action) {
  CLI::App* command = app.add_subcommand(
      "verify", "Compare a model with expected logits: one prefill, chunks, steps");
  auto options = std::make_shared<VerifyOptions>();
  command->add_option("-m,--model", options->model.model, "Folder or file of the model")
      ->required();
  command->add_option(
      "--expected", options->expected,
      "safetensors with input_ids, logits and perhaps greedy; default expected.safetensors in the "
      "model's folder");
  command->add_option("--device", options->model.device, "Device to run on");
  command->add_option("-t,--threads", options->model.threads, "CPU threads");
  add_activations(*command, options->model.activations);
  command->add_option("--tolerance", options->tolerance,
                      "Largest relative L2 error that passes; default 1e-5, 2e-2 for native");
  command->add_flag("--json", options->json, "Print JSON");
  command->callback([options, &action] { action = [options] { return run_verify(*options); }; });
}

}  // namespace krait::cli
