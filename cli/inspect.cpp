#include <iostream>
#include <memory>
#include <nlohmann/json.hpp>

#include "cli/commands.h"
#include "cli/terminal.h"

namespace krait::cli {
namespace {

struct InspectOptions {
  ModelOptions model;
  bool graph = false, dot = false, plan = false, raw = false, json = false;
  std::int64_t tokens = 1, sequences = 1;
};

int inspect(const InspectOptions& options) {
  const auto opened = open(options.model);
  if (!opened.ok()) return fail(opened.status());
  const Graph& graph = options.raw ? opened->model.graph() : opened->program.graph();
  const auto plan =
      opened->program.describe_plan(options.tokens, options.sequences, options.sequences);
  if (!plan.ok()) return fail(plan.status());
  const ModelInfo& info = opened->model.info();
  if (options.json) {
    nlohmann::json result = {{"name", info.name},
                             {"architecture", info.architecture},
                             {"d_model", info.d_model},
                             {"n_layer", info.n_layer},
                             {"vocab_size", info.vocab_size},
                             {"parameters", info.parameters},
                             {"bytes", info.bytes},
                             {"weights", info.weights},
                             {"device", opened->program.device().name},
                             {"activations", opened->program.activations()},
                             {"packed_bytes", opened->program.packed_bytes()}};
    if (options.graph) result["graph"] = graph.print();
    if (options.dot) result["dot"] = graph.dot();
    if (options.plan) result["plan"] = *plan;
    std::cout << result.dump(2) << "\n";
    return 0;
  }
  if (options.graph) std::cout << graph.print();
  if (options.dot) std::cout << graph.dot();
  if (options.plan) std::cout << *plan;
  if (options.graph || options.dot || options.plan) return 0;
  std::cout << info.name << ": " << info.architecture << ", " << info.n_layer << " layers, width "
            << info.d_model << ", vocabulary " << info.vocab_size << "\n"
            << info.parameters << " parameters, " << info.bytes << " bytes, mostly " << info.weights
            << "\n"
            << "on " << opened->program.device().name << ": " << opened->program.packed_bytes()
            << " bytes packed beside the file\n";
  return 0;
}

}  // namespace

void add_inspect(CLI::App& app, Action& action) {
  CLI::App* command = app.add_subcommand("inspect", "Show a model, its graph and its plan");
  auto options = std::make_shared<InspectOptions>();
  command->add_option("-m,--model", options->model.model, "Folder or file of the model")
      ->required();
  command->add_option("--device", options->model.device, "Device that the graph is lowered for");
  command->add_option("-t,--threads", options->model.threads, "CPU threads");
  add_activations(*command, options->model.activations);
  command->add_flag("--graph", options->graph, "The graph as it runs, as text that parses back");
  command->add_flag("--dot", options->dot, "The graph for Graphviz");
  command->add_flag("--plan", options->plan,
                    "Kernel of every node, why others were refused, bytes, arena");
  command->add_flag("--raw", options->raw, "The graph before the passes");
  command->add_option("--tokens", options->tokens, "Tokens of the call that --plan shows")
      ->check(CLI::Range(0, 1 << 20));
  command->add_option("--sequences", options->sequences, "Sequences of that call")
      ->check(CLI::Range(0, 1 << 20));
  command->add_flag("--json", options->json, "Print JSON");
  command->callback([options, &action] { action = [options] { return inspect(*options); }; });
}

}  // namespace krait::cli
