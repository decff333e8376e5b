#include "model/safetensors.h"

#include "base/check.h"
#include "base/hash.h"
#include "base/json.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <optional>
#include <tuple>

namespace wideep::model {
namespace {

constexpr int kHeaderDepthMax = 8;
constexpr size_t kNameBytesMax = 1024;

struct DtypeName {
  std::string_view name;
  int64_t bytes;
};

constexpr std::array<DtypeName, 16> kDtypes = {{
    {"BOOL", 1},
    {"U8", 1},
    {"I8", 1},
    {"F8_E4M3", 1},
    {"F8_E5M2", 1},
    {"F8_E8M0", 1},
    {"U16", 2},
    {"I16", 2},
    {"F16", 2},
    {"BF16", 2},
    {"U32", 4},
    {"I32", 4},
    {"F32", 4},
    {"U64", 8},
    {"I64", 8},
    {"F64", 8},
}};
static_assert(kDtypes.size() == static_cast<size_t>(Dtype::kF64) + 1);

std::optional<Dtype> parse_dtype(std::string_view text) {
  for (size_t i = 0; i < kDtypes.size(); ++i) {
    if (kDtypes[i].name == text) return static_cast<Dtype>(i);
  }
  return std::nullopt;
}

// The array of non-negative integers under `key`.
Result<std::vector<int64_t>> parse_integers(const Json& object,
                                            std::string_view key,
                                            size_t count_max) {
  const Json* value = object.find(key);
  const Json::Array* array = value == nullptr ? nullptr : value->as_array();
  if (array == nullptr) return invalid_argument("no array '{}'", key);
  if (array->size() > count_max) {
    return invalid_argument("'{}' has {} entries, at most {} allowed", key, array->size(),
                            count_max);
  }
  std::vector<int64_t> out;
  for (const Json& item : *array) {
    const std::optional<int64_t> integer = item.as_int();
    if (!integer || *integer < 0) {
      return invalid_argument("'{}' holds {}, not a count", key, item.dump().substr(0, 40));
    }
    out.push_back(*integer);
  }
  return out;
}

// Bytes of a tensor of that shape, or an error if they exceed 63 bits.
Result<int64_t> shape_bytes(std::span<const int64_t> shape, Dtype dtype) {
  int64_t bytes = bytes_of(dtype);
  for (const int64_t extent : shape) {
    if (__builtin_mul_overflow(bytes, extent, &bytes)) {
      return invalid_argument("shape {} has more than 2^63 bytes", describe_shape(shape));
    }
  }
  return bytes;
}

Result<TensorEntry> parse_entry(const std::string& name, const Json& value, int64_t data_bytes) {
  if (!value.is_object()) {
    return invalid_argument("an object is wanted, not a {}", wideep::name(value.kind()));
  }
  const Json* dtype_text = value.find("dtype");
  if (dtype_text == nullptr || dtype_text->as_string() == nullptr) {
    return invalid_argument("no string 'dtype'");
  }
  const std::optional<Dtype> dtype = parse_dtype(*dtype_text->as_string());
  if (!dtype) {
    return invalid_argument("unknown dtype '{}'", dtype_text->as_string()->substr(0, 40));
  }
  TensorEntry entry{.name = name, .dtype = *dtype};
  WD_ASSIGN_OR_RETURN(entry.shape, parse_integers(value, "shape", kSafetensorsRankMax));
  WD_ASSIGN_OR_RETURN(const std::vector<int64_t> range, parse_integers(value, "data_offsets", 2));
  if (range.size() != 2) return invalid_argument("'data_offsets' has {} entries", range.size());
  entry.begin = range[0];
  entry.end = range[1];
  if (entry.begin > entry.end) {
    return invalid_argument("data_offsets [{}, {}] are reversed", entry.begin, entry.end);
  }
  if (entry.end > data_bytes) {
    return invalid_argument("data_offsets [{}, {}] pass the end of the data ({} bytes)",
                            entry.begin, entry.end, data_bytes);
  }
  WD_ASSIGN_OR_RETURN(const int64_t bytes, shape_bytes(entry.shape, entry.dtype));
  if (bytes != entry.bytes()) {
    return invalid_argument("shape {} of {} takes {} bytes, data_offsets hold {}",
                            describe_shape(entry.shape), wideep::model::name(entry.dtype), bytes,
                            entry.bytes());
  }
  return entry;
}

Status check_contiguous(const std::vector<TensorEntry>& tensors, int64_t data_bytes) {
  int64_t position = 0;
  for (const TensorEntry& tensor : tensors) {
    if (tensor.begin != position) {
      return invalid_argument("tensor '{}': begins at {}, but the tensor before it ends at {}",
                              tensor.name, tensor.begin, position);
    }
    position = tensor.end;
  }
  if (position != data_bytes) {
    return invalid_argument("the data section has {} bytes, its tensors take {}", data_bytes,
                            position);
  }
  return {};
}

std::string base_name(const std::string& path) {
  const size_t slash = path.rfind('/');
  return slash == std::string::npos ? path : path.substr(slash + 1);
}

}  // namespace

std::string_view name(Dtype dtype) {
  return kDtypes[static_cast<size_t>(dtype)].name;
}

int64_t bytes_of(Dtype dtype) {
  return kDtypes[static_cast<size_t>(dtype)].bytes;
}

std::string describe_shape(std::span<const int64_t> shape) {
  std::string text = "[";
  for (const int64_t extent : shape)
    text += fmt::format("{}{}", text.size() > 1 ? ", " : "", extent);
  return text + "]";
}

Result<std::vector<TensorEntry>> parse_safetensors_header(std::string_view header,
                                                          int64_t data_bytes) {
  const JsonLimits limits{.depth_max = kHeaderDepthMax,
                          .values_max = kSafetensorsTensorsMax * kSafetensorsRankMax};
  auto json = parse_json(header, limits);
  if (!json) return with_context(json.error(), "header");
  const Json::Object* object = json->as_object();
  if (object == nullptr) return invalid_argument("header: no JSON object");
  if (static_cast<int64_t>(object->size()) > kSafetensorsTensorsMax) {
    return invalid_argument("header: {} tensors, at most {} allowed", object->size(),
                            kSafetensorsTensorsMax);
  }
  std::vector<TensorEntry> tensors;
  tensors.reserve(object->size());
  for (const auto& [name, value] : *object) {
    if (name == "__metadata__") continue;
    if (name.size() > kNameBytesMax) {
      return invalid_argument("header: a tensor name of {} bytes, at most {} allowed", name.size(),
                              kNameBytesMax);
    }
    auto entry = parse_entry(name, value, data_bytes);
    if (!entry) return with_context(entry.error(), fmt::format("tensor '{}'", name));
    tensors.push_back(std::move(*entry));
  }
  std::ranges::sort(tensors, [](const TensorEntry& a, const TensorEntry& b) {
    return std::tie(a.begin, a.end, a.name) < std::tie(b.begin, b.end, b.name);
  });
  WD_TRY(check_contiguous(tensors, data_bytes));
  return tensors;
}

Result<SafetensorsFile> SafetensorsFile::open(const std::string& path) {
  WD_ASSIGN_OR_RETURN(File opened, File::open(path));
  SafetensorsFile file(std::move(opened), base_name(path));
  const int64_t size = file.file_.size();
  uint64_t length = 0;
  if (size < static_cast<int64_t>(sizeof length)) {
    return invalid_argument("{}: {} bytes, too short for a header length", file.name_, size);
  }
  WD_TRY(file.file_.read_at(0, std::as_writable_bytes(std::span(&length, 1))));
  const int64_t rest = size - static_cast<int64_t>(sizeof length);
  if (length == 0 || length > static_cast<uint64_t>(kSafetensorsHeaderBytesMax)) {
    return invalid_argument("{}: a header of {} bytes, 1 to {} allowed", file.name_, length,
                            kSafetensorsHeaderBytesMax);
  }
  if (static_cast<int64_t>(length) > rest) {
    return invalid_argument("{}: a header of {} bytes, but only {} follow", file.name_, length,
                            rest);
  }
  std::string header(length, '\0');
  WD_TRY(file.file_.read_at(sizeof length, std::as_writable_bytes(std::span(header))));
  file.header_hash_ = xxh64(header);
  file.data_begin_ = static_cast<int64_t>(sizeof length + length);
  auto tensors = parse_safetensors_header(header, size - file.data_begin_);
  if (!tensors) return with_context(tensors.error(), file.name_);
  file.tensors_ = std::move(*tensors);
  return file;
}

Status SafetensorsFile::read(const TensorEntry& tensor,
                             int64_t offset,
                             std::span<std::byte> out) const {
  WD_CHECK(offset >= 0);
  WD_CHECK(offset + static_cast<int64_t>(out.size()) <= tensor.bytes());
  return file_.read_at(data_begin_ + tensor.begin + offset, out);
}

Status SafetensorsFile::read_data(int64_t offset, std::span<std::byte> out) const {
  return file_.read_at(data_begin_ + offset, out);
}

}  // namespace wideep::model
