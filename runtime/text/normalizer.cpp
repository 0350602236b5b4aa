#include "runtime/text/normalizer.h"

#include <cstddef>
#include <utility>

#include "runtime/core/try.h"

namespace krait {
namespace {

Status apply(NormalForm form, std::size_t, std::string& text) {
  text = normalize(text, form);
  return {};
}

Status apply(const Replacement& replacement, std::size_t limit, std::string& text) {
  std::string replaced;
  KRAIT_TRY(replace_all(replacement, text, limit, replaced));
  text = std::move(replaced);
  return {};
}

Status apply(const Prepend& prepend, std::size_t, std::string& text) {
  if (!text.empty()) text.insert(0, prepend.prefix);
  return {};
}

Status apply(Lowercase, std::size_t, std::string& text) {
  text = lowercase(text);
  return {};
}

}  // namespace

Result<std::string> normalize(const std::vector<NormalizeStep>& steps, std::string text) {
  // No real tokenizer makes text longer than this: a blank becomes three bytes, rarely more.
  const std::size_t limit = (std::size_t{1} << 16) + 64 * text.size();
  for (const NormalizeStep& step : steps) {
    KRAIT_TRY(std::visit([&](const auto& part) { return apply(part, limit, text); }, step));
  }
  return text;
}

}  // namespace krait
