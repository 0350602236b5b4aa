#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstdio>
#include <iostream>
#include <memory>
#include <nlohmann/json.hpp>
#include <numeric>
#include <optional>

#include "cli/commands.h"
#include "cli/profile.h"
#include "cli/terminal.h"

namespace krait::cli {
namespace {

struct Options {
  std::string model, shape, weights = "f32", devices, threads, batches = "1";
  Activations activations = Activations::exact;
  int prompt = 512, generate = 128, repetitions = 5;
  bool profile = false, json = false;
};

struct Row {
  std::string model, device, weights, activations, test;
  int threads = 0, batch = 1;
  double tokens_per_second = 0, sd = 0, bytes_per_token = 0;
  double bandwidth = 0;  ///< bytes per second that the device reads; 0: not measured
  double load_seconds = 0, load_bytes = 0;  ///< until the weights were in place; copied for that
  std::int64_t parameters = 0, bytes = 0;
  std::optional<Profile> profile;  ///< instead of rates
};

/// 0: not measured.
double bandwidth_fraction(const Row& row) {
  return row.bandwidth > 0 ? row.tokens_per_second * row.bytes_per_token / row.bandwidth : 0;
}

/// One timed run: tokens per second.
Result<double> time_prompt(Session& session, const std::vector<std::int32_t>& tokens) {
  const Segment segment{tokens, -1, 0};
  const auto start = std::chrono::steady_clock::now();
  const auto logits = session.forward({&segment, 1});
  if (!logits.ok()) return logits.status();
  return static_cast<double>(tokens.size()) / seconds_since(start);
}

/// `count` steps of `batch` sequences, each always continued by its likeliest token: tokens of all
/// sequences per second.
Result<double> time_generation(Session& session, const std::vector<std::int32_t>& tokens,
                               const std::vector<int>& slots, int count) {
  for (const int slot : slots) {
    if (const Status status = session.reset(slot); !status.ok()) return status;
  }
  const auto start = std::chrono::steady_clock::now();
  const auto ids = session.greedy(tokens, slots, count);
  if (!ids.ok()) return ids.status();
  return static_cast<double>(ids->size()) / seconds_since(start);
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
                                      const std::vector<int>& batches, std::int64_t& done) {
  DeviceOptions device_options;
  device_options.threads = threads;
  auto device = open_device(device_name, device_options);
  if (!device.ok()) return device.status();
  auto program = Program::create(model, *device, {options.activations});
  if (!program.ok()) return program.status();
  SessionOptions session_options;
  session_options.chunk = std::max(std::clamp(options.prompt, 1, 512),
                                   *std::max_element(batches.begin(), batches.end()));
  session_options.slots = *std::max_element(batches.begin(), batches.end());
  auto session = Session::create(*program, session_options);
  if (!session.ok()) return session.status();
  const auto loaded = load_weights(*program);
  if (!loaded.ok()) return loaded.status();
  const auto load_bytes = static_cast<double>(program->packed_bytes());
  // Any ids do: the work does not depend on them. Spread over the embedding, as text is.
  const auto ids = [&](int count) {
    std::vector<std::int32_t> list(static_cast<std::size_t>(count));
    for (std::size_t i = 0; i < list.size(); ++i) {
      list[i] = static_cast<std::int32_t>((i * 2654435761u) %
                                          static_cast<std::uint64_t>(model.info().vocab_size));
    }
    return list;
  };
  struct Test {
    int count, batch;  ///< batch 0: the prompt
  };
  std::vector<Test> tests;
  if (options.prompt > 0) tests.push_back({options.prompt, 0});
  for (const int batch : batches) {
    if (options.generate > 0) tests.push_back({options.generate, batch});
  }
  std::vector<Row> rows;
  for (const Test& test : tests) {
    const int count = test.count, batch = test.batch;
    const bool is_prompt = batch == 0;
    const int sequences = is_prompt ? 1 : batch;
    const int at_once = is_prompt ? std::min(count, session_options.chunk) : batch;
    std::vector<int> slots(static_cast<std::size_t>(sequences));
    std::iota(slots.begin(), slots.end(), 0);
    Row row;
    row.model = model.info().name;
    row.device = program->device().name;
    row.weights = model.info().weights;
    row.activations = program->activations();
    row.threads = device_threads(**device);
    row.test = (is_prompt ? "pp" : "tg") + std::to_string(count);
    row.batch = sequences;
    row.parameters = model.info().parameters;
    row.bytes = model.info().bytes;
    row.load_seconds = *loaded;
    row.load_bytes = load_bytes;
    if (options.profile) {
      auto profile = session->profile(ids(at_once), slots, options.repetitions);
      if (!profile.ok()) return profile.status();
      row.profile = std::move(*profile);
      row.tokens_per_second = at_once / row.profile->run_seconds;
      progress.update(done += options.repetitions);
    } else {
      const auto run = [&](int steps) {
        return is_prompt ? time_prompt(*session, ids(count))
                         : time_generation(*session, ids(batch), slots, steps);
      };
      if (const auto warm = run(std::min(count, 4)); !warm.ok()) return warm.status();
      std::vector<double> rates;
      for (int r = 0; r < options.repetitions; ++r) {
        const auto rate = run(count);
        if (!rate.ok()) return rate.status();
        rates.push_back(*rate);
        progress.update(++done);
      }
      summarise(rates, row);
    }
    const auto moved = program->bytes_per_call(at_once, sequences, sequences);
    if (!moved.ok()) return moved.status();
    row.bytes_per_token = *moved / at_once;
    // The bandwidth of a buffer as large as what one call moves: caches help both alike.
    if (const auto bandwidth = read_bandwidth(**device, static_cast<std::int64_t>(*moved));
        bandwidth.ok()) {
      row.bandwidth = *bandwidth;
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
                            {"batch", row.batch},
                            {"tokens_per_second", row.tokens_per_second},
                            {"sd", row.sd},
                            {"bytes_per_token", row.bytes_per_token},
                            {"bandwidth_fraction", nullptr},
                            {"load_seconds", row.load_seconds},
                            {"load_bytes_per_second", row.load_bytes / row.load_seconds}};
    if (row.bandwidth > 0) entry["bandwidth_fraction"] = bandwidth_fraction(row);
    if (row.profile) entry["profile"] = profile_json(*row.profile, row.bandwidth);
    list.push_back(std::move(entry));
  }
  std::cout << list.dump(1) << "\n";
}

void print_markdown(const std::vector<Row>& rows) {
  std::printf(
      "| model | size | params | device | weights | activations | threads | batch | test | t/s | "
      "bytes/token | of read bandwidth |\n");
  std::printf("| --- | ---: | ---: | --- | --- | --- | ---: | ---: | --- | ---: | ---: | ---: |\n");
  for (const Row& row : rows) {
    char fraction[16] = "-";
    if (row.bandwidth > 0)
      std::snprintf(fraction, sizeof fraction, "%.0f %%", 100 * bandwidth_fraction(row));
    std::printf(
        "| %s | %.1f MiB | %.2f M | %s | %s | %s | %d | %d | %s | %.2f ± %.2f | %.3g | %s |\n",
        row.model.c_str(), static_cast<double>(row.bytes) / 1048576,
        static_cast<double>(row.parameters) / 1e6, row.device.c_str(), row.weights.c_str(),
        row.activations.c_str(), row.threads, row.batch, row.test.c_str(), row.tokens_per_second,
        row.sd, row.bytes_per_token, fraction);
  }
}

void print_profiles(const std::vector<Row>& rows) {
  for (const Row& row : rows) {
    std::printf("%s, %s weights, %s activations, on %s: %s, batch %d", row.model.c_str(),
                row.weights.c_str(), row.activations.c_str(), row.device.c_str(), row.test.c_str(),
                row.batch);
    if (row.bandwidth > 0) std::printf(", read bandwidth %.1f GB/s", row.bandwidth * 1e-9);
    std::printf("\n");
    print_profile(*row.profile, row.bandwidth);
    std::printf("\n");
  }
}

/// Once for every device and number of threads.
void print_loading(const std::vector<Row>& rows) {
  const Row* last = nullptr;
  for (const Row& row : rows) {
    if (!last || last->device != row.device || last->threads != row.threads) {
      std::fprintf(stderr, "%s: weights in place after %.3f s, %.2f GB/s\n", row.device.c_str(),
                   row.load_seconds, row.load_bytes / row.load_seconds * 1e-9);
    }
    last = &row;
  }
}

/// The numbers of a comma-separated list; at least one, 0 if it is empty.
Result<std::vector<int>> numbers(std::string_view option, const std::string& list, int least) {
  std::vector<int> result;
  for (const std::string& text : split_list(list)) {
    int& number = result.emplace_back();
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
    if (error != std::errc() || end != text.data() + text.size() || number < least)
      return Status(Code::invalid_argument,
                    std::string(option) + ": expected numbers, got " + text);
  }
  if (result.empty()) result.push_back(least);
  return result;
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
  const auto threads = numbers("--threads", options.threads, 0);
  if (!threads.ok()) return fail(threads.status());
  const auto batches = numbers("--batch", options.batches, 1);
  if (!batches.ok()) return fail(batches.status());
  std::vector<Row> rows;
  {
    const auto runs = static_cast<std::int64_t>(
                          devices.size() * threads->size() *
                          ((options.prompt > 0) + (options.generate > 0) * batches->size())) *
                      options.repetitions;
    Progress progress("bench", runs);
    std::int64_t done = 0;
    for (const std::string& device : devices) {
      for (const int count : *threads) {
        auto result = bench_device(*model, device, count, options, progress, *batches, done);
        if (!result.ok()) return fail(result.status());
        rows.insert(rows.end(), result->begin(), result->end());
      }
    }
  }
  print_loading(rows);
  if (options.json)
    print_json(rows);
  else if (options.profile)
    print_profiles(rows);
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
  command
      ->add_option("-b,--batch", options->batches,
                   "Numbers of sequences that the generation test continues together")
      ->capture_default_str();
  command->add_option("-t,--threads", options->threads, "Numbers of CPU threads, comma-separated");
  command
      ->add_option("-r,--repetitions", options->repetitions, "Timed runs; the median is reported")
      ->capture_default_str()
      ->check(CLI::Range(1, 1000));
  command->add_flag("--profile", options->profile,
                    "Where the time of one call goes, node by node: of the prompt, or as much of "
                    "it as runs at once, and of a step of generation");
  command->add_flag("--json", options->json, "Print JSON");
  command->callback([options, &action] {
    if (options->model.empty() && options->shape.empty()) throw CLI::RequiredError("-m or --shape");
    action = [options] { return bench(*options); };
  });
}

}  // namespace krait::cli
