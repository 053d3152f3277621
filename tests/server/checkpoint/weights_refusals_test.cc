#include <cmath>
#include <filesystem>
#include <functional>
#include <random>
#include <string>
#include <tuple>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "kernels/dtype.h"
#include "server/checkpoint/weights.h"
#include "tests/testing/small_checkpoint.h"

namespace gdn {
namespace {

using ::testing::AllOf;
using testing::Config;
using ::testing::HasSubstr;
using testing::Interleave;
using testing::json;
using testing::kConv;
using testing::kHidden;
using testing::kHV;
using testing::kV;
using testing::kW;
using testing::MakeTensor;
using testing::Model;
using testing::Name;
using testing::Open;
using testing::OpenError;
using testing::Random;
using testing::SafetensorsBytes;
using testing::SplitLayer;
using testing::StoredTensors;
using testing::TempDirectory;
using testing::Write;
using testing::WriteFile;
using testing::WriteShards;

// What is wrong with a checkpoint, and what must be said about it.
struct Wrong {
  const char* name;
  std::function<void(json* config, StoredTensors* tensors)> change;
  std::vector<std::string> message;
};

class WrongCheckpointTest : public ::testing::TestWithParam<Wrong> {};

TEST_P(WrongCheckpointTest, IsRefusedByName) {
  TempDirectory dir;
  json config = Config();
  StoredTensors tensors = Model();
  GetParam().change(&config, &tensors);
  Write(dir, config, tensors);
  const std::string message = OpenError(dir);
  for (const std::string& part : GetParam().message) EXPECT_THAT(message, HasSubstr(part));
}

const char* const kFile = "/model.safetensors: ";

INSTANTIATE_TEST_SUITE_P(
    All, WrongCheckpointTest,
    ::testing::Values(
        Wrong{"Shape",
              [](json*, StoredTensors* t) { (*t)[Name(1, "A_log")] = Random("F32", {kHV + 1}, 1); },
              {kFile,
               "model.layers.1.linear_attn.A_log: expected BF16, F16 or F32 [6], found F32 "
               "[7]"}},
        Wrong{"Rank",
              [](json*, StoredTensors* t) {
                (*t)[Name(1, "conv1d.weight")] = Random("BF16", {kConv, kW}, 1);
              },
              {kFile, "conv1d.weight: expected BF16, F16 or F32 [832, 1, 3], found BF16 [832, 3]"}},
        Wrong{"Type",
              [](json*, StoredTensors* t) {
                (*t)[Name(2, "out_proj.weight")] = {
                    "F8_E4M3", {kHidden, kHV * kV}, std::string(kHidden * kHV * kV, 'x')};
                (*t)[Name(2, "out_proj.weight_scale_inv")] = Random("F32", {1, 5}, 1);
              },
              {kFile,
               "model.layers.2.linear_attn.out_proj.weight: expected BF16, F16 or F32 [32, "
               "576], found F8_E4M3 [32, 576]"}},
        Wrong{"Heads",
              [](json* config, StoredTensors*) { (*config)["linear_num_value_heads"] = 8; },
              {kFile, "model.layers.0.linear_attn.", "expected BF16, F16 or F32 [", "found F32 ["}},
        Wrong{"HeadsThatDoNotDivide",
              [](json* config, StoredTensors*) { (*config)["linear_num_value_heads"] = 7; },
              {"/config.json: linear_num_value_heads: expected a multiple of", "found 7"}},
        Wrong{"MissingKey",
              [](json* config, StoredTensors*) { config->erase("linear_key_head_dim"); },
              {"/config.json: linear_key_head_dim: expected an integer", "found nothing"}},
        Wrong{"MissingTensor",
              [](json*, StoredTensors* t) { t->erase(Name(2, "norm.weight")); },
              {kFile,
               "model.layers.2.linear_attn.norm.weight: expected BF16, F16 or F32 [96], "
               "found nothing"}},
        Wrong{"MissingLayer",
              [](json* config, StoredTensors*) { (*config)["num_hidden_layers"] = 5; },
              {kFile, "model.layers.4.linear_attn.", "found nothing"}},
        Wrong{"MissingPartOfTheProjections",
              [](json*, StoredTensors* t) { t->erase(Name(1, "in_proj_z.weight")); },
              {kFile, "model.layers.1.linear_attn.in_proj_z.weight: expected", "found nothing"}},
        Wrong{"MissingInProj",
              [](json*, StoredTensors* t) {
                for (const char* part : {"qkv", "z", "b", "a"}) {
                  t->erase(Name(1, absl::StrCat("in_proj_", part, ".weight")));
                }
              },
              {kFile, "model.layers.1.linear_attn.in_proj_qkv.weight: expected", "found nothing"}},
        Wrong{"MissingOutProj",
              [](json*, StoredTensors* t) { t->erase(Name(1, "out_proj.weight")); },
              {kFile, "model.layers.1.linear_attn.out_proj.weight: expected", "found nothing"}},
        Wrong{"ProjectionsInSomeLayers",
              [](json*, StoredTensors* t) {
                std::erase_if(*t, [](const auto& named) {
                  return named.first.starts_with("model.layers.1.") &&
                         named.first.find("_proj") != std::string::npos;
                });
              },
              {kFile,
               "model.layers.1.linear_attn.out_proj.weight: expected projections in every "
               "layer or in none, found layer 0 with and layer 1 without them"}},
        Wrong{"BothFormsOfProjections",
              [](json*, StoredTensors* t) {
                StoredTensors copy = *t;
                Interleave(&copy, Name(0, ""));
                t->merge(copy);
              },
              {kFile,
               "in_proj_qkvz.weight: expected either it or model.layers.0.linear_attn."
               "in_proj_qkv.weight, found both"}},
        Wrong{"UnknownTensor",
              [](json*, StoredTensors* t) {
                (*t)[Name(0, "in_proj_qkv.bias")] = Random("F32", {kConv}, 1);
              },
              {kFile, "model.layers.0.linear_attn.in_proj_qkv.bias: not a tensor of a GDN layer"}},
        Wrong{"OtherKindOfLayer",
              [](json* config, StoredTensors*) { (*config)["full_attention_interval"] = 2; },
              {kFile, "model.layers.1.linear_attn.*: expected no such tensor", "layer 1"}},
        Wrong{"NoGdnLayerByConfig",
              [](json* config, StoredTensors* t) {
                (*config)["layer_types"] = {"full_attention"};
                (*config)["num_hidden_layers"] = 1;
                std::erase_if(*t, [](const auto& named) {
                  return named.first.starts_with("model.layers.0.");
                });
              },
              {kFile, "expected a GDN layer by config.json, found none"}},
        Wrong{"NoGdnTensors",
              [](json*, StoredTensors* t) {
                std::erase_if(
                    *t, [](const auto& named) { return named.first.starts_with("model.layers."); });
              },
              {kFile, "expected tensors named N.linear_attn.* below one of model.layers.", "none"}},
        Wrong{
            "TwoModels",
            [](json*, StoredTensors* t) {
              t->merge(SplitLayer("model.language_model.layers.0.linear_attn."));
            },
            {kFile, "found GDN layers below both model.layers. and model.language_model.layers."}},
        Wrong{"ImpossibleHeadDim",
              [](json* config, StoredTensors*) { (*config)["linear_key_head_dim"] = 1 << 20; },
              {"/config.json: "}}),
    [](const auto& info) { return info.param.name; });

TEST(Checkpoint, RefusesDirectoriesWithoutItsFiles) {
  TempDirectory dir;
  EXPECT_THAT(OpenError(dir), HasSubstr("/config.json: No such file"));
  WriteFile(dir / "config.json", Config().dump());
  EXPECT_THAT(OpenError(dir), AllOf(HasSubstr(dir.path()),
                                    HasSubstr("expected model.safetensors or "
                                              "model.safetensors.index.json, found neither")));
}

TEST(Checkpoint, RefusesAnIndexThatLeavesTheDirectory) {
  for (const json& file : {json("../part-0.safetensors"), json("/etc/passwd"), json(".."), json(""),
                           json("a/b"), json("a\\b"), json(3), json(std::string("a\0b", 3))}) {
    TempDirectory dir;
    json index = WriteShards(dir, Config(), Model());
    index["weight_map"][Name(1, "A_log")] = file;
    WriteFile(dir / "model.safetensors.index.json", index.dump());
    EXPECT_THAT(OpenError(dir),
                HasSubstr("/model.safetensors.index.json: model.layers.1.linear_attn.A_log: "
                          "expected the name of a file beside it, found "))
        << file;
  }
}

TEST(Checkpoint, RefusesAnIndexThatDoesNotFitItsShards) {
  TempDirectory dir;
  const json index = WriteShards(dir, Config(), Model());
  const std::string name = Name(1, "A_log");
  const std::string file = index["weight_map"][name];
  const std::string other =
      file == "part-0.safetensors" ? "part-1.safetensors" : "part-0.safetensors";

  json changed = index;
  changed["weight_map"][name] = other;
  WriteFile(dir / "model.safetensors.index.json", changed.dump());
  EXPECT_THAT(OpenError(dir), AllOf(HasSubstr(name), HasSubstr(": model.safetensors.index.json "
                                                               "puts it into " +
                                                               other)));
  changed["weight_map"][name] = "part-2.safetensors";
  WriteFile(dir / "model.safetensors.index.json", changed.dump());
  EXPECT_THAT(OpenError(dir), HasSubstr("/part-2.safetensors: No such file"));

  WriteFile(dir / "part-2.safetensors", SafetensorsBytes({{name, Random("F32", {kHV}, 1)}}));
  EXPECT_THAT(OpenError(dir), AllOf(HasSubstr("/" + file + ": " + name + ": duplicate"),
                                    HasSubstr("puts it into part-2.safetensors")));
  for (const char* text : {"", "[]", "{}", "{\"weight_map\": 3}", "{\"weight_map\": "}) {
    WriteFile(dir / "model.safetensors.index.json", text);
    EXPECT_THAT(OpenError(dir), HasSubstr("/model.safetensors.index.json: expected a JSON object "
                                          "with the object weight_map"));
  }
}

TEST(Checkpoint, RefusesValuesThatAreNotFinite) {
  for (const auto& [value, io, type] :
       {std::tuple(NAN, DType::kFp32, "fp32"), std::tuple(-INFINITY, DType::kBf16, "bf16"),
        std::tuple(1e5f, DType::kFp16, "fp16")}) {
    TempDirectory dir;
    StoredTensors tensors = Model({0, 1});
    std::vector<float> values(kHV * kHidden, 0.5f);
    values.back() = value;
    tensors[Name(1, "in_proj_b.weight")] = MakeTensor("F32", {kHV, kHidden}, values);
    Write(dir, Config(2), tensors);
    const auto checkpoint = Open(dir);
    ASSERT_NE(checkpoint, nullptr);
    EXPECT_TRUE(checkpoint->ReadLayer(0, io).ok());
    const auto weights = checkpoint->ReadLayer(1, io);
    ASSERT_EQ(weights.status().code(), absl::StatusCode::kFailedPrecondition);
    EXPECT_THAT(std::string(weights.status().message()),
                AllOf(HasSubstr(kFile), HasSubstr(absl::StrCat(
                                            "model.layers.1.linear_attn.in_proj_b.weight: expected "
                                            "finite values in ",
                                            type, ", found NaN or infinity"))));
  }
}

TEST(Checkpoint, AFileCutShortAfterOpeningIsAnError) {
  TempDirectory dir;
  Write(dir, Config(), Model());
  const auto checkpoint = Open(dir);
  ASSERT_NE(checkpoint, nullptr);
  std::filesystem::resize_file(dir / "model.safetensors", 5000);
  EXPECT_THAT(std::string(checkpoint->ReadLayer(2, DType::kFp32).status().message()),
              AllOf(HasSubstr("/model.safetensors: expected "), HasSubstr("found the end")));
}

TEST(Checkpoint, HostileFilesNeverCrash) {
  TempDirectory dir;
  const json index = WriteShards(dir, Config(1), Model({0}));
  const std::vector<std::string> names = {"config.json", "model.safetensors.index.json",
                                          "part-0.safetensors", "part-1.safetensors"};
  std::mt19937 random(2);
  for (int round = 0; round < 300; ++round) {
    const std::string path = dir / names[random() % names.size()];
    const std::string original = testing::ReadFile(path);
    std::string bytes = original;
    if (random() % 4 == 0) bytes.resize(random() % bytes.size());
    for (int i = 0; i < 3 && !bytes.empty(); ++i) {
      bytes[random() % std::min<size_t>(bytes.size(), 2000)] ^=
          static_cast<char>(random() % 255 + 1);
    }
    WriteFile(path, bytes);
    const auto checkpoint = Checkpoint::Open(dir.path());
    if (checkpoint.ok()) {
      (void)(*checkpoint)->ReadLayer(0, DType::kBf16);
    } else {
      EXPECT_THAT(std::string(checkpoint.status().message()), HasSubstr(dir.path()));
    }
    WriteFile(path, original);
  }
}

}  // namespace
}  // namespace gdn
