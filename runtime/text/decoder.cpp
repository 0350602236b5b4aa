#include "runtime/text/decoder.h"

#include <algorithm>
#include <optional>

#include "runtime/core/try.h"
#include "runtime/text/byte_alphabet.h"
#include "runtime/text/unicode.h"

namespace krait {
namespace {

class Output final : public DecodeStage {
 public:
  explicit Output(std::string* out) : out_(out) {}
  Status push(std::string_view part) override {
    *out_ += part;
    return {};
  }
  Status flush() override { return {}; }

 private:
  std::string* out_;
};

class Bytes final : public DecodeStage {
 public:
  explicit Bytes(DecodeStage& next) : next_(next) {}

  Status push(std::string_view piece) override {
    text_.clear();
    // A piece with a character outside the alphabet was added as text: its bytes are meant.
    if (all_spell_bytes(piece)) {
      for (std::size_t at = 0; at < piece.size();) {
        const auto byte = kCharToByte[next_char(piece, at)];
        bytes_.push(static_cast<unsigned char>(byte), text_);
      }
    } else {
      for (const char c : piece) bytes_.push(static_cast<unsigned char>(c), text_);
    }
    return text_.empty() ? Status() : next_.push(text_);
  }
  Status flush() override {
    text_.clear();
    bytes_.flush(text_);
    if (!text_.empty()) KRAIT_TRY(next_.push(text_));
    return next_.flush();
  }

 private:
  static bool all_spell_bytes(std::string_view piece) {
    for (std::size_t at = 0; at < piece.size();) {
      const char32_t c = next_char(piece, at);
      if (c >= kByteChars || kCharToByte[c] < 0) return false;
    }
    return true;
  }

  DecodeStage& next_;
  Utf8Assembler bytes_{Utf8Assembler::Lossy::per_sequence};
  std::string text_;
};

/// The byte that a piece such as <0x0A> means.
std::optional<unsigned char> fallback_byte(std::string_view piece) {
  if (piece.size() != 6 || !piece.starts_with("<0x") || piece[5] != '>') return std::nullopt;
  int byte = 0;
  for (const char c : piece.substr(3, 2)) {
    int digit = -1;
    if (c >= '0' && c <= '9') digit = c - '0';
    if (c >= 'A' && c <= 'F') digit = c - 'A' + 10;
    if (c >= 'a' && c <= 'f') digit = c - 'a' + 10;
    if (digit < 0) return std::nullopt;
    byte = byte * 16 + digit;
  }
  return static_cast<unsigned char>(byte);
}

/// Where a row of bytes holds both good and broken characters, Hugging Face gives up the good ones
/// too. That is known only at the end of the row, so a stream would have to wait for it; here each
/// character stands for itself, and each byte that is part of none becomes U+FFFD.
class ByteFallback final : public DecodeStage {
 public:
  explicit ByteFallback(DecodeStage& next) : next_(next) {}

  Status push(std::string_view piece) override {
    if (const auto byte = fallback_byte(piece)) {
      text_.clear();
      bytes_.push(*byte, text_);
      return text_.empty() ? Status() : next_.push(text_);
    }
    KRAIT_TRY(end_row());
    return next_.push(piece);
  }
  Status flush() override {
    KRAIT_TRY(end_row());
    return next_.flush();
  }

 private:
  Status end_row() {
    text_.clear();
    bytes_.flush(text_);
    return text_.empty() ? Status() : next_.push(text_);
  }

  DecodeStage& next_;
  Utf8Assembler bytes_{Utf8Assembler::Lossy::per_byte};
  std::string text_;
};

class Metaspace final : public DecodeStage {
 public:
  Metaspace(const DecodeMetaspace& step, DecodeStage& next) : step_(step), next_(next) {}

  Status push(std::string_view piece) override {
    text_.clear();
    const bool strip = first_ && step_.strip_first;
    first_ = false;
    std::size_t done = 0;
    for (std::size_t at; (at = piece.find(step_.marker, done)) != std::string_view::npos;) {
      text_.append(piece, done, at - done);
      if (!strip) text_ += ' ';
      done = at + step_.marker.size();
    }
    text_.append(piece, done);
    return next_.push(text_);
  }
  Status flush() override {
    first_ = true;
    return next_.flush();
  }

 private:
  const DecodeMetaspace& step_;
  DecodeStage& next_;
  bool first_ = true;
  std::string text_;
};

class Join final : public DecodeStage {
 public:
  explicit Join(DecodeStage& next) : next_(next) {}

  Status push(std::string_view piece) override {
    if (!first_) KRAIT_TRY(next_.push(" "));
    first_ = false;
    return next_.push(piece);
  }
  Status flush() override {
    first_ = true;
    return next_.flush();
  }

 private:
  DecodeStage& next_;
  bool first_ = true;
};

/// A stage that edits text and may hold back its end. Before the pieces are fused, each piece is a
/// text of its own.
class Edit : public DecodeStage {
 public:
  Edit(bool fused, DecodeStage& next) : fused_(fused), next_(next) {}

  Status push(std::string_view part) final {
    text_.clear();
    KRAIT_TRY(feed(part, text_));
    if (!fused_) KRAIT_TRY(finish(text_));
    return fused_ && text_.empty() ? Status() : next_.push(text_);
  }
  Status flush() final {
    if (fused_) {
      text_.clear();
      KRAIT_TRY(finish(text_));
      if (!text_.empty()) KRAIT_TRY(next_.push(text_));
    }
    return next_.flush();
  }

 protected:
  virtual Status feed(std::string_view part, std::string& out) = 0;
  /// Appends what was held back, and begins a new text.
  virtual Status finish(std::string& out) = 0;

