#include "runtime/text/replace.h"

#include <optional>

#include "runtime/core/try.h"

namespace krait {

Status replace_all(const Replacement& replacement, std::string_view text, std::size_t limit,
                   std::string& out) {
  const std::size_t before = out.size();
  std::size_t done = 0;
  const auto replace = [&](Span match) -> Status {
    out.append(text, done, match.begin - done);
    out += replacement.content;
    done = match.end;
    if (out.size() - before <= limit) return {};
    return unsupported("[tokenizer] Replace makes more than ", limit, " bytes of ", text.size());
  };
  if (const auto* literal = std::get_if<std::string>(&replacement.pattern)) {
    for (std::size_t at; (at = text.find(*literal, done)) != std::string_view::npos;) {
      KRAIT_TRY(replace({at, at + literal->size()}));
    }
  } else {
    RegexSearch search(std::get<Regex>(replacement.pattern));
    search.start(text);
    for (;;) {
      KRAIT_ASSIGN(const std::optional<Span> match, search.next());
      if (!match) break;
      KRAIT_TRY(replace(*match));
    }
  }
  out.append(text, done);
  return {};
}

}  // namespace krait
