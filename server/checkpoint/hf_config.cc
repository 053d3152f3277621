#include "server/checkpoint/hf_config.h"

#include <cmath>
#include <cstdint>
#include <initializer_list>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/string_view.h"
#include "absl/strings/strip.h"
#include "kernels/validate.h"
#include "nlohmann/json.hpp"
#include "server/checkpoint/json.h"

namespace gdn {
namespace {

using nlohmann::json;

constexpr int64_t kMaxSize = 1 << 20;  // of any dimension or count: their products fit 64 bits

absl::Status Unexpected(absl::string_view key, absl::string_view expected, const json* found) {
  return absl::FailedPreconditionError(
      absl::StrCat(key, ": expected ", expected, ", found ", Describe(found)));
}

// A key's value; null where the key is absent or its value is JSON's null.
const json* Find(const json& object, const char* key) {
  const auto it = object.find(key);
  return it == object.end() || it->is_null() ? nullptr : &*it;
}

absl::Status ReadInt(const json& config, const char* key, int64_t least, int* out) {
  const json* value = Find(config, key);
  if (value == nullptr || !value->is_number_integer() || value->get<int64_t>() < least ||
      value->get<int64_t>() > kMaxSize) {
    return Unexpected(key, absl::StrCat("an integer in [", least, ", ", kMaxSize, "]"), value);
  }
  *out = static_cast<int>(value->get<int64_t>());
  return absl::OkStatus();
}

// One of `choices`, or `otherwise` where the key is absent.
template <typename T>
absl::Status ReadChoice(const json& config, const char* key,
                        std::initializer_list<std::pair<const char*, T>> choices, T otherwise,
                        T* out) {
  *out = otherwise;
  const json* value = Find(config, key);
  if (value == nullptr) return absl::OkStatus();
  for (const auto& [name, choice] : choices) {
    if (*value == name) {
      *out = choice;
      return absl::OkStatus();
    }
  }
  const auto name_only = [](std::string* out, const auto& choice) { *out += choice.first; };
  return Unexpected(key, absl::StrJoin(choices, " or ", name_only), value);
}

absl::Status ReadNormEps(const json& config, float* out) {
  const json* value = Find(config, "rms_norm_eps");
  if (value == nullptr) return absl::OkStatus();
  if (value->is_number()) *out = value->get<float>();
  if (!value->is_number() || !(*out > 0) || !std::isfinite(*out)) {
    return Unexpected("rms_norm_eps", "a positive number", value);
  }
  return absl::OkStatus();
}

absl::Status ReadGeometry(const json& config, Geometry* g) {
  const std::initializer_list<absl::Status> results = {
      ReadInt(config, "hidden_size", 1, &g->hidden_size),
      ReadInt(config, "linear_num_key_heads", 1, &g->key_heads),
      ReadInt(config, "linear_num_value_heads", 1, &g->value_heads),
      ReadInt(config, "linear_key_head_dim", 1, &g->key_dim),
      ReadInt(config, "linear_value_head_dim", 1, &g->value_dim),
      ReadInt(config, "linear_conv_kernel_dim", 0, &g->conv_width),
      ReadNormEps(config, &g->norm_eps),
      ReadChoice<Activation>(config, "hidden_act",
                             {{"silu", Activation::kSilu}, {"swish", Activation::kSilu}},
                             Activation::kSilu, &g->conv_activation),
      ReadChoice<Gate>(config, "output_gate_type",
                       {{"silu", Gate::kSilu}, {"swish", Gate::kSilu}, {"sigmoid", Gate::kSigmoid}},
                       Gate::kSilu, &g->gate),
  };
  for (const absl::Status& result : results) {
    if (!result.ok()) return result;
  }
  return absl::OkStatus();
}

// What a layer must be, told by the keys that it was read from.
absl::Status CheckGeometry(const Geometry& g) {
  constexpr std::pair<absl::string_view, absl::string_view> kKeys[] = {
      {"key_heads:", "linear_num_key_heads:"},    {"value_heads:", "linear_num_value_heads:"},
      {"key_dim:", "linear_key_head_dim:"},       {"value_dim:", "linear_value_head_dim:"},
      {"conv_width:", "linear_conv_kernel_dim:"}, {"norm_eps:", "rms_norm_eps:"}};
  absl::Status valid = Validate(g);
  for (const auto& [field, key] : kKeys) {
    absl::string_view rest = valid.message();
    if (absl::ConsumePrefix(&rest, field)) {
      return absl::FailedPreconditionError(absl::StrCat(key, rest));
    }
  }
  return valid;
}

// The first that is stated: dtype or torch_dtype of `config`, then of `root`.
absl::Status ReadDType(const json& root, const json& config, std::optional<DType>* out) {
  for (const json* object : {&config, &root}) {
    for (const char* key : {"dtype", "torch_dtype"}) {
      absl::Status read = ReadChoice<std::optional<DType>>(
          *object, key,
          {{"bfloat16", DType::kBf16}, {"float16", DType::kFp16}, {"float32", DType::kFp32}},
          std::nullopt, out);
      if (!read.ok() || out->has_value()) return read;
    }
  }
  return absl::OkStatus();
}

absl::Status ReadLayerTypes(const json& types, std::vector<bool>* is_gdn) {
  if (!types.is_array() || types.size() > static_cast<size_t>(kMaxSize)) {
    return Unexpected("layer_types", "an array of names", &types);
  }
  for (const json& type : types) {
    if (!type.is_string()) return Unexpected("layer_types", "an array of names", &types);
    is_gdn->push_back(type == "linear_attention");
  }
  return absl::OkStatus();
}

absl::Status ReadLayers(const json& config, std::vector<bool>* is_gdn) {
  const json* count = Find(config, "num_hidden_layers");
  int layers = 0;
  if (count != nullptr) {
    if (absl::Status read = ReadInt(config, "num_hidden_layers", 1, &layers); !read.ok()) {
      return read;
    }
  }
  if (const json* types = Find(config, "layer_types"); types != nullptr) {
    if (absl::Status read = ReadLayerTypes(*types, is_gdn); !read.ok()) return read;
    if (count != nullptr && is_gdn->size() != static_cast<size_t>(layers)) {
      return Unexpected("num_hidden_layers",
                        absl::StrCat(is_gdn->size(), ", the length of layer_types"), count);
    }
    return absl::OkStatus();
  }
  int interval = 4;
  if (Find(config, "full_attention_interval") != nullptr) {
    absl::Status read = ReadInt(config, "full_attention_interval", 1, &interval);
    if (!read.ok()) return read;
  }
  for (int i = 0; i < layers; ++i) is_gdn->push_back((i + 1) % interval != 0);
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<HfConfig> ParseHfConfig(absl::string_view text) {
  const json root = json::parse(text.begin(), text.end(), nullptr, /*allow_exceptions=*/false);
  if (!root.is_object()) return absl::FailedPreconditionError("expected a JSON object");
  const json* nested = Find(root, "text_config");
  const json& config = nested == nullptr ? root : *nested;
  if (!config.is_object()) return Unexpected("text_config", "an object", nested);

  HfConfig result;
  for (const absl::Status& read :
       {ReadGeometry(config, &result.geometry), CheckGeometry(result.geometry),
        ReadDType(root, config, &result.dtype), ReadLayers(config, &result.is_gdn)}) {
    if (!read.ok()) return read;
  }
  return result;
}

}  // namespace gdn
