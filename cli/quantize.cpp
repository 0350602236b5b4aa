#include <algorithm>
#include <cstdio>
#include <iostream>
#include <memory>
#include <nlohmann/json.hpp>

#include "cli/commands.h"
#include "cli/terminal.h"
#include <krait/quantize.h>

namespace krait::cli {
namespace {

struct Options {
  std::string in, out, type;
  int threads = 0;
  bool json = false;
};

/// A line for the same tensor of all layers: "blk.*.ssm_in.weight".
struct Line {
  std::string name;
  QuantizedTensor tensor;
  int count = 0;
};

std::string without_layer(const std::string& name) {
  if (!name.starts_with("blk.")) return name;
  return "blk.*" + name.substr(std::min(name.find('.', 4), name.size()));
}

std::vector<Line> lines_of(const QuantizeReport& report) {
  std::vector<Line> lines;
  for (const QuantizedTensor& tensor : report.tensors) {
    const std::string name = without_layer(tensor.name);
    const auto same = [&](const Line& line) {
      return line.name == name && line.tensor.from == tensor.from && line.tensor.to == tensor.to &&
             line.tensor.shape == tensor.shape;
    };
    auto line = std::find_if(lines.begin(), lines.end(), same);
    if (line == lines.end()) line = lines.insert(line, {name, tensor, 0});
    ++line->count;
  }
  return lines;
}

void print_text(const QuantizeReport& report, const Options& options) {
  for (const Line& line : lines_of(report)) {
    const QuantizedTensor& tensor = line.tensor;
    std::printf("%-24s %-14s x%-3d %-4s -> %-4s %s\n", line.name.c_str(),
                to_string(tensor.shape).c_str(), line.count, std::string(name(tensor.from)).c_str(),
                std::string(name(tensor.to)).c_str(), tensor.reason.c_str());
  }
  std::printf("%s: %.1f MB instead of %.1f MB\n", options.out.c_str(),
              static_cast<double>(report.bytes) / 1e6,
              static_cast<double>(report.bytes_before) / 1e6);
  if (!report.tokenizer_problem.empty())
    std::fprintf(stderr, "krait: %s\n", report.tokenizer_problem.c_str());
}

void print_json(const QuantizeReport& report, const Options& options) {
  nlohmann::json tensors = nlohmann::json::array();
  for (const QuantizedTensor& tensor : report.tensors) {
    nlohmann::json shape = nlohmann::json::array();
    for (const Dim& dim : tensor.shape.span()) shape.push_back(dim.value);
    tensors.push_back({{"name", tensor.name},
                       {"shape", shape},
                       {"from", name(tensor.from)},
                       {"to", name(tensor.to)},
                       {"reason", tensor.reason}});
  }
  std::cout << nlohmann::json{{"file", options.out},
                              {"type", options.type},
                              {"bytes_before", report.bytes_before},
                              {"bytes", report.bytes},
                              {"tokenizer_problem", report.tokenizer_problem},
                              {"tensors", tensors}}
                   .dump(2)
            << "\n";
}

int quantize(const Options& options) {
  const auto type = parse_dtype(options.type);
  if (!type) {
    return fail(Status(Code::invalid_argument, "--type " + options.type +
                                                   ": expected q8_0, q6_k, q5_k, q5_1, q5_0, q4_k, "
                                                   "q4_1, q4_0, f16, bf16 or f32"));
  }
  const auto model = Model::load(options.in);
  if (!model.ok()) return fail(model.status());
  std::unique_ptr<Progress> progress;
  const auto report = quantize_model(*model, options.out,
                                     {.type = *type,
                                      .threads = options.threads,
                                      .progress = [&](std::int64_t done, std::int64_t total) {
                                        if (!progress)
                                          progress = std::make_unique<Progress>("quantize", total);
                                        progress->update(done);
                                      }});
  progress.reset();
  if (!report.ok()) return fail(report.status());
  options.json ? print_json(*report, options) : print_text(*report, options);
  return 0;
}

}  // namespace

void add_quantize(CLI::App& app, Action& action) {
  CLI::App* command = app.add_subcommand(
      "quantize", "Write a model as a GGUF file, with its weights in another storage type");
  auto options = std::make_shared<Options>();
  command->add_option("in", options->in, "Folder or file of the model")->required();
  command->add_option("out", options->out, "The .gguf file to write")->required();
  command
      ->add_option("--type", options->type, "q8_0|q6_k|q5_k|q5_1|q5_0|q4_k|q4_1|q4_0|f16|bf16|f32")
      ->required();
  command->add_option("-t,--threads", options->threads, "CPU threads; all unless given");
  command->add_flag("--json", options->json, "Print JSON");
  command->callback([options, &action] { action = [options] { return quantize(*options); }; });
}

}  // namespace krait::cli
