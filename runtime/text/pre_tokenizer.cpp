#include "runtime/text/pre_tokenizer.h"

#include <cstddef>
#include <optional>

#include "runtime/core/try.h"
#include "runtime/text/byte_alphabet.h"
#include "runtime/text/unicode.h"

namespace krait {
namespace {

/// Calls `element` with every match and every stretch between matches, in order: together they are
/// the whole text. `search` is there for a regular expression.
template <class Element>
Status for_each_element(const Split& split, std::string_view text, RegexSearch* search,
                        const Element& element) {
  std::size_t done = 0;
  const auto match = [&](Span span) -> Status {
    if (span.begin > done) KRAIT_TRY(element(Span{done, span.begin}, split.invert));
    done = span.end;
    return element(span, !split.invert);
  };
  if (search != nullptr) {
    search->start(text);
    for (;;) {
      KRAIT_ASSIGN(const std::optional<Span> span, search->next());
      if (!span) break;
      KRAIT_TRY(match(*span));
    }
  } else if (const auto* literal = std::get_if<std::string>(&split.pattern)) {
    for (std::size_t at; (at = text.find(*literal, done)) != std::string_view::npos;) {
      KRAIT_TRY(match({at, at + literal->size()}));
    }
  } else {
    const CharClass in_class = std::get<CharClass>(split.pattern);
    for (std::size_t at = 0; at < text.size();) {
      const std::size_t begin = at;
      if (in_class(next_char(text, at))) KRAIT_TRY(match({begin, at}));
    }
  }
  if (done < text.size()) KRAIT_TRY(element(Span{done, text.size()}, split.invert));
  return {};
}

/// Whether a piece that ends in an element also takes the element that follows.
bool joins(SplitBehavior behavior, bool match, bool next_match) {
  switch (behavior) {
    case SplitBehavior::removed:
    case SplitBehavior::isolated:
      return false;
    case SplitBehavior::merged_with_previous:
      return !match && next_match;
    case SplitBehavior::merged_with_next:
      return match && !next_match;
    case SplitBehavior::contiguous:
      return match == next_match;
  }
  return false;
}

}  // namespace

PreTokenizer::PreTokenizer(const std::vector<PreTokenStep>& steps)
    : steps_(steps), scratch_(steps.size()) {
  for (std::size_t i = 0; i < steps.size(); ++i) {
    const auto* split = std::get_if<Split>(&steps[i]);
    const auto* regex = split == nullptr ? nullptr : std::get_if<Regex>(&split->pattern);
    if (regex != nullptr) scratch_[i].search.emplace_back(*regex);
  }
}

Status PreTokenizer::run(std::string_view text, bool at_start, const Sink& sink) {
  return run_from(0, text, at_start, sink);
}

Status PreTokenizer::run_from(std::size_t step, std::string_view piece, bool at_start,
                              const Sink& sink) {
  if (piece.empty()) return {};
  if (step == steps_.size()) return sink(piece);
  return std::visit([&](const auto& part) { return apply(part, step, piece, at_start, sink); },
                    steps_[step]);
}

Status PreTokenizer::apply(const Split& split, std::size_t step, std::string_view piece,
                           bool at_start, const Sink& sink) {
  const auto hand_on = [&](Span span) {
    return run_from(step + 1, piece.substr(span.begin, span.end - span.begin),
                    at_start && span.begin == 0, sink);
  };
  // The piece that is growing, and whether its last element is a match.
  std::optional<Span> growing;
  bool last_match = false;
  std::vector<RegexSearch>& search = scratch_[step].search;
  KRAIT_TRY(for_each_element(split, piece, search.empty() ? nullptr : &search[0],
                             [&](Span span, bool match) -> Status {
                               if (match && split.behavior == SplitBehavior::removed) return {};
                               if (growing && joins(split.behavior, last_match, match)) {
                                 growing->end = span.end;
                               } else {
                                 if (growing) KRAIT_TRY(hand_on(*growing));
                                 growing = span;
                               }
                               last_match = match;
                               return {};
                             }));
  return growing ? hand_on(*growing) : Status();
}

Status PreTokenizer::apply(const Prefix& prefix, std::size_t step, std::string_view piece,
                           bool at_start, const Sink& sink) {
  if ((prefix.only_first && !at_start) || piece.starts_with(prefix.prefix)) {
    return run_from(step + 1, piece, at_start, sink);
  }
  std::string& text = scratch_[step].text;
  text.assign(prefix.prefix).append(piece);
  return run_from(step + 1, text, at_start, sink);
}

Status PreTokenizer::apply(const ReplaceBlanks& blanks, std::size_t step, std::string_view piece,
                           bool at_start, const Sink& sink) {
  std::string& text = scratch_[step].text;
  text.clear();
  for (const char c : piece) c == ' ' ? text.append(blanks.content) : text.append(1, c);
  return run_from(step + 1, text, at_start, sink);
}

Status PreTokenizer::apply(const SpellBytes&, std::size_t step, std::string_view piece,
                           bool at_start, const Sink& sink) {
  std::string& text = scratch_[step].text;
  text.clear();
  for (const char c : piece) append_char(text, kByteToChar[static_cast<unsigned char>(c)]);
  return run_from(step + 1, text, at_start, sink);
}

}  // namespace krait
