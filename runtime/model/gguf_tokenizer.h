// Tokenizers in GGUF files.
#pragma once

#include <cstdint>
#include <optional>
#include <string_view>

#include "runtime/model/gguf.h"
#include "runtime/model/gguf_writer.h"
#include <krait/status.h>
#include <krait/tokenizer.h>

namespace krait {

/// The tokenizer that the metadata describes: a whole tokenizer.json where the file holds one
/// (tokenizer.huggingface.json), or else the arrays that llama.cpp reads (tokenizer.ggml.*), of the
/// models gpt2 and llama. not_found if there is neither.
Result<Tokenizer> gguf_tokenizer(const GgufFile& file);

/// What write_gguf_tokenizer cannot know from the tokenizer alone.
struct GgufVocabulary {
  std::int64_t size = 0;  ///< rows of the embedding; ids behind the tokenizer's become padding
  std::optional<std::int64_t> bos, eos;
};

/// Adds the tokenizer of a tokenizer.json: as it is, and as the arrays that llama.cpp reads if they
/// can express it. Whether they can is the result.
Result<bool> add_gguf_tokenizer(std::string_view tokenizer_json, const GgufVocabulary& vocabulary,
                                GgufMetadata& metadata);

}  // namespace krait
