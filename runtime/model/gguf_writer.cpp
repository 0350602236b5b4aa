#include "runtime/model/gguf_writer.h"

#include <algorithm>
#include <set>

#include "runtime/core/json.h"
#include "runtime/core/try.h"
#include "runtime/model/mapped_file.h"

namespace krait {
namespace {

constexpr std::uint32_t kVersion = 3;
constexpr std::uint64_t kAlignment = 32;  // what readers assume where nothing is said

template <class Number>
void put(std::string& bytes, Number number) {
  bytes.append(reinterpret_cast<const char*>(&number), sizeof number);
}
void put(std::string& bytes, std::string_view text) {
  put(bytes, static_cast<std::uint64_t>(text.size()));
  bytes.append(text);
}

std::uint64_t padding(std::uint64_t at) {
  return (kAlignment - at % kAlignment) % kAlignment;
}

std::span<const std::byte> as_bytes(std::string_view text) {
  return std::as_bytes(std::span(text));
}

Status check(const NamedTensor& tensor) {
  const auto wrong = [&](const auto&... parts) {
    return invalid("tensor ", shown(tensor.name), ": ", parts...);
  };
  KRAIT_TRY(check_tensor(tensor));
  if (!gguf_tensor_type(tensor.dtype)) return wrong("GGUF has no ", name(tensor.dtype));
  return {};
}

}  // namespace

void GgufMetadata::begin(std::string_view key, GgufType type) {
  put(bytes_, key);
  put(bytes_, static_cast<std::uint32_t>(type));
  ++count_;
}

void GgufMetadata::add(std::string_view key, std::uint32_t value) {
  begin(key, GgufType::u32);
  put(bytes_, value);
}
void GgufMetadata::add(std::string_view key, float value) {
  begin(key, GgufType::f32);
  put(bytes_, value);
}
void GgufMetadata::add(std::string_view key, bool value) {
  begin(key, GgufType::boolean);
  put(bytes_, static_cast<std::uint8_t>(value));
}
void GgufMetadata::add(std::string_view key, std::string_view value) {
  begin(key, GgufType::text);
  put(bytes_, value);
}
void GgufMetadata::add(std::string_view key, std::span<const std::string> values) {
  begin(key, GgufType::array);
  put(bytes_, static_cast<std::uint32_t>(GgufType::text));
  put(bytes_, static_cast<std::uint64_t>(values.size()));
  for (const std::string& value : values) put(bytes_, std::string_view(value));
}
void GgufMetadata::add(std::string_view key, std::span<const std::int32_t> values) {
  begin(key, GgufType::array);
  put(bytes_, static_cast<std::uint32_t>(GgufType::i32));
  put(bytes_, static_cast<std::uint64_t>(values.size()));
  for (const std::int32_t value : values) put(bytes_, value);
}
void GgufMetadata::add(std::string_view key, const GgufValue& value) {
  begin(key, value.type);
  if (value.type == GgufType::array) {
    put(bytes_, static_cast<std::uint32_t>(value.element));
    put(bytes_, value.count);
  }
  bytes_.append(reinterpret_cast<const char*>(value.bytes.data()), value.bytes.size());
}

Status write_gguf(const std::filesystem::path& path, const GgufMetadata& metadata,
                  std::span<const NamedTensor> tensors, const TensorBytes& bytes_of_tensor) {
  return guarded([&]() -> Status {
    std::string header = "GGUF";
    put(header, kVersion);
    put(header, static_cast<std::uint64_t>(tensors.size()));
    put(header, metadata.count());
    header.append(metadata.bytes());
    std::set<std::string_view> names;
    std::uint64_t offset = 0;
    for (const NamedTensor& tensor : tensors) {
      KRAIT_TRY(check(tensor));
      if (!names.insert(tensor.name).second)
        return invalid("tensor ", shown(tensor.name), ": the name is taken");
      put(header, std::string_view(tensor.name));
      put(header, static_cast<std::uint32_t>(tensor.shape.rank()));
      for (int axis = tensor.shape.rank(); axis-- > 0;)
        put(header, static_cast<std::uint64_t>(tensor.shape[axis].value));
      put(header, *gguf_tensor_type(tensor.dtype));
      put(header, offset);
      offset += static_cast<std::uint64_t>(tensor.bytes);
      offset += padding(offset);
    }
    header.append(padding(header.size()), '\0');

    KRAIT_ASSIGN(NewFile file, NewFile::create(path));
    KRAIT_TRY(file.write(as_bytes(header)));
    const std::string zeros(kAlignment, '\0');
    for (std::size_t i = 0; i < tensors.size(); ++i) {
      KRAIT_ASSIGN(const std::span<const std::byte> bytes, bytes_of_tensor(i));
      if (static_cast<std::int64_t>(bytes.size()) != tensors[i].bytes)
        return invalid("tensor ", shown(tensors[i].name), ": expected ", tensors[i].bytes,
                       " bytes, got ", bytes.size());
      KRAIT_TRY(file.write(bytes));
      KRAIT_TRY(file.write(as_bytes(zeros).first(padding(bytes.size()))));
    }
    return file.commit();
  });
}

}  // namespace krait
