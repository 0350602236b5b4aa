// GGUF files made by hand, right or wrong.
#pragma once

#include <cstdint>
#include <initializer_list>
#include <optional>
#include <string>
#include <string_view>

#include "runtime/model/gguf.h"

namespace krait::test {

template <class Number>
std::string le(Number number) {
  return {reinterpret_cast<const char*>(&number), sizeof number};
}
inline std::string gguf_text(std::string_view text) {
  return le(std::uint64_t{text.size()}) + std::string(text);
}
inline std::string gguf_array(GgufType element, std::uint64_t count, std::string_view elements) {
  return le(static_cast<std::uint32_t>(element)) + le(count) + std::string(elements);
}
inline std::string gguf_texts(std::initializer_list<std::string_view> texts) {
  std::string elements;
  for (const std::string_view text : texts) elements += gguf_text(text);
  return gguf_array(GgufType::text, texts.size(), elements);
}

/// The parts of a file; str() puts them together.
struct GgufBytes {
  std::string magic = "GGUF";
  std::uint32_t version = 3;
  std::string metadata, entries, data;
  std::uint64_t keys = 0, tensors = 0;
  std::size_t alignment = 32;

  GgufBytes& add(std::string_view key, GgufType type, std::string_view value) {
    metadata += gguf_text(key) + le(static_cast<std::uint32_t>(type)) + std::string(value);
    ++keys;
    return *this;
  }
  GgufBytes& text(std::string_view key, std::string_view value) {
    return add(key, GgufType::text, gguf_text(value));
  }
  GgufBytes& number(std::string_view key, std::uint32_t value) {
    return add(key, GgufType::u32, le(value));
  }
  /// Extents innermost first, as the format has them.
  GgufBytes& tensor(std::string_view name, std::initializer_list<std::uint64_t> extents,
                    std::uint32_t type, std::uint64_t offset) {
    entries += gguf_text(name) + le(static_cast<std::uint32_t>(extents.size()));
    for (const std::uint64_t extent : extents) entries += le(extent);
    entries += le(type) + le(offset);
    ++tensors;
    return *this;
  }
  /// A tensor with its data, which are appended, all bytes `fill`.
  GgufBytes& tensor(std::string_view name, std::initializer_list<std::uint64_t> extents,
                    std::uint32_t type, std::size_t bytes, char fill) {
    data.append((alignment - data.size() % alignment) % alignment, '\0');
    tensor(name, extents, type, data.size());
    data.append(bytes, fill);
    return *this;
  }
  std::string str() const {
    std::string file = magic + le(version) + le(tensors) + le(keys) + metadata + entries;
    file.append((alignment - file.size() % alignment) % alignment, '\0');
    return file + data;
  }
};

}  // namespace krait::test
