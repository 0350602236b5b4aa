// What a person at a terminal sees besides results: progress on stderr, errors, help with options.
#pragma once

#include <CLI/CLI.hpp>
#include <chrono>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include <krait/session.h>
#include <krait/status.h>

namespace krait::cli {

/// A bar on stderr for work of known length: redrawn in place on a terminal, a line per tenth
/// elsewhere. Silent until the work has taken a second.
class Progress {
 public:
  Progress(std::string_view what, std::int64_t total);
  ~Progress();
  Progress(const Progress&) = delete;
  Progress& operator=(const Progress&) = delete;
  void update(std::int64_t done);

 private:
  void draw(std::int64_t done);

  std::string what_;
  std::int64_t total_;
  bool terminal_;
  bool drawn_ = false;
  std::int64_t tenths_ = 0;
  std::chrono::steady_clock::time_point start_, last_;
};

/// Prints "krait: message" and returns the exit code for a failure that is not a verdict.
int fail(const Status& status);

/// Seconds since `start`.
double seconds_since(std::chrono::steady_clock::time_point start);

/// "1,2" as {"1", "2"}.
std::vector<std::string> split_list(const std::string& text);

/// The options that most commands take to open a model on a device.
struct ModelOptions {
  std::string model;
  std::string device;
  int threads = 0;
  Activations activations = Activations::exact;
};

struct Opened {
  Model model;
  Program program;
};
Result<Opened> open(const ModelOptions& options);

/// Brings a program's weights to its device, with progress; the seconds that it took.
Result<double> load_weights(const Program& program);

/// Adds --activations.
void add_activations(CLI::App& command, Activations& activations);

/// A whole file as text.
Result<std::string> read_file(const std::string& path);

}  // namespace krait::cli
