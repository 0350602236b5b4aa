#include "runtime/model/safetensors.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <limits>
#include <numeric>
#include <optional>
#include <utility>

#include "runtime/core/json.h"
#include "runtime/core/try.h"
#include "runtime/model/mapped_file.h"

namespace krait {
namespace {

// The format is little-endian, and tensors are used where they lie in the file.
static_assert(std::endian::native == std::endian::little);

constexpr std::size_t kLengthBytes = 8;
constexpr std::size_t kMaxHeader = 100'000'000;
constexpr std::size_t kMaxStoredRank = 32;
constexpr std::size_t kDataAlignment = 64;
constexpr const char* kMetadataKey = "__metadata__";

/// An element type of the format; `dtype` where Krait has it.
struct StoredType {
  std::string_view name;
  std::int64_t bits;
  std::optional<DType> dtype;
};
constexpr StoredType kTypes[] = {
    {"F64", 64, DType::f64}, {"F32", 32, DType::f32},
    {"F16", 16, DType::f16}, {"BF16", 16, DType::bf16},
    {"I64", 64, DType::i64}, {"I32", 32, DType::i32},
    {"U8", 8, DType::u8},    {"I8", 8, {}},
    {"BOOL", 8, {}},         {"I16", 16, {}},
    {"U16", 16, {}},         {"U32", 32, {}},
    {"U64", 64, {}},         {"C64", 64, {}},
    {"F8_E4M3", 8, {}},      {"F8_E5M2", 8, {}},
    {"F8_E8M0", 8, {}},      {"F8_E4M3FNUZ", 8, {}},
    {"F8_E5M2FNUZ", 8, {}},  {"F6_E2M3", 6, {}},
    {"F6_E3M2", 6, {}},      {"F4", 4, {}},
};

/// Where a tensor's bytes lie in the data that follows the header.
struct Extent {
  std::size_t begin;
  std::size_t end;
};

std::optional<std::size_t> as_size(const Json& value) {
  const std::optional<std::int64_t> number = whole_number(value);
  if (!number || *number < 0) return std::nullopt;
  return static_cast<std::size_t>(*number);
}

/// The bytes that extents `dims` of elements of `bits` bits take, or nothing if that overflows.
/// Zeros count as ones, so that strides computed from the extents cannot overflow either.
std::optional<std::int64_t> bytes_of_shape(std::span<const std::int64_t> dims, std::int64_t bits) {
  std::int64_t product = bits;
  bool empty = false;
  for (const std::int64_t dim : dims) {
    empty = empty || dim == 0;
    if (__builtin_mul_overflow(product, std::max<std::int64_t>(dim, 1), &product))
      return std::nullopt;
  }
  if (empty) return 0;
  if (product % 8 != 0) return std::nullopt;
  return product / 8;
}

/// One entry of the header, without a look at the others.
Status parse_entry(const std::string& name, const Json& entry, std::span<const std::byte> data,
                   NamedTensor& tensor, Extent& extent) {
  const auto wrong = [&](const auto&... parts) {
    return corrupt("tensor ", shown(name), ": ", parts...);
  };
  if (!entry.is_object()) return wrong("expected an object with dtype, shape and data_offsets");
  const auto dtype = entry.find("dtype");
  const auto shape = entry.find("shape");
  const auto offsets = entry.find("data_offsets");
  if (dtype == entry.end() || !dtype->is_string()) return wrong("dtype is not a string");
  if (shape == entry.end() || !shape->is_array()) return wrong("shape is not a list");
  if (shape->size() > kMaxStoredRank) return wrong("it claims ", shape->size(), " dimensions");
  if (offsets == entry.end() || !offsets->is_array() || offsets->size() != 2)
    return wrong("data_offsets is not a list of two numbers");

  std::vector<std::int64_t> dims;
  for (const Json& dim : *shape) {
    const auto size = as_size(dim);
    if (!size) return wrong("shape holds something else than a size");
    dims.push_back(static_cast<std::int64_t>(*size));
  }
  const auto begin = as_size((*offsets)[0]);
  const auto end = as_size((*offsets)[1]);
  if (!begin || !end) return wrong("data_offsets are not two sizes");
  if (*begin > *end) return wrong("begins at byte ", *begin, ", after its end at ", *end);
  if (*end > data.size())
    return wrong("ends at byte ", *end, " of the data, which has only ", data.size(),
                 "; was the file cut off?");

  extent = {*begin, *end};
  tensor.name = name;
  tensor.bytes = static_cast<std::int64_t>(*end - *begin);
  const auto& type_name = dtype->get_ref<const std::string&>();
  const auto* type = std::ranges::find(kTypes, std::string_view(type_name), &StoredType::name);
  if (type == std::end(kTypes)) {
    tensor.problem = cat("elements of the unknown type ", shown(type_name));
    return {};
  }
  const auto bytes = bytes_of_shape(dims, type->bits);
  if (!bytes) return wrong(type_name, " of shape ", shape->dump(), " has no possible size");
  if (*bytes != tensor.bytes)
    return wrong(type_name, " of shape ", shape->dump(), " takes ", *bytes,
                 " bytes, but its data_offsets span ", tensor.bytes);
  if (!type->dtype) {
    tensor.problem = cat("elements of type ", type_name, ", which Krait cannot compute with");
  } else if (dims.size() > kMaxRank) {
    tensor.problem = cat(dims.size(), " dimensions; Krait's tensors have at most ", kMaxRank);
  } else {
    tensor.dtype = *type->dtype;
    tensor.shape = Shape(std::span<const std::int64_t>(dims));
    tensor.data = data.data() + *begin;
  }
  return {};
}

/// The tensors must fill the data, each byte belonging to one of them.
Status check_extents(std::span<const NamedTensor> tensors, std::span<const Extent> extents,
                     std::size_t data_bytes) {
  std::vector<std::size_t> order(tensors.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::ranges::sort(order, {},
                    [&](std::size_t i) { return std::pair(extents[i].begin, extents[i].end); });
  std::size_t reached = 0;
  for (const std::size_t i : order) {
    if (extents[i].begin < reached)
      return corrupt("tensor ", shown(tensors[i].name), " begins at byte ", extents[i].begin,
                     " of the data, inside another tensor that ends at ", reached);
    if (extents[i].begin > reached)
      return corrupt("bytes ", reached, " to ", extents[i].begin, " of the data, before tensor ",
                     shown(tensors[i].name), ", belong to no tensor");
    reached = extents[i].end;
  }
  if (reached != data_bytes)
    return corrupt("the tensors end at byte ", reached, " of the data, which has ", data_bytes);
  return {};
}

Status parse_metadata(const Json& value, Metadata& metadata) {
  if (!value.is_object()) return corrupt("__metadata__ is not an object");
  for (const auto& [key, text] : value.items()) {
    if (!text.is_string())
      return corrupt("__metadata__: the value of ", shown(key), " is not a string");
    metadata.emplace(key, text.get<std::string>());
  }
  return {};
}

Result<Json> parse_header(std::span<const std::byte> file, std::size_t& header_bytes) {
  std::uint64_t length = 0;
  if (file.size() < kLengthBytes)
    return corrupt("it has ", file.size(), " bytes, fewer than the header's length takes");
  std::memcpy(&length, file.data(), kLengthBytes);
  if (length > kMaxHeader)
    return corrupt("its header claims ", length, " bytes; at most ", kMaxHeader,
                   " are allowed. Is it a safetensors file?");
  if (length > file.size() - kLengthBytes)
    return corrupt("its header claims ", length, " bytes, but the file has only ", file.size(),
                   "; was it cut off?");
  header_bytes = static_cast<std::size_t>(length);
  const std::string_view text(reinterpret_cast<const char*>(file.data()) + kLengthBytes,
                              header_bytes);
  if (!text.starts_with('{')) return corrupt("its header does not begin with {");
  return parse_json(text, "header");
}

/// The same status, saying which file it is about.
Status about(std::string_view what, const Status& status) {
  return Status(status.code(), cat(what, ": ", status.message()));
}

std::int64_t element_bytes(const NamedTensor& tensor) {
  return info(tensor.dtype).block_bytes;
}

std::string_view stored_name(DType dtype) {
  const auto* type = std::ranges::find(kTypes, std::optional(dtype), &StoredType::dtype);
  return type == std::end(kTypes) ? std::string_view() : type->name;
}

}  // namespace

Result<SafetensorsFile> SafetensorsFile::parse(std::span<const std::byte> file,
                                               std::string_view what) {
  return guarded([&]() -> Result<SafetensorsFile> {
    std::size_t header_bytes = 0;
    Result<Json> header = parse_header(file, header_bytes);
    if (!header.ok()) return about(what, header.status());
    const std::span data = file.subspan(kLengthBytes + header_bytes);

    SafetensorsFile result;
    std::vector<Extent> extents;
    for (const auto& [name, entry] : header->items()) {  // sorted: Json's objects are
      if (name == kMetadataKey) {
        if (Status status = parse_metadata(entry, result.metadata_); !status.ok())
          return about(what, status);
        continue;
      }
      if (Status status = parse_entry(name, entry, data, result.tensors_.emplace_back(),
                                      extents.emplace_back());
          !status.ok())
        return about(what, status);
    }
    if (Status status = check_extents(result.tensors_, extents, data.size()); !status.ok())
      return about(what, status);
    return result;
  });
}

const NamedTensor* SafetensorsFile::find(std::string_view name) const {
  return find_tensor(tensors_, name);
}

const NamedTensor* find_tensor(std::span<const NamedTensor> sorted, std::string_view name) {
  const auto place = std::ranges::lower_bound(sorted, name, {}, &NamedTensor::name);
  return place != sorted.end() && place->name == name ? &*place : nullptr;
}

bool is_aligned(const NamedTensor& tensor) {
  // Blocks, too: the power of two in a block's size is what its fields need at most.
  const auto bytes = static_cast<std::uintptr_t>(element_bytes(tensor));
  return reinterpret_cast<std::uintptr_t>(tensor.data) % (bytes & ~(bytes - 1)) == 0;
}

std::optional<std::int64_t> dense_bytes(DType dtype, std::span<const std::int64_t> dims) {
  const auto& [dtype_name, block, block_bytes, floating] = info(dtype);
  if (block == 1) return bytes_of_shape(dims, block_bytes * 8);
  if (dims.empty()) return std::nullopt;
  std::vector<std::int64_t> blocks(dims.begin(), dims.end());
  blocks.back() /= block;
  return bytes_of_shape(blocks, block_bytes * 8);
}

Status check_tensor(const NamedTensor& tensor) {
  const auto wrong = [&](const auto&... parts) {
    return invalid("tensor ", shown(tensor.name), ": ", parts...);
  };
  if (!tensor.problem.empty()) return wrong(tensor.problem);
  std::vector<std::int64_t> dims;
  for (const Dim& dim : tensor.shape.span()) {
    if (dim.symbolic() || dim.value < 0) return wrong("shape ", to_string(tensor.shape));
    dims.push_back(dim.value);
  }
  if (tensor.shape.invalid()) return wrong("more than ", kMaxRank, " dimensions");
  const std::int64_t block = info(tensor.dtype).block;
  if (block > 1 && (dims.empty() || dims.back() % block != 0))
    return wrong("rows of ", krait::name(tensor.dtype), " are whole blocks of ", block,
                 " elements, got ", to_string(tensor.shape));
  const auto bytes = dense_bytes(tensor.dtype, dims);
  if (!bytes || *bytes != tensor.bytes)
    return wrong(krait::name(tensor.dtype), " ", to_string(tensor.shape), " takes ",
                 bytes ? cat(*bytes) : "too many", " bytes, got ", tensor.bytes);
  return {};
}

Status write_safetensors(const std::filesystem::path& path, std::span<const NamedTensor> tensors,
                         const Metadata& metadata) {
  return guarded([&]() -> Status {
    std::vector<const NamedTensor*> order;
    for (const NamedTensor& tensor : tensors) {
      KRAIT_TRY(check_tensor(tensor));
      if (tensor.data == nullptr && tensor.bytes > 0)
        return invalid("tensor ", shown(tensor.name), ": no data");
      if (stored_name(tensor.dtype).empty())
        return unsupported("tensor ", shown(tensor.name), ": safetensors has no ",
                           name(tensor.dtype));
      order.push_back(&tensor);
    }
    std::ranges::sort(order, {}, [](const NamedTensor* tensor) {
      return std::pair(-element_bytes(*tensor), std::string_view(tensor->name));
    });

    Json header = Json::object();
    if (!metadata.empty()) header[kMetadataKey] = metadata;
    std::vector<std::span<const std::byte>> pieces(2);
    std::int64_t offset = 0;
    for (const NamedTensor* tensor : order) {
      Json shape = Json::array();
      for (const Dim& dim : tensor->shape.span()) shape.push_back(dim.value);
      const bool inserted =
          header
              .emplace(tensor->name, Json{{"dtype", stored_name(tensor->dtype)},
                                          {"shape", std::move(shape)},
                                          {"data_offsets", {offset, offset + tensor->bytes}}})
              .second;
      if (!inserted || tensor->name == kMetadataKey)
        return invalid("tensor ", shown(tensor->name), ": the name is taken");
      pieces.emplace_back(tensor->data, static_cast<std::size_t>(tensor->bytes));
      offset += tensor->bytes;
    }

    std::string text;
    try {
      text = header.dump();
    } catch (const Json::type_error&) {
      return invalid("tensor names and metadata must be UTF-8");
    }
    const std::size_t unpadded = kLengthBytes + text.size();
    text.append((kDataAlignment - unpadded % kDataAlignment) % kDataAlignment, ' ');
    if (text.size() > kMaxHeader)
      return invalid("a header of ", text.size(), " bytes; at most ", kMaxHeader, " are allowed");
    const std::uint64_t length = text.size();
    pieces[0] = std::as_bytes(std::span(&length, 1));
    pieces[1] = std::as_bytes(std::span(text));
    return write_file(path, pieces);
  });
}

}  // namespace krait
