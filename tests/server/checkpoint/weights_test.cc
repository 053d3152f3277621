#include "server/checkpoint/weights.h"

#include <array>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "kernels/dtype.h"
#include "tests/testing/small_checkpoint.h"

namespace gdn {
namespace {

using testing::Config;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using testing::Interleave;
using testing::json;
using testing::kConv;
using testing::kHidden;
using testing::kHV;
using testing::kV;
using testing::kW;
using testing::Model;
using testing::Name;
using testing::Open;
using testing::OpenError;
using testing::Random;
using testing::SplitLayer;
using testing::StoredTensors;
using testing::TempDirectory;
using testing::Write;
using testing::WriteShards;

std::string Bytes(const TensorView& view) {
  return view.empty() ? "" : std::string(static_cast<const char*>(view.data), view.bytes());
}

// Expects what SplitLayer(prefix) in F32 says.
void ExpectLayer(const LayerWeights& w, StoredTensors tensors, const std::string& prefix) {
  const auto bytes = [&](const std::string& name) { return tensors.at(prefix + name).bytes; };
  EXPECT_EQ(w.in_proj.shape, (std::array<int64_t, 2>{kConv + kHV * kV + 2 * kHV, kHidden}));
  EXPECT_TRUE(Bytes(w.in_proj) == bytes("in_proj_qkv.weight") + bytes("in_proj_z.weight") +
                                      bytes("in_proj_b.weight") + bytes("in_proj_a.weight"));
  EXPECT_EQ(w.out_proj.shape, (std::array<int64_t, 2>{kHidden, kHV * kV}));
  EXPECT_TRUE(Bytes(w.out_proj) == bytes("out_proj.weight"));
  EXPECT_EQ(w.conv_weight.shape, (std::array<int64_t, 2>{kConv, kW}));
  EXPECT_TRUE(Bytes(w.conv_weight) == bytes("conv1d.weight"));
  EXPECT_EQ(w.a_log.shape, (std::array<int64_t, 2>{kHV, 1}));
  EXPECT_TRUE(Bytes(w.a_log) == bytes("A_log"));
  EXPECT_TRUE(Bytes(w.dt_bias) == bytes("dt_bias"));
  EXPECT_EQ(w.norm.shape, (std::array<int64_t, 2>{kV, 1}));
  EXPECT_TRUE(Bytes(w.norm) == bytes("norm.weight"));
}

TEST(Checkpoint, ReadsSplitLayers) {
  TempDirectory dir;
  Write(dir, Config(), Model());
  const auto checkpoint = Open(dir);
  ASSERT_NE(checkpoint, nullptr);
  EXPECT_THAT(checkpoint->info().layers, ElementsAre(0, 1, 2));
  EXPECT_EQ(checkpoint->info().geometry.group(), 3);
  EXPECT_EQ(checkpoint->info().dtype, DType::kFp32);
  EXPECT_TRUE(checkpoint->info().projections);
  size_t bytes = 0;
  for (const auto& [name, tensor] : Model()) {
    if (name.starts_with("model.layers.") && !name.ends_with("q_proj.weight")) {
      bytes += tensor.bytes.size();
    }
  }
  EXPECT_EQ(checkpoint->info().gdn_bytes, bytes);
  for (const int i : {2, 0, 1}) {
    const auto weights = checkpoint->ReadLayer(i, DType::kFp32);
    ASSERT_TRUE(weights.ok()) << weights.status();
    ExpectLayer(*weights, Model(), Name(i, ""));
    EXPECT_TRUE(weights->conv_bias.empty());
  }
  EXPECT_EQ(checkpoint->ReadLayer(3, DType::kFp32).status().code(),
            absl::StatusCode::kInvalidArgument);
}

TEST(Checkpoint, PutsInterleavedProjectionsInOrder) {
  TempDirectory dir;
  StoredTensors tensors = Model({0});
  Interleave(&tensors, Name(0, ""));
  Write(dir, Config(1), tensors);
  const auto checkpoint = Open(dir);
  ASSERT_NE(checkpoint, nullptr);
  const auto weights = checkpoint->ReadLayer(0, DType::kFp32);
  ASSERT_TRUE(weights.ok()) << weights.status();
  ExpectLayer(*weights, Model({0}), Name(0, ""));
}

TEST(Checkpoint, KnowsThePrefixesOfTextAndVisionModels) {
  for (const std::string prefix : {"model.layers.", "model.language_model.layers.",
                                   "language_model.model.layers.", "layers."}) {
    TempDirectory dir;
    Write(dir, {{"text_config", Config(1)}}, SplitLayer(prefix + "0.linear_attn."));
    const auto checkpoint = Open(dir);
    ASSERT_NE(checkpoint, nullptr) << prefix;
    const auto weights = checkpoint->ReadLayer(0, DType::kFp32);
    ASSERT_TRUE(weights.ok()) << weights.status();
    ExpectLayer(*weights, SplitLayer(""), "");
  }
}

TEST(Checkpoint, ReadsShards) {
  TempDirectory dir, whole;
  WriteShards(dir, Config(), Model());
  Write(whole, Config(), Model());
  const auto checkpoint = Open(dir);
  ASSERT_NE(checkpoint, nullptr);
  for (const int i : {0, 1, 2}) {
    const auto weights = checkpoint->ReadLayer(i, DType::kFp32);
    ASSERT_TRUE(weights.ok()) << weights.status();
    ExpectLayer(*weights, Model(), Name(i, ""));
  }
  EXPECT_EQ(checkpoint->info().fingerprint, Open(whole)->info().fingerprint);
  EXPECT_EQ(checkpoint->info().gdn_bytes, Open(whole)->info().gdn_bytes);
}

TEST(Checkpoint, ConvertsEveryTypeToEveryOther) {
  const std::vector<std::pair<std::string, DType>> types = {
      {"F32", DType::kFp32}, {"BF16", DType::kBf16}, {"F16", DType::kFp16}};
  for (const auto& [name, disk] : types) {
    TempDirectory dir;
    const StoredTensors tensors = Model({0}, name);
    Write(dir, Config(1), tensors);
    const auto checkpoint = Open(dir);
    ASSERT_NE(checkpoint, nullptr);
    const std::string& out_proj = tensors.at(Name(0, "out_proj.weight")).bytes;
    const std::string& dt_bias = tensors.at(Name(0, "dt_bias")).bytes;
    for (const auto& [unused, io] : types) {
      const auto weights = checkpoint->ReadLayer(0, io);
      ASSERT_TRUE(weights.ok()) << weights.status();
      ASSERT_EQ(weights->out_proj.type, io);
      ASSERT_EQ(weights->in_proj.type, io);
      for (int64_t i = 0; i < weights->out_proj.elements(); ++i) {
        float expected = 0;  // through the io type, which rounds
        Store(&expected, io, 0, Load(out_proj.data(), disk, i));
        ASSERT_EQ(Load(weights->out_proj.data, io, i), Load(&expected, io, 0));
      }
      ASSERT_EQ(weights->dt_bias.type, DType::kFp32);
      for (int i = 0; i < kHV; ++i) {
        EXPECT_EQ(weights->dt_bias.as<float>()[i], Load(dt_bias.data(), disk, i));
      }
    }
  }
}

TEST(Checkpoint, TypeIsThatOfTheProjectionsWhereTheConfigurationIsSilent) {
  TempDirectory dir;
  json config = Config(1);
  config.erase("dtype");
  Write(dir, config, Model({0}, "F16"));
  EXPECT_EQ(Open(dir)->info().dtype, DType::kFp16);
}

TEST(Checkpoint, ReadsTheConvolutionsBias) {
  TempDirectory dir;
  StoredTensors tensors = Model({0});
  tensors[Name(0, "conv1d.bias")] = Random("BF16", {kConv}, 5);
  Write(dir, Config(1), tensors);
  const auto checkpoint = Open(dir);
  ASSERT_NE(checkpoint, nullptr);
  const auto weights = checkpoint->ReadLayer(0, DType::kBf16);
  ASSERT_TRUE(weights.ok()) << weights.status();
  EXPECT_EQ(weights->conv_bias.shape, (std::array<int64_t, 2>{kConv, 1}));
  const std::string& bytes = tensors.at(Name(0, "conv1d.bias")).bytes;
  for (int i = 0; i < kConv; ++i) {
    ASSERT_EQ(weights->conv_bias.as<float>()[i], Load(bytes.data(), DType::kBf16, i));
  }
}

TEST(Checkpoint, WithoutProjectionsInAnyLayerServesTheProjectedLayouts) {
  TempDirectory dir;
  StoredTensors tensors = Model();
  std::erase_if(tensors,
                [](const auto& named) { return named.first.find("_proj") != std::string::npos; });
  Write(dir, Config(), tensors);
  const auto checkpoint = Open(dir);
  ASSERT_NE(checkpoint, nullptr);
  EXPECT_FALSE(checkpoint->info().projections);
  const auto weights = checkpoint->ReadLayer(1, DType::kBf16);
  ASSERT_TRUE(weights.ok()) << weights.status();
  EXPECT_TRUE(weights->in_proj.empty());
  EXPECT_TRUE(weights->out_proj.empty());
  EXPECT_EQ(weights->conv_weight.type, DType::kFp32);
}

TEST(Checkpoint, WithoutAConvolutionNeedsNoneOfItsTensors) {
  TempDirectory dir;
  json config = Config(1);
  config["linear_conv_kernel_dim"] = 0;
  StoredTensors tensors = Model({0});
  Write(dir, config, tensors);
  EXPECT_THAT(OpenError(dir), HasSubstr(Name(0, "conv1d.weight: not a tensor of a GDN layer")));
  tensors.erase(Name(0, "conv1d.weight"));
  Write(dir, config, tensors);
  const auto checkpoint = Open(dir);
  ASSERT_NE(checkpoint, nullptr);
  EXPECT_TRUE(checkpoint->ReadLayer(0, DType::kFp32)->conv_weight.empty());
}

TEST(Checkpoint, OneBufferServesAllLayers) {
  TempDirectory dir;
  Write(dir, Config(), Model());
  const auto checkpoint = Open(dir);
  const void* first = checkpoint->ReadLayer(0, DType::kFp32)->in_proj.data;
  EXPECT_EQ(checkpoint->ReadLayer(1, DType::kFp32)->in_proj.data, first);
  EXPECT_EQ(checkpoint->ReadLayer(2, DType::kBf16)->in_proj.data, first);
  EXPECT_EQ(reinterpret_cast<uintptr_t>(first) % 64, 0u);
}

TEST(Checkpoint, LayersAfterTheLastOneDoNotCount) {
  TempDirectory dir;
  Write(dir, Config(2), Model({0, 1, 2}));
  EXPECT_THAT(Open(dir)->info().layers, ElementsAre(0, 1));
}

TEST(Checkpoint, WithoutACountOfLayersServesThoseThatAreThere) {
  TempDirectory dir;
  json config = Config();
  config.erase("num_hidden_layers");
  Write(dir, config, Model({1, 12}));
  EXPECT_THAT(Open(dir)->info().layers, ElementsAre(1, 12));
}

TEST(Checkpoint, FingerprintTellsWeightsApart) {
  const auto fingerprint = [](const json& config, const StoredTensors& tensors) {
    TempDirectory dir;
    Write(dir, config, tensors);
    return Open(dir)->info().fingerprint;
  };
  const std::string original = fingerprint(Config(), Model());
  EXPECT_EQ(original.size(), 16u);
  EXPECT_EQ(fingerprint(Config(), Model()), original);

  StoredTensors more = Model();
  more["model.norm.weight"] = Random("F32", {9}, 1);
  EXPECT_EQ(fingerprint(Config(), more), original) << "other tensors do not count";

  json eps = Config();
  eps["rms_norm_eps"] = 1e-5;
  EXPECT_NE(fingerprint(eps, Model()), original);
  EXPECT_NE(fingerprint(Config(2), Model()), original) << "fewer layers";
  EXPECT_NE(fingerprint(Config(), Model({0, 1, 2}, "BF16")), original) << "another type";
  for (const char* name : {"A_log", "norm.weight", "in_proj_qkv.weight", "out_proj.weight"}) {
    for (const bool last : {false, true}) {
      StoredTensors changed = Model();
      std::string& bytes = changed[Name(2, name)].bytes;
      bytes[last ? bytes.size() - 1 : 0] ^= 1;
      EXPECT_NE(fingerprint(Config(), changed), original) << name;
    }
  }
}

}  // namespace
}  // namespace gdn
