#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstdio>
#include <iostream>
#include <memory>
#include <nlohmann/json.hpp>
#include <numeric>

#include "cli/commands.h"
#include "cli/terminal.h"

namespace krait::cli {
namespace {

struct Options {
  std::string model, shape, weights = "f32", devices, threads;
  Activations activations = Activations::exact;
  int prompt = 512, generate = 128, repetitions = 5;
  bool json = false;
};

struct Row {
  std::string model, device, weights, activations, test;
  int threads = 0;
  double tokens_per_second = 0, sd = 0, bytes_per_token = 0;
  double bandwidth_fraction = 0;  ///< 0: not measured
  std::int64_t parameters = 0, bytes = 0;
};

/// One timed run: tokens per second.
Result<double> time_prompt(Session& session, const std::vector<std::int32_t>& tokens) {
  const Segment segment{tokens, -1, 0};
  const auto start = std::chrono::steady_clock::now();
  const auto logits = session.forward({&segment, 1});
  if (!logits.ok()) return logits.status();
  return static_cast<double>(tokens.size()) / seconds_since(start);
}

Result<double> time_generation(Session& session, const std::vector<std::int32_t>& tokens) {
  if (const Status status = session.reset(0); !status.ok()) return status;
  const auto start = std::chrono::steady_clock::now();
  for (const std::int32_t token : tokens) {
    const auto logits = session.step(token);
    if (!logits.ok()) return logits.status();
  }
  return static_cast<double>(tokens.size()) / seconds_since(start);
}

/// Median and standard deviation: machines are noisy, and the median is not moved by one hiccup.
void summarise(std::vector<double> rates, Row& row) {
  std::sort(rates.begin(), rates.end());
  const std::size_t middle = rates.size() / 2;
  row.tokens_per_second =
      rates.size() % 2 ? rates[middle] : (rates[middle - 1] + rates[middle]) / 2;
  const double mean =
      std::accumulate(rates.begin(), rates.end(), 0.0) / static_cast<double>(rates.size());
  double squares = 0;
  for (const double rate : rates) squares += (rate - mean) * (rate - mean);
  row.sd = rates.size() > 1 ? std::sqrt(squares / static_cast<double>(rates.size() - 1)) : 0;
}

Result<std::vector<Row>> bench_device(const Model& model, const std::string& device_name,
                                      int threads, const Options& options, Progress& progress,
                                      std::int64_t& done) {
  DeviceOptions device_options;
  device_options.threads = threads;
  auto device = open_device(device_name, device_options);
  if (!device.ok()) return device.status();
  auto program = Program::create(model, *device, {options.activations});
  if (!program.ok()) return program.status();
  SessionOptions session_options;
  session_options.chunk = std::clamp(options.prompt, 1, 512);
  auto session = Session::create(*program, session_options);
  if (!session.ok()) return session.status();
  // Any ids do: the work does not depend on them. Spread over the embedding, as text is.
  const auto ids = [&](int count) {
    std::vector<std::int32_t> list(static_cast<std::size_t>(count));
    for (std::size_t i = 0; i < list.size(); ++i) {
      list[i] = static_cast<std::int32_t>((i * 2654435761u) %
                                          static_cast<std::uint64_t>(model.info().vocab_size));
    }
    return list;
  };
  std::vector<Row> rows;
  for (const bool prompt : {true, false}) {
    const int count = prompt ? options.prompt : options.generate;
    if (count <= 0) continue;
    const std::vector<std::int32_t> tokens = ids(count);
    const std::vector<std::int32_t> warm_up = prompt ? tokens : ids(std::min(count, 4));
    const auto run = [&](const std::vector<std::int32_t>& list) {
      return prompt ? time_prompt(*session, list) : time_generation(*session, list);
    };
    if (const auto warm = run(warm_up); !warm.ok()) return warm.status();
    std::vector<double> rates;
    for (int r = 0; r < options.repetitions; ++r) {
      const auto rate = run(tokens);
      if (!rate.ok()) return rate.status();
      rates.push_back(*rate);
      progress.update(++done);
    }
    Row row;
    row.model = model.info().name;
    row.device = program->device().name;
    row.weights = model.info().weights;
    row.activations = program->activations();
    row.threads = device_threads(**device);
    row.test = (prompt ? "pp" : "tg") + std::to_string(count);
    row.parameters = model.info().parameters;
    row.bytes = model.info().bytes;
    summarise(rates, row);
    const int chunk = prompt ? std::min(count, session_options.chunk) : 1;
    const auto moved = program->bytes_per_call(chunk, 1, 1);
    if (!moved.ok()) return moved.status();
    row.bytes_per_token = *moved / chunk;
    // The bandwidth of a buffer as large as what one call moves: caches help both alike.
    if (const auto bandwidth = read_bandwidth(**device, static_cast<std::int64_t>(*moved));
        bandwidth.ok()) {
      row.bandwidth_fraction = row.tokens_per_second * row.bytes_per_token / *bandwidth;
    }
    rows.push_back(std::move(row));
  }
  return rows;
}

void print_json(const std::vector<Row>& rows) {
  nlohmann::json list = nlohmann::json::array();
  for (const Row& row : rows) {
    nlohmann::json entry = {{"model", row.model},
                            {"device", row.device},
                            {"weights", row.weights},
                            {"activations", row.activations},
                            {"threads", row.threads},
                            {"test", row.test},
                            {"tokens_per_second", row.tokens_per_second},
                            {"sd", row.sd},
                            {"bytes_per_token", row.bytes_per_token},
                            {"bandwidth_fraction", nullptr}};
    if (row.bandwidth_fraction > 0) entry["bandwidth_fraction"] = row.bandwidth_fraction;
    list.push_back(std::move(entry));
  }
  std::cout << list.dump(1) << "\n";
}

void print_markdown(const std::vector<Row>& rows) {
  std::printf(
      "| model | size | params | device | weights | activations | threads | test | t/s | "
      "bytes/token | of read bandwidth |\n");
  std::printf("| --- | ---: | ---: | --- | --- | --- | ---: | --- | ---: | ---: | ---: |\n");
  for (const Row& row : rows) {
    char fraction[16] = "-";
    if (row.bandwidth_fraction > 0)
      std::snprintf(fraction, sizeof fraction, "%.0f %%", 100 * row.bandwidth_fraction);
    std::printf("| %s | %.1f MiB | %.2f M | %s | %s | %s | %d | %s | %.2f ± %.2f | %.3g | %s |\n",
                row.model.c_str(), static_cast<double>(row.bytes) / 1048576,
                static_cast<double>(row.parameters) / 1e6, row.device.c_str(), row.weights.c_str(),
                row.activations.c_str(), row.threads, row.test.c_str(), row.tokens_per_second,
                row.sd, row.bytes_per_token, fraction);
  }
}

int bench(const Options& options) {
  const auto dtype = parse_dtype(options.weights);
  if (!dtype)
    return fail(Status(Code::invalid_argument, "--weights: there is no type " + options.weights));
  const auto model =
      options.shape.empty() ? Model::load(options.model) : Model::random(options.shape, *dtype);
  if (!model.ok()) return fail(model.status());
  std::vector<std::string> devices = split_list(options.devices);
  if (devices.empty()) devices.emplace_back();
  std::vector<int> threads;
  for (const std::string& text : split_list(options.threads)) {
    int& count = threads.emplace_back();
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), count);
    if (error != std::errc() || end != text.data() + text.size() || count < 0)
      return fail(Status(Code::invalid_argument, "--threads: expected numbers, got " + text));
  }
  if (threads.empty()) threads.push_back(0);
  std::vector<Row> rows;
  {
    const auto runs =
        static_cast<std::int64_t>(devices.size() * threads.size()) * 2 * options.repetitions;
    Progress progress("bench", runs);
    std::int64_t done = 0;
    for (const std::string& device : devices) {
      for (const int count : threads) {
        auto result = bench_device(*model, device, count, options, progress, done);
        if (!result.ok()) return fail(result.status());
        rows.insert(rows.end(), result->begin(), result->end());
      }
    }
  }
  if (options.json)
    print_json(rows);
  else
    print_markdown(rows);
  return 0;
}

}  // namespace

