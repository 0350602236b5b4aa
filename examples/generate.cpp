// Continues a text:  generate MODEL PROMPT [TOKENS [TEMPERATURE]]
#include <algorithm>
#include <cstdio>
#include <cstdlib>

#include <krait/krait.hpp>

namespace {

/// The value of a result; a failure ends the example with its message.
template <class T>
T take(krait::Result<T> result) {
  if (result.ok()) return *std::move(result);
  std::fprintf(stderr, "%s\n", result.message().c_str());
  std::exit(1);
}

// README begin
void generate(const char* folder, const char* prompt, int count, float temperature) {
  const krait::Model model = take(krait::Model::load(folder));
  const krait::Program program = take(krait::Program::create(model, take(krait::open_device())));
  krait::Session session = take(krait::Session::create(program));
  krait::Sampler sampler = take(krait::Sampler::create({.temperature = temperature, .seed = 1}));
  const krait::Tokenizer tokenizer = take(model.tokenizer());
  krait::StreamDecoder text = take(tokenizer.stream({.skip_special = true}));

  const std::vector<std::int32_t>& ends = model.info().eos;
  std::vector<std::int32_t> tokens = take(tokenizer.encode(prompt));
  krait::Logits logits = take(session.prefill(tokens));
  while (count-- > 0) {
    const std::int32_t next = sampler.sample(logits.values, tokens);
    if (std::find(ends.begin(), ends.end(), next) != ends.end()) break;
    tokens.push_back(next);
    std::fputs(take(text.push(next)).c_str(), stdout);
    logits = take(session.step(next));
  }
  std::puts(take(text.flush()).c_str());
}
// README end

}  // namespace

int main(int argc, char** argv) {
  if (argc < 3) {
    std::fputs("usage: generate MODEL PROMPT [TOKENS [TEMPERATURE]]\n", stderr);
    return 2;
  }
  generate(argv[1], argv[2], argc > 3 ? std::atoi(argv[3]) : 64,
           argc > 4 ? std::strtof(argv[4], nullptr) : 0.8f);
}
