// Files as memory: read-only mappings, and writing that leaves a whole file or none.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>
#include <string_view>

#include <krait/status.h>

namespace krait {

/// A regular file, mapped read-only for as long as the object lives. The pages are the kernel's: a
/// file that somebody shortens while it is mapped ends the process, as with every mapping.
class MappedFile {
 public:
  /// Errors name the path: not_found, io (with the system's reason), corrupt for an empty file.
  static Result<MappedFile> open(const std::filesystem::path& path);

  MappedFile(MappedFile&& other) noexcept;
  MappedFile& operator=(MappedFile&& other) noexcept;
  ~MappedFile();

  std::span<const std::byte> bytes() const { return bytes_; }
  std::string_view text() const {
    return {reinterpret_cast<const char*>(bytes_.data()), bytes_.size()};
  }

  /// Tells the kernel that these bytes are not needed for now: the whole pages among them leave
  /// memory and are read again from the file if they are touched after all.
  void release(std::size_t offset, std::size_t bytes) const;

 private:
  explicit MappedFile(std::span<const std::byte> bytes) : bytes_(bytes) {}

  std::span<const std::byte> bytes_;
};

/// A file in the making. Under its name there is always either the old file or the whole new one:
/// the bytes go to a new file beside it, reach the disk, and only then take the name.
class NewFile {
 public:
  /// Under a link's name, the file it leads to is replaced. Refused where something is in the way
  /// that is not a regular file.
  static Result<NewFile> create(const std::filesystem::path& name);
  NewFile(NewFile&& other) noexcept;
  /// Without commit(), nothing is left of it.
  ~NewFile();

  /// Appends. After an error, only destruction makes sense.
  Status write(std::span<const std::byte> bytes);
  Status commit();

 private:
  struct Handle;
  explicit NewFile(std::unique_ptr<Handle> handle);

  std::unique_ptr<Handle> handle_;
};

/// Writes the pieces, one after the other, as the file `path`, with NewFile's promise.
Status write_file(const std::filesystem::path& path,
                  std::span<const std::span<const std::byte>> pieces);

}  // namespace krait