 private:
  const bool fused_;
  DecodeStage& next_;
  std::string text_;
};

class Strip final : public Edit {
 public:
  Strip(const DecodeStrip& step, bool fused, DecodeStage& next) : Edit(fused, next), step_(step) {}

 private:
  Status feed(std::string_view part, std::string& out) override {
    const std::string& content = step_.content;
    while (stripping_ && !part.empty()) {
      stripping_ = stripped_ < step_.start && part.starts_with(content);
      if (!stripping_) break;
      part.remove_prefix(content.size());
      ++stripped_;
    }
    // `held_` times the content stand at the end so far; only the last `stop` of them may go.
    std::size_t tail = 0;
    std::string_view rest = part;
    while (rest.ends_with(content)) {
      rest.remove_suffix(content.size());
      ++tail;
    }
    if (!rest.empty()) release(held_, out);
    out += rest;
    held_ += tail;
    if (held_ > step_.stop) release(held_ - step_.stop, out);
    return {};
  }
  Status finish(std::string&) override {
    stripping_ = true;
    stripped_ = 0;
    held_ = 0;
    return {};
  }
  void release(std::size_t count, std::string& out) {
    for (std::size_t i = 0; i < count; ++i) out += step_.content;
    held_ -= count;
  }

  const DecodeStrip& step_;
  bool stripping_ = true;  // still at the beginning of the text
  std::size_t stripped_ = 0;
  std::size_t held_ = 0;
};

/// No decoder of a real tokenizer makes that much of one piece.
constexpr std::size_t kMostText = std::size_t{1} << 24;

class Replace final : public Edit {
 public:
  Replace(const Replacement& step, bool fused, DecodeStage& next)
      : Edit(fused, next), step_(step) {}

 private:
  Status feed(std::string_view part, std::string& out) override {
    held_ += part;
    const auto* literal = std::get_if<std::string>(&step_.pattern);
    if (literal == nullptr) return {};  // an expression needs all of the piece
    // The text up to the end of the last match is certain, and so is what follows it, less an end
    // that the pattern may begin with.
    std::size_t done = 0;
    for (std::size_t at; (at = held_.find(*literal, done)) != std::string_view::npos;) {
      done = at + literal->size();
    }
    std::size_t keep = std::min(held_.size() - done, literal->size() - 1);
    while (!held_.ends_with(std::string_view(*literal).substr(0, keep))) --keep;
    const std::size_t certain = held_.size() - keep;
    KRAIT_TRY(replace_all(step_, std::string_view(held_).substr(0, certain), kMostText, out));
    held_.erase(0, certain);
    return {};
  }
  Status finish(std::string& out) override {
    KRAIT_TRY(replace_all(step_, held_, kMostText, out));
    held_.clear();
    return {};
  }

  const Replacement& step_;
  std::string held_;
};

/// Whether the text behind a step is one, given whether the text before it is.
bool fuses(const DecodeStep& step, bool fused) {
  return fused || std::holds_alternative<DecodeBytes>(step) ||
         std::holds_alternative<DecodeFuse>(step);
}

}  // namespace

Status check_decoder(const std::vector<DecodeStep>& steps) {
  constexpr std::size_t kMostSteps = 16;
  if (steps.size() > kMostSteps) {
    return unsupported("[tokenizer] decoder of ", steps.size(), " steps: expected at most ",
                       kMostSteps);
  }
  bool fused = false;
  for (const DecodeStep& step : steps) {
    const auto* replacement = std::get_if<Replacement>(&step);
    const bool works_on_text =
        std::holds_alternative<DecodeFuse>(step) || std::holds_alternative<DecodeStrip>(step) ||
        (replacement != nullptr && std::holds_alternative<std::string>(replacement->pattern));
    if (fused && !works_on_text) {
      return unsupported(
          "[tokenizer] decoder: only Strip, Replace of a string and Fuse can follow ByteLevel or "
          "Fuse");
    }
    fused = fuses(step, fused);
  }
  return {};
}

DecodeChain::DecodeChain(const std::vector<DecodeStep>& steps, std::string* out) {
  // Each stage needs the one after it: build from the end, knowing what is fused from the front.
  std::vector<bool> fused(steps.size() + 1, false);
  for (std::size_t i = 0; i < steps.size(); ++i) fused[i + 1] = fuses(steps[i], fused[i]);
  stages_.push_back(std::make_unique<Output>(out));
  for (std::size_t i = steps.size(); i-- > 0;) {
    DecodeStage& next = *stages_.back();
    const DecodeStep& step = steps[i];
    if (std::holds_alternative<DecodeBytes>(step)) {
      stages_.push_back(std::make_unique<Bytes>(next));
    } else if (std::holds_alternative<DecodeByteFallback>(step)) {
      stages_.push_back(std::make_unique<ByteFallback>(next));
    } else if (std::holds_alternative<DecodeJoin>(step)) {
      stages_.push_back(std::make_unique<Join>(next));
    } else if (const auto* metaspace = std::get_if<DecodeMetaspace>(&step)) {
      stages_.push_back(std::make_unique<Metaspace>(*metaspace, next));
    } else if (const auto* strip = std::get_if<DecodeStrip>(&step)) {
      stages_.push_back(std::make_unique<Strip>(*strip, fused[i], next));
    } else if (const auto* replacement = std::get_if<Replacement>(&step)) {
      stages_.push_back(std::make_unique<Replace>(*replacement, fused[i], next));
    }  // DecodeFuse is only a mark
  }
}

}  // namespace krait
