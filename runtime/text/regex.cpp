#include "runtime/text/regex.h"

#include <array>
#include <cstdint>
#include <new>

#include "runtime/core/try.h"
#include "runtime/text/unicode.h"

namespace krait {
namespace {

std::string pcre2_message(int code) {
  std::array<PCRE2_UCHAR, 160> text{};
  pcre2_get_error_message(code, text.data(), text.size());
  return reinterpret_cast<const char*>(text.data());
}

}  // namespace

Result<Regex> Regex::compile(std::string_view pattern) {
  constexpr std::size_t kLongest = 1 << 16;
  if (pattern.size() > kLongest) {
    return unsupported("[tokenizer] regular expression of ", pattern.size(),
                       " bytes: expected at most ", kLongest);
  }
  KRAIT_ASSIGN(const std::string translated, to_pcre2(pattern));

  // Patterns that look at single bytes (\C) could cut a character in two. Lines end in \n alone.
  constexpr std::uint32_t kOptions =
      PCRE2_UTF | PCRE2_UCP | PCRE2_MULTILINE | PCRE2_DUPNAMES | PCRE2_NEVER_BACKSLASH_C;
  const std::unique_ptr<pcre2_compile_context, void (*)(pcre2_compile_context*)> context(
      pcre2_compile_context_create(nullptr), pcre2_compile_context_free);
  if (context == nullptr) throw std::bad_alloc();
  pcre2_set_newline(context.get(), PCRE2_NEWLINE_LF);
  int error = 0;
  std::size_t offset = 0;
  std::shared_ptr<pcre2_code> code(
      pcre2_compile(reinterpret_cast<PCRE2_SPTR>(translated.data()), translated.size(), kOptions,
                    &error, &offset, context.get()),
      pcre2_code_free);
  if (code == nullptr) {
    return unsupported("[tokenizer] regular expression ", excerpt(pattern), ": ",
                       pcre2_message(error));
  }
  // Where memory may not be made executable this fails, and matching is slower but the same.
  pcre2_jit_compile(code.get(), PCRE2_JIT_COMPLETE);
  return Regex(std::move(code));
}

RegexSearch::RegexSearch(const Regex& regex)
    : code_(regex.code_),
      data_(pcre2_match_data_create(1, nullptr)),
      context_(pcre2_match_context_create(nullptr)) {
  if (data_ == nullptr || context_ == nullptr) throw std::bad_alloc();
  // A pattern from a file may explode; these bound one match to about a second and 64 MiB.
  pcre2_set_match_limit(context_.get(), 10'000'000);
  pcre2_set_heap_limit(context_.get(), 64 * 1024);
}

void RegexSearch::start(std::string_view text) {
  text_ = text;
  at_ = 0;
  last_end_.reset();
}

Result<std::optional<Span>> RegexSearch::next() {
  const auto match = [&](std::uint32_t options) {
    return pcre2_match(code_.get(), reinterpret_cast<PCRE2_SPTR>(text_.data()), text_.size(), at_,
                       options | PCRE2_NO_UTF_CHECK, data_.get(), context_.get());
  };
  while (at_ <= text_.size()) {
    int result = match(0);
    if (result == PCRE2_ERROR_JIT_STACKLIMIT) result = match(PCRE2_NO_JIT);
    if (result == PCRE2_ERROR_NOMATCH) break;
    if (result < 0) {
      return unsupported("[tokenizer] a regular expression of the pre-tokenizer gave up on ",
                         text_.size(), " bytes of text: ", pcre2_message(result));
    }
    const std::size_t* bounds = pcre2_get_ovector_pointer(data_.get());
    const Span span{bounds[0], bounds[1]};
    if (span.begin > span.end || span.begin < last_end_.value_or(0)) {
      return unsupported("[tokenizer] a regular expression matches backwards");
    }
    if (span.begin == span.end && last_end_ == span.end) {
      if (at_ == text_.size()) break;
      at_ += char_length(static_cast<unsigned char>(text_[at_]));
      continue;
    }
    at_ = span.end;
    last_end_ = span.end;
    return std::optional(span);
  }
  at_ = text_.size() + 1;
  return std::optional<Span>();
}

}  // namespace krait