void add_bench(CLI::App& app, Action& action) {
  CLI::App* command =
      app.add_subcommand("bench", "Tokens per second of prefill (pp) and generation (tg)");
  auto options = std::make_shared<Options>();
  CLI::Option* model =
      command->add_option("-m,--model", options->model, "Folder or file of the model");
  CLI::Option* shape =
      command->add_option("--shape", options->shape,
                          "A published shape with random weights: mamba-130m|370m|790m|1.4b|2.8b");
  model->excludes(shape);
  command->add_option("--weights", options->weights, "Weight type of a shape")
      ->capture_default_str();
  command->add_option("--device", options->devices, "Devices, comma-separated, side by side");
  add_activations(*command, options->activations);
  command->add_option("-p,--prompt", options->prompt, "Tokens of the prefill test; 0: none")
      ->capture_default_str()
      ->check(CLI::Range(0, 1 << 20));
  command->add_option("-n,--generate", options->generate, "Tokens of the generation test; 0: none")
      ->capture_default_str()
      ->check(CLI::Range(0, 1 << 20));
  command->add_option("-t,--threads", options->threads, "Numbers of CPU threads, comma-separated");
  command
      ->add_option("-r,--repetitions", options->repetitions, "Timed runs; the median is reported")
      ->capture_default_str()
      ->check(CLI::Range(1, 1000));
  command->add_flag("--json", options->json, "Print JSON");
  command->callback([options, &action] {
    if (options->model.empty() && options->shape.empty()) throw CLI::RequiredError("-m or --shape");
    action = [options] { return bench(*options); };
  });
}

}  // namespace krait::cli
