#include <cstdio>
#include <iostream>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>

#include "cli/commands.h"
#include "cli/terminal.h"
#include <krait/conform.h>

namespace krait::cli {
namespace {

struct Options {
  std::string devices;
  ConformOptions conform;
  bool json = false;
  bool verbose = false;
};

void print_line(const ConformResult& result) {
  std::printf("%-11s %-10s %-15s %-8s %-22s %-16s error %-9.3g tolerance %-9.3g %s\n",
              std::string(name(result.verdict)).c_str(), result.device.c_str(), result.op.c_str(),
              result.dtype.c_str(), result.case_name.c_str(),
              result.kernel.empty() ? "-" : result.kernel.c_str(), result.error, result.tolerance,
              result.reason.c_str());
}

int run_conform(const Options& options) {
  std::vector<std::shared_ptr<Device>> devices;
  std::vector<std::string> names = split_list(options.devices);
  if (names.empty()) {
    for (const DeviceInfo& device : list_devices()) names.push_back(device.name);
  }
  for (const std::string& name : names) {
    auto device = open_device(name);
    if (!device.ok()) {
      fail(device.status());
      return 1;  // a device that was asked for and is not there is a failed conformance run
    }
    devices.push_back(std::move(*device));
  }
  nlohmann::json cases = nlohmann::json::array();
  std::map<Verdict, std::int64_t> counts;
  std::int64_t done = 0;
  std::unique_ptr<Progress> progress;
  const Status status =
      conform(devices, options.conform, [&](const ConformResult& result, std::int64_t total) {
        if (!progress) progress = std::make_unique<Progress>("conform", total);
        progress->update(++done);
        ++counts[result.verdict];
        if (options.json) {
          cases.push_back({{"op", result.op},
                           {"device", result.device},
                           {"kernel", result.kernel},
                           {"dtype", result.dtype},
                           {"case", result.case_name},
                           {"error", result.error},
                           {"tolerance", result.tolerance},
                           {"verdict", name(result.verdict)},
                           {"reason", result.reason}});
        } else if (options.verbose || result.verdict == Verdict::fail) {
          print_line(result);
        }
      });
  progress.reset();
  if (!status.ok()) return fail(status);
  if (options.json) {
    std::cout << nlohmann::json{{"cases", cases},
                                {"passed", counts[Verdict::pass]},
                                {"failed", counts[Verdict::fail]},
                                {"unsupported", counts[Verdict::unsupported]}}
                     .dump(1)
              << "\n";
  } else {
    std::printf("%lld passed, %lld failed, %lld unsupported\n",
                static_cast<long long>(counts[Verdict::pass]),
                static_cast<long long>(counts[Verdict::fail]),
                static_cast<long long>(counts[Verdict::unsupported]));
  }
  return counts[Verdict::fail] ? 1 : 0;
}

}  // namespace

void add_conform(CLI::App& app, Action& action) {
  CLI::App* command =
      app.add_subcommand("conform", "Check every op of a device against the float64 reference");
  auto options = std::make_shared<Options>();
  command->add_option("--device", options->devices, "Devices, comma-separated; default all");
  command->add_option("--op", options->conform.op, "Only this op");
  command->add_option("--case", options->conform.case_name, "Only this case");
  command->add_flag("-v,--verbose", options->verbose,
                    "A line for every case, not only for failures");
  command->add_flag("--json", options->json, "Print JSON");
  command->callback([options, &action] { action = [options] { return run_conform(*options); }; });
}

}  // namespace krait::cli
