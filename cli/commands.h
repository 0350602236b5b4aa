// One function per command: it adds its options to the parser and, if chosen, sets what to run.
#pragma once

#include <CLI/CLI.hpp>
#include <functional>

namespace krait::cli {

/// What main() runs after parsing; its result is the exit code.
using Action = std::function<int()>;

void add_generate(CLI::App& app, Action& action);
void add_devices(CLI::App& app, Action& action);
void add_inspect(CLI::App& app, Action& action);
void add_verify(CLI::App& app, Action& action);
void add_conform(CLI::App& app, Action& action);
void add_bench(CLI::App& app, Action& action);
void add_perplexity(CLI::App& app, Action& action);
void add_quantize(CLI::App& app, Action& action);
void add_ops(CLI::App& app, Action& action);

/// Prints the devices; also `krait --list-devices`.
int list_devices_table(bool json);

}  // namespace krait::cli
