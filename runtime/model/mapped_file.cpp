#include "runtime/model/mapped_file.h"

#include <cerrno>
#include <cstring>
#include <limits>
#include <random>
#include <string>
#include <utility>

#include "runtime/core/try.h"

#ifdef _WIN32
#define NOMINMAX
#include <fstream>
#include <windows.h>
#else
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>
#endif

namespace krait {
namespace {

constexpr std::string_view kEmpty = " is empty; was it downloaded completely?";

/// A name beside `path` that nobody else uses.
std::filesystem::path temporary_name(const std::filesystem::path& path) {
  static constexpr char kDigits[] = "0123456789abcdef";
  std::random_device random;
  std::filesystem::path name = path;
  name += ".tmp-";
  for (int i = 0; i < 12; ++i) name += kDigits[random() % 16];
  return name;
}

/// The file that a new one of the name `path` replaces: a link's target rather than the link, and
/// never what is no regular file, such as a folder or a device.
Result<std::filesystem::path> replaceable(const std::filesystem::path& path) {
  std::error_code error;
  const auto status = std::filesystem::status(path, error);
  if (!std::filesystem::exists(status)) return path;
  if (!std::filesystem::is_regular_file(status))
    return Status(Code::io, cat("cannot replace ", path.string(), ": it is not a regular file"));
  auto target = std::filesystem::canonical(path, error);
  if (error) return Status(Code::io, cat("cannot replace ", path.string(), ": ", error.message()));
  return target;
}

}  // namespace

MappedFile::MappedFile(MappedFile&& other) noexcept : bytes_(std::exchange(other.bytes_, {})) {}

MappedFile& MappedFile::operator=(MappedFile&& other) noexcept {
  std::swap(bytes_, other.bytes_);
  return *this;
}

#ifndef _WIN32

namespace {

/// An open file descriptor.
class Descriptor {
 public:
  explicit Descriptor(int number) : number_(number) {}
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;
  ~Descriptor() { close(); }

  operator int() const { return number_; }
  bool close() { return number_ < 0 || ::close(std::exchange(number_, -1)) == 0; }

 private:
  int number_;
};

Status failed(std::string_view doing, const std::filesystem::path& path) {
  const int error = errno;
  return Status(error == ENOENT ? Code::not_found : Code::io,
                cat("cannot ", doing, " ", path.string(), ": ", std::strerror(error)));
}

bool write_all(int file, std::span<const std::byte> bytes) {
  while (!bytes.empty()) {
    const ssize_t written = ::write(file, bytes.data(), bytes.size());
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) return false;
    bytes = bytes.subspan(static_cast<std::size_t>(written));
  }
  return true;
}

}  // namespace

