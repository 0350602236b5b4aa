// Where tests find data and put files.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>
#include <vector>

#if defined(__unix__) || defined(__APPLE__)
#include <unistd.h>
#endif

namespace krait::test {

/// The repository, for its data. The environment variable of the same name says where that is on
/// machines that only run the tests.
inline std::filesystem::path source_dir() {
  const char* variable = std::getenv("KRAIT_SOURCE_DIR");
  return variable ? variable : KRAIT_SOURCE_DIR;
}

/// The folder with ops/ and models/ made by other implementations; KRAIT_GOLDENS names another.
inline std::filesystem::path goldens() {
  const char* variable = std::getenv("KRAIT_GOLDENS");
  return variable ? std::filesystem::path(variable) : source_dir() / "tests" / "golden" / "data";
}

inline std::filesystem::path assets() {
  return source_dir() / "assets";
}

/// An empty folder that goes with the object.
class TemporaryFolder {
 public:
  TemporaryFolder() {
    static std::atomic<int> count{0};
    path_ = std::filesystem::temp_directory_path() /
            ("krait-test-" + std::to_string(::getpid()) + "-" + std::to_string(count++));
    std::filesystem::create_directories(path_);
  }
  ~TemporaryFolder() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  TemporaryFolder(const TemporaryFolder&) = delete;
  TemporaryFolder& operator=(const TemporaryFolder&) = delete;

  std::filesystem::path operator/(const std::string& name) const { return path_ / name; }

 private:
  std::filesystem::path path_;
};

inline std::string read_file(const std::filesystem::path& path) {
  std::ifstream in(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}

inline void write_file(const std::filesystem::path& path, const std::string& content) {
  std::ofstream(path, std::ios::binary) << content;
}

}  // namespace krait::test
