#include "cli/terminal.h"

#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <unistd.h>

namespace krait::cli {

Progress::Progress(std::string_view what, std::int64_t total)
    : what_(what),
      total_(std::max<std::int64_t>(total, 1)),
      terminal_(isatty(STDERR_FILENO) == 1),
      start_(std::chrono::steady_clock::now()),
      last_(start_) {}

Progress::~Progress() {
  if (drawn_ && terminal_) std::fprintf(stderr, "\r\033[K");
}

void Progress::update(std::int64_t done) {
  const auto now = std::chrono::steady_clock::now();
  if (now - start_ < std::chrono::seconds(1)) return;
  const std::int64_t tenths = 10 * done / total_;
  const bool due =
      terminal_ ? now - last_ > std::chrono::milliseconds(100) || done >= total_ : tenths > tenths_;
  if (!due) return;
  last_ = now;
  tenths_ = tenths;
  draw(done);
}

void Progress::draw(std::int64_t done) {
  drawn_ = true;
  const double elapsed = seconds_since(start_);
  const double fraction = std::min(1.0, static_cast<double>(done) / static_cast<double>(total_));
  const double left = fraction > 0 ? elapsed / fraction - elapsed : 0;
  if (!terminal_) {
    std::fprintf(stderr, "%s: %3.0f %% (%lld of %lld, %.0f s left)\n", what_.c_str(),
                 100 * fraction, static_cast<long long>(done), static_cast<long long>(total_),
                 left);
    return;
  }
  constexpr int kWidth = 30;
  const int filled = static_cast<int>(fraction * kWidth);
  std::string bar(static_cast<std::size_t>(filled), '#');
  bar.resize(kWidth, '.');
  std::fprintf(stderr, "\r\033[K%s [%s] %3.0f %%, %.0f s left", what_.c_str(), bar.c_str(),
               100 * fraction, left);
  std::fflush(stderr);
}

int fail(const Status& status) {
  std::fprintf(stderr, "krait: %s\n", status.message().c_str());
  return 2;
}

double seconds_since(std::chrono::steady_clock::time_point start) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

std::vector<std::string> split_list(const std::string& text) {
  std::vector<std::string> parts;
  for (std::size_t at = 0; at < text.size();) {
    const std::size_t end = std::min(text.find(',', at), text.size());
    if (end > at) parts.push_back(text.substr(at, end - at));
    at = end + 1;
  }
  return parts;
}

Result<Opened> open(const ModelOptions& options) {
  Result<Model> model = Model::load(options.model);
  if (!model.ok()) return model.status();
  DeviceOptions device_options;
  device_options.threads = options.threads;
  Result<std::shared_ptr<Device>> device = open_device(options.device, device_options);
  if (!device.ok()) return device.status();
  Result<Program> program = Program::create(*model, *device, {options.activations});
  if (!program.ok()) return program.status();
  return Opened{std::move(*model), std::move(*program)};
}

Result<double> load_weights(const Program& program) {
  const auto start = std::chrono::steady_clock::now();
  std::optional<Progress> bar;
  const Status status = program.prepare([&](std::int64_t done, std::int64_t total) {
    if (!bar) bar.emplace("weights", total);
    bar->update(done);
  });
  if (!status.ok()) return status;
  return seconds_since(start);
}

void add_activations(CLI::App& command, Activations& activations) {
  command
      .add_option_function<std::string>(
          "--activations",
          [&activations](const std::string& text) {
            activations = text == "native" ? Activations::native : Activations::exact;
          },
          "native: matrix products may round to bfloat16 or int8 where that is faster")
      ->default_str("exact")
      ->check(CLI::IsMember({"exact", "native"}));
}

Result<std::string> read_file(const std::string& path) {
  std::error_code ignored;
  if (std::filesystem::is_directory(path, ignored))
    return Status(Code::io, path + ": expected a file, got a folder");
  std::ifstream file(path, std::ios::binary);
  if (!file) return Status(Code::not_found, path + ": cannot be read");
  std::ostringstream text;
  text << file.rdbuf();
  if (file.bad()) return Status(Code::io, path + ": reading failed");
  return std::move(text).str();
}

}  // namespace krait::cli
