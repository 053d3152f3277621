// A small model of GDN layers as checkpoints of every form, for tests.
#pragma once

#include <cstdint>
#include <memory>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gtest/gtest.h"
#include "nlohmann/json.hpp"
#include "server/checkpoint/weights.h"
#include "tests/testing/checkpoint_writer.h"

namespace gdn::testing {

using nlohmann::json;

// R = 3, and no two dimensions alike.
inline constexpr int kHidden = 32, kH = 2, kHV = 6, kK = 64, kV = 96, kW = 3;
inline constexpr int kR = kHV / kH, kConv = 2 * kH * kK + kHV * kV;

inline json Config(int layers = 4) {
  return {
      {"model_type", "qwen3_next"},  {"hidden_size", kHidden},        {"num_hidden_layers", layers},
      {"linear_num_key_heads", kH},  {"linear_num_value_heads", kHV}, {"linear_key_head_dim", kK},
      {"linear_value_head_dim", kV}, {"linear_conv_kernel_dim", kW},  {"dtype", "float32"}};
}

inline StoredTensor Random(const std::string& type, std::vector<int64_t> shape, uint32_t seed) {
  std::mt19937 random(seed);
  int64_t n = 1;
  for (const int64_t size : shape) n *= size;
  std::vector<float> values(static_cast<size_t>(n));
  for (float& value : values) value = std::uniform_real_distribution<float>(-1, 1)(random);
  return MakeTensor(type, std::move(shape), values);
}

// A layer with split projections below `prefix` ("model.layers.0.linear_attn.").
inline StoredTensors SplitLayer(const std::string& prefix, const std::string& type = "F32",
                                uint32_t seed = 1) {
  return {{prefix + "in_proj_qkv.weight", Random(type, {kConv, kHidden}, seed + 1)},
          {prefix + "in_proj_z.weight", Random(type, {kHV * kV, kHidden}, seed + 2)},
          {prefix + "in_proj_b.weight", Random(type, {kHV, kHidden}, seed + 3)},
          {prefix + "in_proj_a.weight", Random(type, {kHV, kHidden}, seed + 4)},
          {prefix + "out_proj.weight", Random(type, {kHidden, kHV * kV}, seed + 5)},
          {prefix + "conv1d.weight", Random(type, {kConv, 1, kW}, seed + 6)},
          {prefix + "A_log", Random("F32", {kHV}, seed + 7)},
          {prefix + "dt_bias", Random(type, {kHV}, seed + 8)},
          {prefix + "norm.weight", Random("F32", {kV}, seed + 9)}};
}

inline std::string Name(int layer, const std::string& rest) {
  return absl::StrCat("model.layers.", layer, ".linear_attn.", rest);
}

inline StoredTensors Model(std::vector<int> layers = {0, 1, 2}, const std::string& type = "F32") {
  StoredTensors tensors = {{"model.embed_tokens.weight", Random("BF16", {4, 4}, 1)},
                           {"model.layers.3.self_attn.q_proj.weight", Random("F16", {4}, 2)},
                           {"mtp.layers.0.linear_attn.A_log", Random("F32", {1}, 3)},
                           {"lm_head.weight", {"F8_E4M3", {4}, "abcd"}}};
  for (const int layer : layers) {
    tensors.merge(SplitLayer(Name(layer, ""), type, 100 * static_cast<uint32_t>(layer)));
  }
  return tensors;
}

// The rows of in_proj_qkvz and in_proj_ba, by the definition of the interleaving: for each key head
// its q, its k, its value heads' v, their z; and their b, their a.
inline void Interleave(StoredTensors* tensors, const std::string& prefix) {
  const auto take = [&](const std::string& name) {
    return tensors->extract(prefix + name + ".weight").mapped();
  };
  const StoredTensor qkv = take("in_proj_qkv"), z = take("in_proj_z"), b = take("in_proj_b"),
                     a = take("in_proj_a");
  const size_t row = qkv.bytes.size() / kConv;
  const auto rows = [row](const StoredTensor& t, int from, int n) {
    return t.bytes.substr(static_cast<size_t>(from) * row, static_cast<size_t>(n) * row);
  };
  StoredTensor qkvz{qkv.type, {kConv + kHV * kV, kHidden}, ""}, ba{b.type, {2 * kHV, kHidden}, ""};
  for (int h = 0; h < kH; ++h) {
    qkvz.bytes += rows(qkv, h * kK, kK) + rows(qkv, (kH + h) * kK, kK);
    for (int r = 0; r < kR; ++r) qkvz.bytes += rows(qkv, 2 * kH * kK + (h * kR + r) * kV, kV);
    for (int r = 0; r < kR; ++r) qkvz.bytes += rows(z, (h * kR + r) * kV, kV);
    for (int r = 0; r < kR; ++r) ba.bytes += rows(b, h * kR + r, 1);
    for (int r = 0; r < kR; ++r) ba.bytes += rows(a, h * kR + r, 1);
  }
  (*tensors)[prefix + "in_proj_qkvz.weight"] = qkvz;
  (*tensors)[prefix + "in_proj_ba.weight"] = ba;
}

inline void Write(const TempDirectory& dir, const json& config, const StoredTensors& tensors) {
  WriteFile(dir / "config.json", config.dump());
  WriteFile(dir / "model.safetensors", SafetensorsBytes(tensors));
}

// The same in two files with an index: tensors in turn.
inline json WriteShards(const TempDirectory& dir, const json& config,
                        const StoredTensors& tensors) {
  std::vector<StoredTensors> shards(2);
  json index = {{"metadata", {{"total_size", 0}}}};
  size_t turn = 0;
  for (const auto& [name, tensor] : tensors) {
    const size_t shard = turn++ % 2;
    shards[shard][name] = tensor;
    index["weight_map"][name] = absl::StrCat("part-", shard, ".safetensors");
  }
  for (size_t i = 0; i < shards.size(); ++i) {
    WriteFile(dir / absl::StrCat("part-", i, ".safetensors"), SafetensorsBytes(shards[i]));
  }
  WriteFile(dir / "config.json", config.dump());
  WriteFile(dir / "model.safetensors.index.json", index.dump());
  return index;
}

inline std::unique_ptr<Checkpoint> Open(const TempDirectory& dir) {
  auto checkpoint = Checkpoint::Open(dir.path());
  EXPECT_TRUE(checkpoint.ok()) << checkpoint.status();
  return checkpoint.ok() ? *std::move(checkpoint) : nullptr;
}

inline std::string OpenError(const TempDirectory& dir) {
  const auto checkpoint = Checkpoint::Open(dir.path());
  EXPECT_EQ(checkpoint.status().code(), absl::StatusCode::kFailedPrecondition);
  return std::string(checkpoint.status().message());
}

}  // namespace gdn::testing
