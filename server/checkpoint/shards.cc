#include "server/checkpoint/shards.h"

#include <filesystem>
#include <system_error>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "nlohmann/json.hpp"
#include "server/checkpoint/json.h"

namespace gdn {
namespace {

using nlohmann::json;

constexpr absl::string_view kSingle = "model.safetensors";
constexpr absl::string_view kIndex = "model.safetensors.index.json";
constexpr uint64_t kMaxIndexBytes = 256 << 20;

bool IsGdnTensor(absl::string_view name) { return absl::StrContains(name, ".linear_attn."); }

// Names in the directory itself, whatever the index says.
bool IsFileName(absl::string_view name) {
  return !name.empty() && name != "." && name != ".." &&
         name.find_first_of(absl::string_view("/\\\0", 3)) == absl::string_view::npos;
}

bool Exists(const std::string& path) {
  std::error_code ignored;
  return std::filesystem::exists(path, ignored);
}

// Name of each GDN tensor -> name of its file. Errors begin with the path.
absl::StatusOr<std::map<std::string, std::string>> ReadIndex(const std::string& path) {
  const auto refuse = [&path](const auto&... what) {
    return absl::FailedPreconditionError(absl::StrCat(path, ": ", what...));
  };
  absl::StatusOr<std::string> text = ReadWhole(path, kMaxIndexBytes);
  if (!text.ok()) return text.status();
  const json root = json::parse(*text, nullptr, /*allow_exceptions=*/false);
  const auto weight_map = root.is_object() ? root.find("weight_map") : root.end();
  if (!root.is_object() || weight_map == root.end() || !weight_map->is_object()) {
    return refuse("expected a JSON object with the object weight_map");
  }
  std::map<std::string, std::string> file_of;
  for (const auto& [name, file] : weight_map->items()) {
    if (!IsGdnTensor(name)) continue;
    if (!file.is_string() || !IsFileName(file.get_ref<const std::string&>())) {
      return refuse(Printable(name), ": expected the name of a file beside it, found ",
                    Describe(&file));
    }
    file_of.emplace(name, file.get<std::string>());
  }
  return file_of;
}

// Opens one file of the checkpoint and hands it over to `shards`.
absl::StatusOr<const SafetensorsFile*> OpenShard(const std::string& path, Shards* shards) {
  absl::StatusOr<SafetensorsFile> file = SafetensorsFile::Open(path);
  if (!file.ok()) return file.status();
  std::erase_if(file->tensors, [](const auto& named) { return !IsGdnTensor(named.first); });
  return &shards->files.emplace_back(*std::move(file));
}

// Every listed tensor lies where the index says, and nowhere else.
absl::Status Locate(const std::map<std::string, std::string>& file_of,
                    const std::map<std::string, const SafetensorsFile*>& opened, Shards* shards) {
  for (const auto& [name, file] : file_of) {
    for (const auto& [other, shard] : opened) {
      const auto it = shard->tensors.find(name);
      const bool found = it != shard->tensors.end();
      if (found == (other == file)) {
        if (found) shards->tensors[name] = {&shard->file, &it->second};
      } else {
        return absl::FailedPreconditionError(
            absl::StrCat(shard->file.path(), ": ", Printable(name), ": ",
                         found ? "duplicate: " : "missing: ", kIndex, " puts it into ", file));
      }
    }
  }
  return absl::OkStatus();
}

absl::StatusOr<Shards> OpenSingle(const std::string& path) {
  Shards shards{.path = path, .files = {}, .tensors = {}};
  absl::StatusOr<const SafetensorsFile*> shard = OpenShard(path, &shards);
  if (!shard.ok()) return shard.status();
  for (const auto& [name, entry] : (*shard)->tensors) {
    shards.tensors[name] = {&(*shard)->file, &entry};
  }
  return shards;
}

absl::StatusOr<Shards> OpenIndexed(const std::string& directory) {
  Shards shards{.path = absl::StrCat(directory, "/", kIndex), .files = {}, .tensors = {}};
  auto file_of = ReadIndex(shards.path);
  if (!file_of.ok()) return file_of.status();
  std::map<std::string, const SafetensorsFile*> opened;
  for (const auto& [name, file] : *file_of) {
    if (opened.contains(file)) continue;
    auto shard = OpenShard(absl::StrCat(directory, "/", file), &shards);
    if (!shard.ok()) return shard.status();
    opened[file] = *shard;
  }
  if (absl::Status located = Locate(*file_of, opened, &shards); !located.ok()) return located;
  return shards;
}

}  // namespace

absl::StatusOr<Shards> OpenShards(const std::string& directory) {
  const std::string single = absl::StrCat(directory, "/", kSingle);
  if (Exists(single)) return OpenSingle(single);
  if (Exists(absl::StrCat(directory, "/", kIndex))) return OpenIndexed(directory);
  return absl::FailedPreconditionError(
      absl::StrCat(directory, ": expected ", kSingle, " or ", kIndex, ", found neither"));
}

}  // namespace gdn