Result<MappedFile> MappedFile::open(const std::filesystem::path& path) {
  return guarded([&]() -> Result<MappedFile> {
    // Without O_NONBLOCK, opening a named pipe would wait for a writer.
    const Descriptor file(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
    if (file < 0) return failed("open", path);
    struct stat status;
    if (::fstat(file, &status) != 0) return failed("read", path);
    if (S_ISDIR(status.st_mode))
      return Status(Code::io, cat("cannot read ", path.string(), ": it is a folder"));
    if (!S_ISREG(status.st_mode))
      return Status(Code::io, cat("cannot read ", path.string(), ": it is not a regular file"));
    if (status.st_size == 0) return corrupt(path.string(), kEmpty);
    if (static_cast<std::uintmax_t>(status.st_size) > std::numeric_limits<std::size_t>::max())
      return unsupported(path.string(), " is too large for this system's address space");
    const auto size = static_cast<std::size_t>(status.st_size);
    void* memory = ::mmap(nullptr, size, PROT_READ, MAP_PRIVATE, file, 0);
    if (memory == MAP_FAILED) return failed("map", path);
    return MappedFile({static_cast<const std::byte*>(memory), size});
  });
}

MappedFile::~MappedFile() {
  if (!bytes_.empty()) ::munmap(const_cast<std::byte*>(bytes_.data()), bytes_.size());
}

void MappedFile::release(std::size_t offset, std::size_t bytes) const {
  if (offset > bytes_.size() || bytes > bytes_.size() - offset) return;
  const auto page = static_cast<std::size_t>(::sysconf(_SC_PAGESIZE));
  const std::size_t begin = (offset + page - 1) / page * page;
  const std::size_t end = (offset + bytes) / page * page;
  if (begin >= end) return;
  // Only advice: a kernel that does not take it keeps the pages, which is as correct.
  ::madvise(const_cast<std::byte*>(bytes_.data()) + begin, end - begin, MADV_DONTNEED);
}

struct NewFile::Handle {
  std::filesystem::path path, temporary;
  Descriptor file;
  bool unfinished;  ///< there is a file under the temporary name

  ~Handle() {
    if (unfinished) ::unlink(temporary.c_str());
  }
};

Result<NewFile> NewFile::create(const std::filesystem::path& name) {
  return guarded([&]() -> Result<NewFile> {
    KRAIT_ASSIGN(const std::filesystem::path path, replaceable(name));
    const std::filesystem::path temporary = temporary_name(path);
    const int file = ::open(temporary.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
    if (file < 0) return failed("create", path);
    std::unique_ptr<Handle> handle(new Handle{path, temporary, Descriptor(file), true});
    return NewFile(std::move(handle));
  });
}

Status NewFile::write(std::span<const std::byte> bytes) {
  return write_all(handle_->file, bytes) ? Status() : failed("write", handle_->path);
}

Status NewFile::commit() {
  return guarded([&]() -> Status {
    if (::fsync(handle_->file) != 0 || !handle_->file.close())
      return failed("write", handle_->path);
    if (::rename(handle_->temporary.c_str(), handle_->path.c_str()) != 0)
      return failed("replace", handle_->path);
    handle_->unfinished = false;
    // The new name is durable once its folder is; some file systems cannot sync folders.
    const std::filesystem::path& path = handle_->path;
    const std::filesystem::path folder = path.has_parent_path() ? path.parent_path() : ".";
    const Descriptor directory(::open(folder.c_str(), O_RDONLY | O_CLOEXEC));
    if (directory >= 0) (void)::fsync(directory);
    return {};
  });
}

#else  // Windows; compiled by nobody yet

namespace {

Status failed(std::string_view doing, const std::filesystem::path& path) {
  const DWORD error = ::GetLastError();
  const bool absent = error == ERROR_FILE_NOT_FOUND || error == ERROR_PATH_NOT_FOUND;
  return Status(absent ? Code::not_found : Code::io,
                cat("cannot ", doing, " ", path.string(), ": system error ", error));
}

}  // namespace

Result<MappedFile> MappedFile::open(const std::filesystem::path& path) {
  return guarded([&]() -> Result<MappedFile> {
    const HANDLE file = ::CreateFileW(path.c_str(), GENERIC_READ, FILE_SHARE_READ, nullptr,
                                      OPEN_EXISTING, FILE_ATTRIBUTE_NORMAL, nullptr);
    if (file == INVALID_HANDLE_VALUE) return failed("open", path);
    LARGE_INTEGER size{};
    const bool sized = ::GetFileSizeEx(file, &size);
    const HANDLE mapping = sized && size.QuadPart > 0
                               ? ::CreateFileMappingW(file, nullptr, PAGE_READONLY, 0, 0, nullptr)
                               : nullptr;
    void* memory = mapping ? ::MapViewOfFile(mapping, FILE_MAP_READ, 0, 0, 0) : nullptr;
    Status status = memory ? Status() : failed("map", path);
    if (mapping) ::CloseHandle(mapping);
    ::CloseHandle(file);
    if (sized && size.QuadPart == 0) return corrupt(path.string(), kEmpty);
    if (!status.ok()) return status;
    return MappedFile(
        {static_cast<const std::byte*>(memory), static_cast<std::size_t>(size.QuadPart)});
  });
}

MappedFile::~MappedFile() {
  if (!bytes_.empty()) ::UnmapViewOfFile(bytes_.data());
}

void MappedFile::release(std::size_t, std::size_t) const {}

struct NewFile::Handle {
  std::filesystem::path path, temporary;
  std::ofstream file;
  bool unfinished;

  ~Handle() {
    file.close();
    if (unfinished) ::DeleteFileW(temporary.c_str());
  }
};

Result<NewFile> NewFile::create(const std::filesystem::path& name) {
  return guarded([&]() -> Result<NewFile> {
    KRAIT_ASSIGN(const std::filesystem::path path, replaceable(name));
    const std::filesystem::path temporary = temporary_name(path);
    std::ofstream file(temporary, std::ios::binary);
    if (!file) return failed("create", path);
    std::unique_ptr<Handle> handle(new Handle{path, temporary, std::move(file), true});
    return NewFile(std::move(handle));
  });
}

Status NewFile::write(std::span<const std::byte> bytes) {
  handle_->file.write(reinterpret_cast<const char*>(bytes.data()),
                      static_cast<std::streamsize>(bytes.size()));
  return handle_->file ? Status() : failed("write", handle_->path);
}

Status NewFile::commit() {
  handle_->file.close();
  if (!handle_->file || !::MoveFileExW(handle_->temporary.c_str(), handle_->path.c_str(),
                                       MOVEFILE_REPLACE_EXISTING | MOVEFILE_WRITE_THROUGH))
    return failed("write", handle_->path);
  handle_->unfinished = false;
  return {};
}

#endif

NewFile::NewFile(std::unique_ptr<Handle> handle) : handle_(std::move(handle)) {}
NewFile::NewFile(NewFile&& other) noexcept = default;
NewFile::~NewFile() = default;

Status write_file(const std::filesystem::path& path,
                  std::span<const std::span<const std::byte>> pieces) {
  KRAIT_ASSIGN(NewFile file, NewFile::create(path));
  for (const auto& piece : pieces) KRAIT_TRY(file.write(piece));
  return file.commit();
}

}  // namespace krait
