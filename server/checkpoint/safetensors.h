// The safetensors format: eight bytes of header length, a JSON header, the tensors' bytes.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "server/checkpoint/file.h"

namespace gdn {

// A tensor as the header states it: little-endian, dense, row-major.
struct SafetensorsEntry {
  std::string type;  // "BF16", "F32", "F8_E4M3"…
  std::vector<int64_t> shape;
  uint64_t offset = 0;  // of its first byte in the file
  uint64_t bytes = 0;
};

using SafetensorsHeader = std::map<std::string, SafetensorsEntry, std::less<>>;

// Parses the header of a file whose tensors lie in the bytes [data_begin, data_end). Refuses what
// is not JSON of the format's form, a name stated twice, offsets outside the data, a size other
// than shape and type give (types of later versions of the format are taken as they are) and
// tensors that overlap. Errors do not name the file.
absl::StatusOr<SafetensorsHeader> ParseSafetensorsHeader(absl::string_view json,
                                                         uint64_t data_begin, uint64_t data_end);

// An open file and its parsed header. Errors (FAILED_PRECONDITION) begin with the path.
struct SafetensorsFile {
  static absl::StatusOr<SafetensorsFile> Open(const std::string& path);

  File file;
  SafetensorsHeader tensors;
};

// "[64, 1, 4]".
std::string ShapeString(const std::vector<int64_t>& shape);

}  // namespace gdn
