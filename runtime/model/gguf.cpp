#include "runtime/model/gguf.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <limits>

#include "runtime/core/json.h"
#include "runtime/core/try.h"

namespace krait {
namespace {

// The format is little-endian, and tensors are used where they lie in the file.
static_assert(std::endian::native == std::endian::little);

constexpr std::string_view kMagic = "GGUF";
constexpr std::uint32_t kOldestVersion = 2, kNewestVersion = 3;
constexpr std::uint64_t kDefaultAlignment = 32, kLargestAlignment = 1 << 16;
constexpr int kMaxNesting = 4;  // of arrays; the format sets no limit

/// A type of tensors, by its number in the format; `dtype` where Krait has it.
struct TensorType {
  std::uint32_t number;
  std::string_view name;
  std::optional<DType> dtype = {};
};
constexpr TensorType kTensorTypes[] = {
    {0, "F32", DType::f32},
    {1, "F16", DType::f16},
    {2, "Q4_0", DType::q4_0},
    {3, "Q4_1", DType::q4_1},
    {6, "Q5_0", DType::q5_0},
    {7, "Q5_1", DType::q5_1},
    {8, "Q8_0", DType::q8_0},
    {9, "Q8_1"},
    {10, "Q2_K"},
    {11, "Q3_K"},
    {12, "Q4_K", DType::q4_k},
    {13, "Q5_K", DType::q5_k},
    {14, "Q6_K", DType::q6_k},
    {15, "Q8_K"},
    {16, "IQ2_XXS"},
    {17, "IQ2_XS"},
    {18, "IQ3_XXS"},
    {19, "IQ1_S"},
    {20, "IQ4_NL"},
    {21, "IQ3_S"},
    {22, "IQ2_S"},
    {23, "IQ4_XS"},
    {24, "I8"},
    {25, "I16"},
    {26, "I32", DType::i32},
    {27, "I64", DType::i64},
    {28, "F64", DType::f64},
    {29, "IQ1_M"},
    {30, "BF16", DType::bf16},
    {34, "TQ1_0"},
    {35, "TQ2_0"},
    {39, "MXFP4"},
};

/// Bytes of one value of a type of fixed size; 0 for texts and arrays.
std::size_t fixed_size(GgufType type) {
  switch (type) {
    case GgufType::u8:
    case GgufType::i8:
    case GgufType::boolean:
      return 1;
    case GgufType::u16:
    case GgufType::i16:
      return 2;
    case GgufType::u32:
    case GgufType::i32:
    case GgufType::f32:
      return 4;
    case GgufType::u64:
    case GgufType::i64:
    case GgufType::f64:
      return 8;
    case GgufType::text:
    case GgufType::array:
      return 0;
  }
  return 0;
}

/// Takes values off the front of bytes; false, and nothing taken, if there are too few.
class Cursor {
 public:
  explicit Cursor(std::span<const std::byte> bytes) : bytes_(bytes) {}

  std::size_t at() const { return at_; }
  std::size_t left() const { return bytes_.size() - at_; }
  std::span<const std::byte> since(std::size_t begin) const {
    return bytes_.subspan(begin, at_ - begin);
  }

  bool skip(std::uint64_t count) {
    if (count > left()) return false;
    at_ += static_cast<std::size_t>(count);
    return true;
  }
  template <class Number>
  bool take(Number& value) {
    if (left() < sizeof value) return false;
    std::memcpy(&value, bytes_.data() + at_, sizeof value);
    at_ += sizeof value;
    return true;
  }
  bool take(std::string_view& text) {
    std::uint64_t length = 0;
    if (!take(length) || length > left()) return false;
    text = {reinterpret_cast<const char*>(bytes_.data()) + at_, static_cast<std::size_t>(length)};
    at_ += text.size();
    return true;
  }
  bool take(GgufType& type) {
    std::uint32_t number = 0;
    if (!take(number)) return false;
    type = static_cast<GgufType>(number);
    return true;
  }

