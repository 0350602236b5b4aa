// Any bytes as a safetensors file: an error, or tensors that lie in the file and fill its data.
#include <cstddef>
#include <cstdint>

#include "runtime/model/safetensors.h"
#include "tests/fuzz/require.h"

using krait::test::require;

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const auto file = std::as_bytes(std::span(data, size));
  const auto parsed = krait::SafetensorsFile::parse(file, "input");
  if (!parsed.ok()) {
    require(parsed.status().code() == krait::Code::corrupt);
    require(parsed.message().starts_with("input: ") && parsed.message().size() < 1000);
    return 0;
  }
  std::int64_t bytes = 0;
  unsigned sum = 0;
  const krait::NamedTensor* before = nullptr;
  for (const krait::NamedTensor& tensor : parsed->tensors()) {
    require(!before || before->name < tensor.name);
    require(parsed->find(tensor.name) == &tensor);
    before = &tensor;
    bytes += tensor.bytes;
    if (!tensor.problem.empty()) continue;
    require(krait::check_tensor(tensor).ok());
    (void)krait::is_aligned(tensor);
    // Reading every byte lets the sanitizer judge the offsets.
    for (std::int64_t i = 0; i < tensor.bytes; ++i) sum += static_cast<unsigned>(tensor.data[i]);
  }
  require(bytes >= 0 && bytes + 8 <= static_cast<std::int64_t>(size));
  volatile unsigned kept = sum;
  (void)kept;
  return 0;
}
