// From pieces to text: a chain of stages that holds back no more than it must.
#pragma once

#include <cstddef>
#include <memory>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "runtime/text/replace.h"
#include <krait/status.h>

namespace krait {

// The steps. Pieces go in; once a step has fused them, one long text is handed on in parts.
struct DecodeBytes {};         ///< pieces in GPT-2's alphabet become the bytes they spell; fuses
struct DecodeByteFallback {};  ///< <0x00> to <0xFF> become bytes
struct DecodeFuse {};          ///< from here on the text is one
struct DecodeMetaspace {       ///< markers become blanks, and vanish from the first piece
  std::string marker;
  bool strip_first = true;
};
struct DecodeStrip {    ///< removes up to `start` and `stop` times `content` from the two ends
  std::string content;  // one character
  std::size_t start = 0;
  std::size_t stop = 0;
};
struct DecodeJoin {};  ///< puts a blank between pieces: what happens without a decoder

using DecodeStep = std::variant<DecodeBytes, DecodeByteFallback, DecodeFuse, DecodeMetaspace,
                                DecodeStrip, Replacement, DecodeJoin>;

/// A stage at work: takes a part and calls the next stage.
class DecodeStage {
 public:
  virtual ~DecodeStage() = default;
  /// `part` is a piece, or a part of the one text, in whole characters.
  virtual Status push(std::string_view part) = 0;
  /// Hands on what was held back, and begins anew.
  virtual Status flush() = 0;
};

/// Fails if a chain has steps that need pieces behind one that fuses them, or too many steps.
Status check_decoder(const std::vector<DecodeStep>& steps);

/// The steps as stages that append their text to what `out` points to. `steps` must outlive them.
class DecodeChain {
 public:
  DecodeChain(const std::vector<DecodeStep>& steps, std::string* out);

  Status push(std::string_view piece) { return stages_.back()->push(piece); }
  Status flush() { return stages_.back()->flush(); }

 private:
  std::vector<std::unique_ptr<DecodeStage>> stages_;  // the last is the first to work
};

}  // namespace krait