 private:
  std::span<const std::byte> bytes_;
  std::size_t at_ = 0;
};

Status cut_off(const Cursor& in) {
  return corrupt("at byte ", in.at(), ": more is announced than the file has; was it cut off?");
}

Status check_type(GgufType type) {
  if (type <= GgufType::f64) return {};
  return corrupt("metadata of type ", static_cast<std::uint32_t>(type),
                 ", which GGUF does not have");
}

/// Walks over `count` values of one type, looking at nothing but lengths.
Status skip_values(Cursor& in, GgufType type, std::uint64_t count, int nesting) {
  KRAIT_TRY(check_type(type));
  if (const std::size_t size = fixed_size(type)) {
    if (count > in.left() / size) return cut_off(in);
    in.skip(count * size);
    return {};
  }
  if (type == GgufType::array && nesting == kMaxNesting)
    return corrupt("arrays nest deeper than ", kMaxNesting);
  for (std::uint64_t i = 0; i < count; ++i) {
    std::string_view text;
    GgufType element{};
    std::uint64_t length = 0;
    if (type == GgufType::text) {
      if (!in.take(text)) return cut_off(in);
      continue;
    }
    if (!in.take(element) || !in.take(length)) return cut_off(in);
    KRAIT_TRY(skip_values(in, element, length, nesting + 1));
  }
  return {};
}

Result<GgufValue> take_value(Cursor& in) {
  GgufValue value;
  if (!in.take(value.type)) return cut_off(in);
  KRAIT_TRY(check_type(value.type));
  value.count = 1;
  if (value.type == GgufType::array && !(in.take(value.element) && in.take(value.count)))
    return cut_off(in);
  const std::size_t begin = in.at();
  const bool is_array = value.type == GgufType::array;
  KRAIT_TRY(skip_values(in, is_array ? value.element : value.type, value.count, is_array ? 1 : 0));
  value.bytes = in.since(begin);
  return value;
}

Status take_metadata(Cursor& in, std::uint64_t count, GgufFile::Metadata& metadata) {
  for (std::uint64_t i = 0; i < count; ++i) {
    std::string_view key;
    if (!in.take(key)) return cut_off(in);
    Result<GgufValue> value = take_value(in);
    if (!value.ok())
      return Status(value.status().code(), cat("key ", shown(key), ": ", value.message()));
    if (!metadata.emplace(key, *value).second) return corrupt("key ", shown(key), " occurs twice");
  }
  return {};
}

/// What the header says of a tensor; its data are looked for later.
struct Entry {
  NamedTensor tensor;
  const TensorType* type = nullptr;
  std::uint64_t offset = 0;  ///< from the beginning of the data
};

Result<Entry> take_entry(Cursor& in) {
  Entry entry;
  std::string_view name;
  std::uint32_t rank = 0, type = 0;
  if (!in.take(name) || !in.take(rank)) return cut_off(in);
  const auto wrong = [&](const auto&... parts) {
    return corrupt("tensor ", shown(name), ": ", parts...);
  };
  if (rank > kMaxRank)
    return wrong(rank, " dimensions; GGUF allows at most ", kMaxRank, ". Is the file damaged?");
  std::int64_t dims[kMaxRank] = {};
  std::int64_t elements = 1;
  for (std::uint32_t axis = rank; axis-- > 0;) {  // the format begins with the innermost
    std::uint64_t dim = 0;
    if (!in.take(dim)) return cut_off(in);
    // Zeros count as ones, so that strides computed from the extents cannot overflow either.
    if (dim > std::uint64_t{1} << 62 ||
        __builtin_mul_overflow(elements, std::max<std::int64_t>(static_cast<std::int64_t>(dim), 1),
                               &elements))
      return wrong("too many elements");
    dims[axis] = static_cast<std::int64_t>(dim);
  }
  if (!in.take(type) || !in.take(entry.offset)) return cut_off(in);

  NamedTensor& tensor = entry.tensor;
  tensor.name = name;
  const auto* found = std::ranges::find(kTensorTypes, type, &TensorType::number);
  if (found == std::end(kTensorTypes) || !found->dtype) {
    tensor.problem = cat("elements of type ",
                         found == std::end(kTensorTypes) ? cat("number ", type) : found->name,
                         ", which Krait cannot compute with");
    return entry;
  }
  tensor.dtype = *found->dtype;
  tensor.shape = Shape(std::span<const std::int64_t>(dims, rank));
  const std::int64_t block = info(tensor.dtype).block;
  if (block > 1 && (rank == 0 || dims[rank - 1] % block != 0))
    return wrong("rows of ", found->name, " are whole blocks of ", block, " elements, got ",
                 to_string(tensor.shape));
  const auto bytes = dense_bytes(tensor.dtype, std::span(dims, rank));
  if (!bytes) return wrong("too many bytes");
  tensor.bytes = *bytes;
  return entry;
}

Result<std::uint64_t> alignment(const GgufFile& file) {
  const GgufValue* value = file.value("general.alignment");
  if (!value) return kDefaultAlignment;
  const auto alignment = value->whole_number();
  if (!alignment || *alignment < 1 || static_cast<std::uint64_t>(*alignment) > kLargestAlignment ||
      !std::has_single_bit(static_cast<std::uint64_t>(*alignment)))
    return corrupt("general.alignment: expected a power of two up to ", kLargestAlignment);
  return static_cast<std::uint64_t>(*alignment);
}

/// Finds the tensors' bytes in the data that follow the header.
Status place(std::vector<Entry>& entries, std::span<const std::byte> data,
             std::uint64_t alignment) {
  for (Entry& entry : entries) {
    NamedTensor& tensor = entry.tensor;
    const auto wrong = [&](const auto&... parts) {
      return corrupt("tensor ", shown(tensor.name), ": ", parts...);
    };
    if (entry.offset % alignment != 0)
      return wrong("begins at byte ", entry.offset, " of the data, expected a multiple of ",
                   alignment);
    const auto bytes = static_cast<std::uint64_t>(tensor.bytes);
    if (entry.offset > data.size() || bytes > data.size() - entry.offset)
      return wrong(bytes, " bytes from byte ", entry.offset, " of the data, which has only ",
                   data.size(), "; was the file cut off?");
    if (tensor.problem.empty()) tensor.data = data.data() + entry.offset;
  }
  std::ranges::sort(entries, {}, &Entry::offset);
  std::uint64_t reached = 0;
  for (const Entry& entry : entries) {
    if (entry.tensor.bytes == 0) continue;
    if (entry.offset < reached)
      return corrupt("tensor ", shown(entry.tensor.name), " begins at byte ", entry.offset,
                     " of the data, inside another tensor that ends at ", reached);
    reached = entry.offset + static_cast<std::uint64_t>(entry.tensor.bytes);
  }
  return {};
}

template <class Number>
Number read(const std::byte* from) {
  Number number;
  std::memcpy(&number, from, sizeof number);
  return number;
}

std::optional<std::int64_t> whole_number_at(GgufType type, const std::byte* at) {
  switch (type) {
    case GgufType::u8:
      return read<std::uint8_t>(at);
    case GgufType::i8:
      return read<std::int8_t>(at);
    case GgufType::u16:
      return read<std::uint16_t>(at);
    case GgufType::i16:
      return read<std::int16_t>(at);
    case GgufType::u32:
      return read<std::uint32_t>(at);
    case GgufType::i32:
      return read<std::int32_t>(at);
    case GgufType::i64:
      return read<std::int64_t>(at);
    case GgufType::u64:
      if (const auto number = read<std::uint64_t>(at);
          number <= std::uint64_t{std::numeric_limits<std::int64_t>::max()})
        return static_cast<std::int64_t>(number);
      return std::nullopt;
    default:
      return std::nullopt;
  }
}

std::optional<double> number_at(GgufType type, const std::byte* at) {
  if (type == GgufType::f32) return read<float>(at);
  if (type == GgufType::f64) return read<double>(at);
  const auto whole = whole_number_at(type, at);
  return whole ? std::optional(static_cast<double>(*whole)) : std::nullopt;
}

/// All elements of an array, if `at` yields each of them.
template <class Element, class At>
std::optional<std::vector<Element>> elements(const GgufValue& value, At at) {
  const std::size_t size = fixed_size(value.element);
  if (value.type != GgufType::array || size == 0) return std::nullopt;
  std::vector<Element> list;
  list.reserve(static_cast<std::size_t>(value.count));
  for (std::uint64_t i = 0; i < value.count; ++i) {
    const auto element = at(value.element, value.bytes.data() + i * size);
    if (!element) return std::nullopt;
    list.push_back(*element);
  }
  return list;
}

}  // namespace

std::optional<std::int64_t> GgufValue::whole_number() const {
  return whole_number_at(type, bytes.data());
}

std::optional<double> GgufValue::number() const {
  return number_at(type, bytes.data());
}

std::optional<bool> GgufValue::boolean() const {
  if (type != GgufType::boolean) return std::nullopt;
  return bytes[0] != std::byte{0};
}

std::optional<std::string_view> GgufValue::text() const {
  std::string_view text;
  if (type != GgufType::text || !Cursor(bytes).take(text)) return std::nullopt;
  return text;
}

std::optional<std::vector<std::string_view>> GgufValue::texts() const {
  if (type != GgufType::array || element != GgufType::text) return std::nullopt;
  std::vector<std::string_view> list(static_cast<std::size_t>(count));
  Cursor in(bytes);
  for (std::string_view& text : list) in.take(text);
  return list;
}

std::optional<std::vector<std::int64_t>> GgufValue::whole_numbers() const {
  return elements<std::int64_t>(*this, whole_number_at);
}

std::optional<std::vector<double>> GgufValue::numbers() const {
  return elements<double>(*this, number_at);
}

Result<GgufFile> GgufFile::parse(std::span<const std::byte> file, std::string_view what) {
  const auto parse_all = [&]() -> Result<GgufFile> {
    Cursor in(file);
    std::uint32_t magic = 0, version = 0;
    std::uint64_t tensor_count = 0, metadata_count = 0;
    if (!looks_like_gguf(file)) return corrupt("it does not begin with ", kMagic);
    if (!in.take(magic) || !in.take(version)) return cut_off(in);
    if (version << 16 == 0)
      return unsupported("it is big-endian, or damaged; Krait reads little-endian GGUF files");
    if (version < kOldestVersion || version > kNewestVersion)
      return unsupported("it has version ", version, "; Krait reads GGUF versions ", kOldestVersion,
                         " and ", kNewestVersion);
    if (!in.take(tensor_count) || !in.take(metadata_count)) return cut_off(in);

    GgufFile result;
    KRAIT_TRY(take_metadata(in, metadata_count, result.metadata_));
    std::vector<Entry> entries;
    for (std::uint64_t i = 0; i < tensor_count; ++i) {
      KRAIT_ASSIGN(Entry entry, take_entry(in));
      entries.push_back(std::move(entry));
    }
    KRAIT_ASSIGN(const std::uint64_t aligned_to, alignment(result));
    in.skip(std::min<std::uint64_t>((aligned_to - in.at() % aligned_to) % aligned_to, in.left()));
    KRAIT_TRY(place(entries, file.subspan(in.at()), aligned_to));

    for (Entry& entry : entries) result.tensors_.push_back(std::move(entry.tensor));
    std::ranges::sort(result.tensors_, {}, &NamedTensor::name);
    const auto twice = std::ranges::adjacent_find(result.tensors_, {}, &NamedTensor::name);
    if (twice != result.tensors_.end())
      return corrupt("tensor ", shown(twice->name), " occurs twice");
    return result;
  };
  return guarded([&]() -> Result<GgufFile> {
    Result<GgufFile> result = parse_all();
    if (result.ok()) return result;
    return Status(result.status().code(), cat(what, ": ", result.message()));
  });
}

const GgufValue* GgufFile::value(std::string_view key) const {
  const auto found = metadata_.find(key);
  return found == metadata_.end() ? nullptr : &found->second;
}

bool looks_like_gguf(std::span<const std::byte> begin) {
  return begin.size() >= kMagic.size() &&
         std::memcmp(begin.data(), kMagic.data(), kMagic.size()) == 0;
}

std::optional<std::uint32_t> gguf_tensor_type(DType dtype) {
  const auto* found = std::ranges::find(kTensorTypes, std::optional(dtype), &TensorType::dtype);
  if (found == std::end(kTensorTypes)) return std::nullopt;
  return found->number;
}

}  // namespace krait
