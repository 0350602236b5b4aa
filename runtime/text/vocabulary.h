// The pieces of a model and their ids, in both directions.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

#include <krait/status.h>

namespace krait {

class Vocabulary {
 public:
  /// Largest number of ids. The largest published vocabularies have a quarter of a million.
  static constexpr std::int32_t kMaxSize = 1 << 22;

  /// Ids need not be contiguous. Refuses ids out of range, an id or a piece that occurs twice, and
  /// pieces that are not UTF-8.
  static Result<Vocabulary> create(std::vector<std::pair<std::string, std::int32_t>> entries);

  Vocabulary() = default;
  Vocabulary(Vocabulary&&) = default;
  Vocabulary& operator=(Vocabulary&&) = default;

  /// The largest id + 1.
  std::int32_t size() const { return static_cast<std::int32_t>(pieces_.size()); }

  std::optional<std::int32_t> find(std::string_view piece) const;

  /// The piece of an id; null if there is none.
  const std::string* piece(std::int32_t id) const;

 private:
  std::vector<std::optional<std::string>> pieces_;          // by id
  std::unordered_map<std::string_view, std::int32_t> ids_;  // views of pieces_
};

}  // namespace krait
