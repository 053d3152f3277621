// The safetensors files of a checkpoint directory, and which of them holds which tensor.
#pragma once

#include <deque>
#include <map>
#include <string>

#include "absl/status/statusor.h"
#include "server/checkpoint/safetensors.h"

namespace gdn {

struct TensorLocation {
  const File* file;
  const SafetensorsEntry* entry;
};

// The tensors whose names contain ".linear_attn."; files without one stay closed.
struct Shards {
  std::string path;                   // of model.safetensors or the index, for messages
  std::deque<SafetensorsFile> files;  // the locations point into it
  std::map<std::string, TensorLocation, std::less<>> tensors;
};

// Opens model.safetensors or, without it, the files that model.safetensors.index.json lists; these
// lie in `directory` itself. Errors (FAILED_PRECONDITION) name the file and what is wrong with it,
// among others a listed tensor that its file lacks and one that lies in two of the files.
absl::StatusOr<Shards> OpenShards(const std::string& directory);

}  // namespace gdn
