#include "runtime/text/vocabulary.h"

#include <algorithm>
#include <cstddef>

#include "runtime/core/try.h"
#include "runtime/text/unicode.h"

namespace krait {

Result<Vocabulary> Vocabulary::create(std::vector<std::pair<std::string, std::int32_t>> entries) {
  Vocabulary vocabulary;
  std::int32_t size = 0;
  for (const auto& [piece, id] : entries) {
    if (id < 0 || id >= kMaxSize) {
      return corrupt("[tokenizer] vocabulary: ", excerpt(piece), " has id ", id, ": expected 0 to ",
                     kMaxSize - 1);
    }
    if (find_invalid_utf8(piece) != piece.size()) {
      return corrupt("[tokenizer] vocabulary: ", excerpt(piece), " (id ", id, ") is not UTF-8");
    }
    size = std::max(size, id + 1);
  }
  vocabulary.pieces_.resize(static_cast<std::size_t>(size));
  vocabulary.ids_.reserve(entries.size());
  for (std::pair<std::string, std::int32_t>& entry : entries) {
    const std::int32_t id = entry.second;
    auto& place = vocabulary.pieces_[static_cast<std::size_t>(id)];
    if (place) {
      return corrupt("[tokenizer] vocabulary: id ", id, " belongs to both ", excerpt(*place),
                     " and ", excerpt(entry.first));
    }
    place = std::move(entry.first);
    if (const auto [first, added] = vocabulary.ids_.emplace(*place, id); !added) {
      return corrupt("[tokenizer] vocabulary: ", excerpt(*place), " has two ids, ", first->second,
                     " and ", id);
    }
  }
  return vocabulary;
}

std::optional<std::int32_t> Vocabulary::find(std::string_view piece) const {
  const auto found = ids_.find(piece);
  return found == ids_.end() ? std::nullopt : std::optional(found->second);
}

const std::string* Vocabulary::piece(std::int32_t id) const {
  if (id < 0 || id >= size()) return nullptr;
  const auto& place = pieces_[static_cast<std::size_t>(id)];
  return place ? &*place : nullptr;
}

}  // namespace krait
