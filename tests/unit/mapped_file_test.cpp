#include "runtime/model/mapped_file.h"

#include <cstring>
#include <fstream>
#include <gtest/gtest.h>
#include <string>
#include <sys/stat.h>
#include <unistd.h>

namespace krait {
namespace {

namespace fs = std::filesystem;

class MappedFileTest : public testing::Test {
 protected:
  MappedFileTest() {
    fs::remove_all(folder_);
    fs::create_directories(folder_);
  }
  ~MappedFileTest() override { fs::remove_all(folder_); }

  fs::path write(const std::string& name, const std::string& text) {
    std::ofstream(folder_ / name, std::ios::binary) << text;
    return folder_ / name;
  }
  void expect_refused(const fs::path& path, Code code, std::string_view part) {
    Result<MappedFile> file = MappedFile::open(path);
    ASSERT_FALSE(file.ok());
    EXPECT_EQ(file.status().code(), code) << file.message();
    EXPECT_NE(file.message().find(path.string()), std::string::npos) << file.message();
    EXPECT_NE(file.message().find(part), std::string::npos) << file.message();
  }
  static std::span<const std::byte> bytes_of(std::string_view text) {
    return std::as_bytes(std::span(text));
  }

  fs::path folder_ =
      fs::path(testing::TempDir()) / ("krait-mapped-file-" + std::to_string(::getpid()));
};

TEST_F(MappedFileTest, HoldsTheFilesBytes) {
  Result<MappedFile> file = MappedFile::open(write("a", "hello"));
  ASSERT_TRUE(file.ok()) << file.message();
  EXPECT_EQ(file->text(), "hello");
  EXPECT_EQ(file->bytes().size(), 5u);
}

TEST_F(MappedFileTest, MovesWithoutCopying) {
  Result<MappedFile> first = MappedFile::open(write("a", "first"));
  Result<MappedFile> second = MappedFile::open(write("b", "second"));
  ASSERT_TRUE(first.ok() && second.ok());
  const std::byte* data = first->bytes().data();
  MappedFile moved = std::move(*first);
  EXPECT_EQ(moved.bytes().data(), data);
  EXPECT_TRUE(first->bytes().empty());
  moved = std::move(*second);
  EXPECT_EQ(moved.text(), "second");
}

TEST_F(MappedFileTest, ReleasedPagesComeBack) {
  const std::string text(100000, 'x');
  Result<MappedFile> file = MappedFile::open(write("a", text));
  ASSERT_TRUE(file.ok()) << file.message();
  file->release(0, 100000);
  file->release(5, 99000);
  file->release(1, 10);
  file->release(99999, 1);
  EXPECT_EQ(file->text(), text);
  // Ranges outside the file are ignored.
  file->release(100000, 1);
  file->release(1, 100000);
  file->release(std::size_t(-1), 2);
  file->release(0, std::size_t(-1));
  EXPECT_EQ(file->text(), text);
}

TEST_F(MappedFileTest, RefusesWhatCannotBeMapped) {
  expect_refused(folder_ / "absent", Code::not_found, "No such file");
  expect_refused(folder_ / "absent" / "x", Code::not_found, "No such file");
  expect_refused(folder_, Code::io, "it is a folder");
  expect_refused(write("empty", ""), Code::corrupt, "is empty");
  ASSERT_EQ(::mkfifo((folder_ / "pipe").c_str(), 0600), 0);
  expect_refused(folder_ / "pipe", Code::io, "not a regular file");
  fs::create_symlink(folder_ / "loop", folder_ / "loop");
  expect_refused(folder_ / "loop", Code::io, "cannot open");
}

TEST_F(MappedFileTest, RefusesAnUnreadableFile) {
  const fs::path path = write("secret", "x");
  fs::permissions(path, fs::perms::none);
  // Root may read everything, so it becomes somebody else for a moment.
  const uid_t user = ::geteuid();
  if (user == 0) {
    ASSERT_EQ(::seteuid(65534), 0);
  }
  expect_refused(path, Code::io, "Permission denied");
  ASSERT_EQ(::seteuid(user), 0);
}

TEST_F(MappedFileTest, WritesPiecesAsOneFile) {
  const std::string_view first = "hello ", second = "world";
  const std::span<const std::byte> pieces[] = {bytes_of(first), {}, bytes_of(second)};
  const fs::path path = write("a", "the old text");
  ASSERT_TRUE(write_file(path, pieces).ok());
  Result<MappedFile> file = MappedFile::open(path);
  ASSERT_TRUE(file.ok()) << file.message();
  EXPECT_EQ(file->text(), "hello world");
}

TEST_F(MappedFileTest, AFailedWriteLeavesNothingBehind) {
  const std::string_view text = "x";
  const std::span<const std::byte> pieces[] = {bytes_of(text)};
  const Status absent = write_file(folder_ / "absent" / "x", pieces);
  EXPECT_EQ(absent.code(), Code::not_found) << absent.message();
  EXPECT_NE(absent.message().find("absent"), std::string::npos);

  fs::create_directories(folder_ / "taken" / "inside");
  const Status taken = write_file(folder_ / "taken", pieces);
  EXPECT_EQ(taken.code(), Code::io) << taken.message();
  EXPECT_EQ(std::distance(fs::directory_iterator(folder_), fs::directory_iterator()), 1);
}

TEST_F(MappedFileTest, ReplacesWhatALinkLeadsTo) {
  const std::string_view text = "new";
  const std::span<const std::byte> pieces[] = {bytes_of(text)};
  const fs::path target = write("target", "old");
  fs::create_directories(folder_ / "links");
  fs::create_symlink("../target", folder_ / "links" / "link");
  ASSERT_TRUE(write_file(folder_ / "links" / "link", pieces).ok());
  EXPECT_TRUE(fs::is_symlink(folder_ / "links" / "link"));
  Result<MappedFile> file = MappedFile::open(target);
  ASSERT_TRUE(file.ok()) << file.message();
  EXPECT_EQ(file->text(), "new");
}

TEST_F(MappedFileTest, LeavesAPipeAlone) {
  const std::string_view text = "x";
  const std::span<const std::byte> pieces[] = {bytes_of(text)};
  const fs::path pipe = folder_ / "pipe";
  ASSERT_EQ(::mkfifo(pipe.c_str(), 0600), 0);
  const Status status = write_file(pipe, pieces);
  EXPECT_EQ(status.code(), Code::io) << status.message();
  EXPECT_NE(status.message().find("not a regular file"), std::string::npos) << status.message();
  EXPECT_TRUE(fs::is_fifo(pipe));
}

TEST_F(MappedFileTest, AWriteThatStopsHalfWayLeavesTheOldFile) {
  // Bytes that cannot be read make the write fail half-way, as a full disk would.
  const std::string good(1 << 20, 'x');
  const std::span<const std::byte> bad(reinterpret_cast<const std::byte*>(16), 4096);
  const std::span<const std::byte> pieces[] = {bytes_of(good), bad};
  const fs::path path = write("a", "the old text");
  const Status status = write_file(path, pieces);
  EXPECT_EQ(status.code(), Code::io) << status.message();
  EXPECT_EQ(std::distance(fs::directory_iterator(folder_), fs::directory_iterator()), 1);
  Result<MappedFile> file = MappedFile::open(path);
  ASSERT_TRUE(file.ok()) << file.message();
  EXPECT_EQ(file->text(), "the old text");
}

}  // namespace
}  // namespace krait
