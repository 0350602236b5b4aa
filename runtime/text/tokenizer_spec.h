// What a tokenizer consists of, whichever format it came from.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "runtime/text/bpe.h"
#include "runtime/text/decoder.h"
#include "runtime/text/normalizer.h"
#include "runtime/text/pre_tokenizer.h"
#include <krait/tokenizer.h>

namespace krait {

struct TokenizerSpec {
  std::vector<std::pair<std::string, std::int32_t>> vocabulary;
  std::vector<Merge> merges;
  BpeOptions bpe;
  std::vector<NormalizeStep> normalizer;
  std::vector<PreTokenStep> pre_tokenizer;
  std::vector<DecodeStep> decoder;
  std::vector<AddedToken> added;
  std::vector<std::int32_t> before, after;  // what add_special puts around the text
  std::optional<std::int32_t> bos, eos;
};

/// From a tokenizer.json.
Result<TokenizerSpec> read_tokenizer_json(std::string_view json);

/// From the arrays of a GGUF file.
Result<TokenizerSpec> read_tokenizer_parts(TokenizerParts parts);

/// The merge that "left right" describes. A piece can be anything but a blank.
Result<Merge> parse_merge(std::string_view text, std::size_t rank);

}  // namespace krait
