#include "server/checkpoint/hf_config.h"

#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "nlohmann/json.hpp"

namespace gdn {
namespace {

using nlohmann::json;
using ::testing::HasSubstr;

json SmallConfig() {
  return {
      {"model_type", "qwen3_next"},   {"hidden_size", 2048},        {"num_hidden_layers", 8},
      {"hidden_act", "silu"},         {"rms_norm_eps", 1e-5},       {"linear_num_key_heads", 16},
      {"linear_num_value_heads", 48}, {"linear_key_head_dim", 128}, {"linear_value_head_dim", 64},
      {"linear_conv_kernel_dim", 4},  {"torch_dtype", "bfloat16"}};
}

HfConfig Parse(const json& config) {
  auto parsed = ParseHfConfig(config.dump());
  EXPECT_TRUE(parsed.ok()) << parsed.status();
  return parsed.ok() ? *parsed : HfConfig{};
}

std::vector<int> Layers(const HfConfig& config) {
  std::vector<int> layers;
  for (size_t i = 0; i < config.is_gdn.size(); ++i) {
    if (config.is_gdn[i]) layers.push_back(static_cast<int>(i));
  }
  return layers;
}

TEST(ParseHfConfig, ReadsTheGeometry) {
  const HfConfig config = Parse(SmallConfig());
  EXPECT_EQ(config.geometry, (Geometry{.hidden_size = 2048,
                                       .key_heads = 16,
                                       .value_heads = 48,
                                       .key_dim = 128,
                                       .value_dim = 64,
                                       .conv_width = 4,
                                       .conv_activation = Activation::kSilu,
                                       .gate = Gate::kSilu,
                                       .qk_l2norm = true,
                                       .norm_eps = 1e-5f}));
  EXPECT_EQ(config.dtype, DType::kBf16);
  EXPECT_EQ(Layers(config), (std::vector<int>{0, 1, 2, 4, 5, 6}));
}

TEST(ParseHfConfig, NestedTextConfigIsTheConfiguration) {
  json nested = SmallConfig();
  nested["full_attention_interval"] = 3;
  const json root = {{"model_type", "qwen3_5"},
                     {"hidden_size", 7},
                     {"vision_config", {{"hidden_size", 9}}},
                     {"text_config", nested}};
  const HfConfig config = Parse(root);
  EXPECT_EQ(config.geometry, Parse(SmallConfig()).geometry);
  EXPECT_EQ(Layers(config), (std::vector<int>{0, 1, 3, 4, 6, 7}));
}

TEST(ParseHfConfig, LayerTypesNameTheLayers) {
  json config = SmallConfig();
  config["num_hidden_layers"] = 4;
  config["full_attention_interval"] = 2;
  config["layer_types"] = {"full_attention", "linear_attention", "sliding_attention",
                           "linear_attention"};
  EXPECT_EQ(Layers(Parse(config)), (std::vector<int>{1, 3}));
  config.erase("num_hidden_layers");
  EXPECT_EQ(Layers(Parse(config)), (std::vector<int>{1, 3}));
}

TEST(ParseHfConfig, WithoutACountOfLayersTheTensorsDecide) {
  json config = SmallConfig();
  config.erase("num_hidden_layers");
  EXPECT_TRUE(Parse(config).is_gdn.empty());
}

TEST(ParseHfConfig, TypeComesFromTheFirstPlaceThatStatesIt) {
  json config = SmallConfig();
  config["dtype"] = "float16";
  EXPECT_EQ(Parse(config).dtype, DType::kFp16);
  config["dtype"] = nullptr;
  EXPECT_EQ(Parse(config).dtype, DType::kBf16);
  config.erase("torch_dtype");
  EXPECT_EQ(Parse(config).dtype, std::nullopt);
  EXPECT_EQ(Parse({{"text_config", config}, {"torch_dtype", "float32"}}).dtype, DType::kFp32);
  config["dtype"] = "float16";
  EXPECT_EQ(Parse({{"text_config", config}, {"dtype", "float32"}}).dtype, DType::kFp16);
}

TEST(ParseHfConfig, ReadsTheGate) {
  json config = SmallConfig();
  for (const auto& [name, gate] : {std::pair("silu", Gate::kSilu), std::pair("swish", Gate::kSilu),
                                   std::pair("sigmoid", Gate::kSigmoid)}) {
    config["output_gate_type"] = name;
    EXPECT_EQ(Parse(config).geometry.gate, gate) << name;
  }
}

TEST(ParseHfConfig, ModelsWithoutEpsOrActivationHaveTheUsualOnes) {
  json config = SmallConfig();
  config.erase("rms_norm_eps");
  config.erase("hidden_act");
  EXPECT_EQ(Parse(config).geometry.norm_eps, 1e-6f);
}

struct BadValue {
  const char* key;
  json value;  // null: the key is absent
  const char* message;
};

class BadValueTest : public ::testing::TestWithParam<BadValue> {};

TEST_P(BadValueTest, IsRefusedByName) {
  json config = SmallConfig();
  config[GetParam().key] = GetParam().value;
  for (const json& root : {config, json{{"text_config", config}}}) {
    const auto parsed = ParseHfConfig(root.dump());
    ASSERT_EQ(parsed.status().code(), absl::StatusCode::kFailedPrecondition);
    EXPECT_THAT(std::string(parsed.status().message()), HasSubstr(GetParam().message));
  }
}

INSTANTIATE_TEST_SUITE_P(
    All, BadValueTest,
    ::testing::Values(
        BadValue{"hidden_size", nullptr,
                 "hidden_size: expected an integer in [1, 1048576], found"
                 " nothing"},
        BadValue{"hidden_size", 0, "hidden_size: expected an integer in [1, 1048576], found 0"},
        BadValue{"hidden_size", "2048",
                 "hidden_size: expected an integer in [1, 1048576], found "
                 "\"2048\""},
        BadValue{"linear_num_key_heads", nullptr, "linear_num_key_heads: expected an integer"},
        BadValue{"linear_num_value_heads", -3, "linear_num_value_heads: expected an integer"},
        BadValue{"linear_key_head_dim", 1.5, "linear_key_head_dim: expected an integer"},
        BadValue{"linear_value_head_dim", uint64_t{1} << 63, "linear_value_head_dim: expected an"},
        BadValue{"linear_conv_kernel_dim", -1, "linear_conv_kernel_dim: expected an integer in [0"},
        BadValue{"linear_num_value_heads", 24,
                 "linear_num_value_heads: expected a multiple of the 16 key_heads, found 24"},
        BadValue{"linear_key_head_dim", 48,
                 "linear_key_head_dim: expected 64 to 256 in steps of 32, found 48"},
        BadValue{"linear_value_head_dim", 288, "linear_value_head_dim: expected 64 to 256"},
        BadValue{"linear_conv_kernel_dim", 5, "linear_conv_kernel_dim: expected 0 or 2 to 4"},
        BadValue{"rms_norm_eps", 0.0, "rms_norm_eps: expected a positive number, found 0.0"},
        BadValue{"rms_norm_eps", 1e300, "rms_norm_eps: expected a positive number"},
        BadValue{"hidden_act", "gelu", "hidden_act: expected silu or swish, found \"gelu\""},
        BadValue{"output_gate_type", "tanh",
                 "output_gate_type: expected silu or swish or sigmoid, "
                 "found \"tanh\""},
        BadValue{"dtype", "float8_e4m3fn",
                 "dtype: expected bfloat16 or float16 or float32, found "
                 "\"float8_e4m3fn\""},
        BadValue{"num_hidden_layers", 0, "num_hidden_layers: expected an integer in [1"},
        BadValue{"full_attention_interval", 0,
                 "full_attention_interval: expected an integer in [1"},
        BadValue{"layer_types", 4, "layer_types: expected an array of names, found 4"},
        BadValue{"layer_types", json::array({1}), "layer_types: expected an array of names"},
        BadValue{"layer_types", json::array({"linear_attention"}),
                 "num_hidden_layers: expected 1, the length of layer_types, found 8"}));

TEST(ParseHfConfig, RefusesWhatIsNoObject) {
  const std::string deep =
      "{\"text_config\": " + std::string(1 << 20, '[') + std::string(1 << 20, ']') + "}";
  for (const std::string& text : {std::string(), std::string("[]"), std::string("{"), deep,
                                  std::string("{\"text_config\": 3}")}) {
    EXPECT_EQ(ParseHfConfig(text).status().code(), absl::StatusCode::kFailedPrecondition);
  }
}

}  // namespace
}  // namespace gdn
