// Writes small checkpoints, right and wrong ones, for tests.
#pragma once

#include <unistd.h>

#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <map>
#include <span>
#include <string>
#include <vector>

#include "gtest/gtest.h"
#include "kernels/dtype.h"
#include "nlohmann/json.hpp"

namespace gdn::testing {

struct StoredTensor {
  std::string type;
  std::vector<int64_t> shape;
  std::string bytes;
};

using StoredTensors = std::map<std::string, StoredTensor>;

// An empty directory of the test's own, removed with it.
class TempDirectory {
 public:
  TempDirectory() {
    std::string path = ::testing::TempDir() + "gdn_XXXXXX";
    if (mkdtemp(path.data()) == nullptr) ADD_FAILURE() << "no directory " << path;
    path_ = path;
  }
  TempDirectory(const TempDirectory&) = delete;
  ~TempDirectory() { std::filesystem::remove_all(path_); }

  std::string path() const { return path_; }
  std::string operator/(const std::string& name) const { return path_ + "/" + name; }

 private:
  std::string path_;
};

inline void WriteFile(const std::string& path, const std::string& text) {
  std::ofstream(path, std::ios::binary) << text;
}

inline std::string ReadFile(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), std::istreambuf_iterator<char>()};
}

// `values` as a tensor of "F32", "F16" or "BF16".
inline StoredTensor MakeTensor(const std::string& type, std::vector<int64_t> shape,
                               std::span<const float> values) {
  const DType dtype = type == "F32" ? DType::kFp32 : type == "F16" ? DType::kFp16 : DType::kBf16;
  std::string bytes(values.size() * SizeOf(dtype), '\0');
  for (size_t i = 0; i < values.size(); ++i) {
    Store(bytes.data(), dtype, static_cast<int64_t>(i), values[i]);
  }
  return {type, std::move(shape), std::move(bytes)};
}

// Header length and header of a safetensors file.
inline std::string SafetensorsHead(const std::string& json) {
  const uint64_t length = json.size();
  std::string head(sizeof length, '\0');
  std::memcpy(head.data(), &length, sizeof length);
  return head + json;
}

inline std::string SafetensorsBytes(const StoredTensors& tensors) {
  nlohmann::json header = {{"__metadata__", {{"format", "pt"}}}};
  std::string data;
  for (const auto& [name, tensor] : tensors) {
    header[name] = {{"dtype", tensor.type},
                    {"shape", tensor.shape},
                    {"data_offsets", {data.size(), data.size() + tensor.bytes.size()}}};
    data += tensor.bytes;
  }
  return SafetensorsHead(header.dump()) + data;
}

}  // namespace gdn::testing
