#include "server/checkpoint/safetensors.h"

#include <algorithm>
#include <array>
#include <bit>
#include <limits>
#include <optional>
#include <set>
#include <span>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/string_view.h"
#include "nlohmann/json.hpp"
#include "server/checkpoint/json.h"

namespace gdn {
namespace {

using nlohmann::json;

static_assert(std::endian::native == std::endian::little, "tensors are used as they lie on disk");

constexpr uint64_t kLengthBytes = 8;
constexpr uint64_t kMaxHeaderBytes = 100'000'000;  // the format's own limit

template <typename... Args>
absl::Status Refuse(absl::string_view name, const Args&... what) {
  return absl::FailedPreconditionError(absl::StrCat(Printable(name), ": ", what...));
}

// Bytes of an element; nullopt for types that are not known here.
std::optional<uint64_t> ElementBytes(absl::string_view type) {
  static constexpr std::array<std::pair<absl::string_view, uint64_t>, 14> kTypes = {{
      {"BOOL", 1},
      {"U8", 1},
      {"I8", 1},
      {"F8_E5M2", 1},
      {"F8_E4M3", 1},
      {"I16", 2},
      {"U16", 2},
      {"F16", 2},
      {"BF16", 2},
      {"I32", 4},
      {"U32", 4},
      {"F32", 4},
      {"F64", 8},
      {"I64", 8},
  }};
  for (const auto& [name, bytes] : kTypes) {
    if (name == type) return bytes;
  }
  return std::nullopt;
}

// Parses the JSON text; an object, or nothing. Keys of the outermost object must be distinct.
absl::StatusOr<json> ParseObject(absl::string_view text) {
  std::set<std::string> names;
  std::optional<std::string> twice;
  const auto note_names = [&](int depth, json::parse_event_t event, json& parsed) {
    if (depth == 1 && event == json::parse_event_t::key) {
      const auto& name = parsed.get_ref<const std::string&>();
      if (!names.insert(name).second) twice = name;
    }
    return true;
  };
  json root = json::parse(text.begin(), text.end(), note_names, /*allow_exceptions=*/false);
  if (!root.is_object()) return absl::FailedPreconditionError("header: expected a JSON object");
  if (twice) return Refuse(*twice, "stated twice");
  return root;
}

// A JSON array of non-negative integers below 2^63.
std::optional<std::vector<int64_t>> Integers(const json& value) {
  if (!value.is_array()) return std::nullopt;
  std::vector<int64_t> integers;
  for (const json& element : value) {
    if (!element.is_number_unsigned()) return std::nullopt;
    const auto n = element.get<uint64_t>();
    if (n > uint64_t{std::numeric_limits<int64_t>::max()}) return std::nullopt;
    integers.push_back(static_cast<int64_t>(n));
  }
  return integers;
}

// Bytes that a tensor of `shape` takes; nullopt where they do not fit 64 bits.
std::optional<uint64_t> TensorBytes(const std::vector<int64_t>& shape, uint64_t element_bytes) {
  uint64_t bytes = element_bytes;
  for (const int64_t n : shape) {
    if (__builtin_mul_overflow(bytes, static_cast<uint64_t>(n), &bytes)) return std::nullopt;
  }
  return bytes;
}

absl::StatusOr<SafetensorsEntry> ParseEntry(const std::string& name, const json& value,
                                            uint64_t data_bytes) {
  if (!value.is_object()) return Refuse(name, "expected an object, found ", Describe(&value));
  const auto type = value.find("dtype");
  if (type == value.end() || !type->is_string()) return Refuse(name, "expected a dtype");
  const auto shape = value.find("shape");
  auto sizes = shape == value.end() ? std::nullopt : Integers(*shape);
  if (!sizes) return Refuse(name, "expected a shape of non-negative integers");
  const auto offsets = value.find("data_offsets");
  const auto range = offsets == value.end() ? std::nullopt : Integers(*offsets);
  if (!range || range->size() != 2) return Refuse(name, "expected two data_offsets");

  const auto begin = static_cast<uint64_t>((*range)[0]), end = static_cast<uint64_t>((*range)[1]);
  if (begin > end || end > data_bytes) {
    return Refuse(name, "expected data_offsets within the ", data_bytes,
                  " bytes after the header, found ", ShapeString(*range));
  }
  SafetensorsEntry entry{type->get<std::string>(), *std::move(sizes), begin, end - begin};
  if (const auto element = ElementBytes(entry.type)) {
    const auto expected = TensorBytes(entry.shape, *element);
    if (expected != entry.bytes) {
      return Refuse(name, "expected ", expected ? absl::StrCat(*expected) : "over 2^64",
                    " bytes for ", entry.type, " ", ShapeString(entry.shape), ", found ",
                    entry.bytes);
    }
  }
  return entry;
}

absl::Status CheckDisjoint(const SafetensorsHeader& header) {
  using Named = SafetensorsHeader::value_type;
  std::vector<const Named*> by_offset;
  for (const Named& named : header) {
    if (named.second.bytes > 0) by_offset.push_back(&named);
  }
  std::sort(by_offset.begin(), by_offset.end(),
            [](const Named* a, const Named* b) { return a->second.offset < b->second.offset; });
  for (size_t i = 1; i < by_offset.size(); ++i) {
    const auto& [earlier_name, earlier] = *by_offset[i - 1];
    const auto& [name, entry] = *by_offset[i];
    if (entry.offset < earlier.offset + earlier.bytes) {
      return Refuse(name, "overlaps ", Printable(earlier_name));
    }
  }
  return absl::OkStatus();
}

// The header's text. Errors begin with the path.
absl::StatusOr<std::string> ReadHeader(const File& file) {
  if (file.size() < kLengthBytes) {
    return absl::FailedPreconditionError(absl::StrCat(
        file.path(), ": expected a header length of 8 bytes, found a file of ", file.size()));
  }
  uint64_t length = 0;
  absl::Status read = file.Read(0, std::as_writable_bytes(std::span(&length, 1)));
  if (!read.ok()) return read;
  const uint64_t most = std::min(kMaxHeaderBytes, file.size() - kLengthBytes);
  if (length > most) {
    return absl::FailedPreconditionError(absl::StrCat(
        file.path(), ": expected a header of at most ", most, " bytes, found ", length));
  }
  std::string text(length, '\0');
  read = file.Read(kLengthBytes, std::as_writable_bytes(std::span(text)));
  if (!read.ok()) return read;
  return text;
}

}  // namespace

absl::StatusOr<SafetensorsHeader> ParseSafetensorsHeader(absl::string_view text,
                                                         uint64_t data_begin, uint64_t data_end) {
  absl::StatusOr<json> root = ParseObject(text);
  if (!root.ok()) return root.status();
  SafetensorsHeader header;
  for (const auto& [name, value] : root->items()) {
    if (name == "__metadata__") continue;
    absl::StatusOr<SafetensorsEntry> entry = ParseEntry(name, value, data_end - data_begin);
    if (!entry.ok()) return entry.status();
    entry->offset += data_begin;
    header.emplace(name, *std::move(entry));
  }
  if (absl::Status disjoint = CheckDisjoint(header); !disjoint.ok()) return disjoint;
  return header;
}

absl::StatusOr<SafetensorsFile> SafetensorsFile::Open(const std::string& path) {
  absl::StatusOr<File> file = File::Open(path);
  if (!file.ok()) return file.status();
  absl::StatusOr<std::string> text = ReadHeader(*file);
  if (!text.ok()) return text.status();
  absl::StatusOr<SafetensorsHeader> header =
      ParseSafetensorsHeader(*text, kLengthBytes + text->size(), file->size());
  if (!header.ok()) {
    return absl::FailedPreconditionError(absl::StrCat(path, ": ", header.status().message()));
  }
  return SafetensorsFile{*std::move(file), *std::move(header)};
}

std::string ShapeString(const std::vector<int64_t>& shape) {
  return absl::StrCat("[", absl::StrJoin(shape, ", "), "]");
}

}  // namespace gdn
