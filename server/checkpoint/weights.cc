#include "server/checkpoint/weights.h"

#include <array>
#include <optional>
#include <set>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/string_view.h"
#include "server/checkpoint/file.h"
#include "server/checkpoint/fingerprint.h"
#include "server/checkpoint/gdn_tensors.h"
#include "server/checkpoint/hf_config.h"
#include "server/checkpoint/layer_reader.h"
#include "server/checkpoint/shards.h"

namespace gdn {
namespace {

constexpr uint64_t kMaxConfigBytes = 16 << 20;
constexpr absl::string_view kAttention = ".linear_attn.";

// What goes before the layer's number: text models, those with a vision tower, and both without
// the outer module.
constexpr std::array<absl::string_view, 5> kPrefixes = {
    "model.layers.", "model.language_model.layers.", "language_model.model.layers.",
    "language_model.layers.", "layers."};

// The layers that have GDN tensors, and what their names begin with.
struct NamedLayers {
  absl::string_view prefix;
  std::set<int> numbers;

  std::string Below(int number) const { return absl::StrCat(prefix, number, kAttention); }
};

absl::Status Refuse(const Shards& shards, absl::string_view what) {
  return absl::FailedPreconditionError(absl::StrCat(shards.path, ": ", what));
}

// The numbers N of the tensors named <prefix>N.linear_attn.*
std::set<int> NumbersBelow(const Shards& shards, absl::string_view prefix) {
  std::set<int> numbers;
  for (auto it = shards.tensors.lower_bound(prefix);
       it != shards.tensors.end() && absl::StartsWith(it->first, prefix); ++it) {
    const absl::string_view rest = absl::string_view(it->first).substr(prefix.size());
    const absl::string_view digits = rest.substr(0, rest.find('.'));
    int number = 0;
    if (absl::SimpleAtoi(digits, &number) && number >= 0 &&
        absl::StartsWith(rest.substr(digits.size()), kAttention)) {
      numbers.insert(number);
    }
  }
  return numbers;
}

absl::StatusOr<NamedLayers> FindNamedLayers(const Shards& shards) {
  std::optional<NamedLayers> found;
  for (const absl::string_view prefix : kPrefixes) {
    std::set<int> numbers = NumbersBelow(shards, prefix);
    if (numbers.empty()) continue;
    if (found) {
      return Refuse(shards, absl::StrCat("expected one model, found GDN layers below both ",
                                         found->prefix, " and ", prefix));
    }
    found = NamedLayers{prefix, std::move(numbers)};
  }
  if (!found) {
    return Refuse(shards, absl::StrCat("expected tensors named N.linear_attn.* below one of ",
                                       absl::StrJoin(kPrefixes, ", "), ", found none"));
  }
  return *std::move(found);
}

// The layers to serve: those that the configuration names, where it does. A layer of another kind
// that has GDN tensors all the same is a contradiction; layers after the last one do not count.
absl::StatusOr<std::vector<int>> ChooseLayers(const HfConfig& config, const NamedLayers& named,
                                              const Shards& shards) {
  const int count = static_cast<int>(config.is_gdn.size());
  if (count == 0) return std::vector<int>(named.numbers.begin(), named.numbers.end());
  for (const int number : named.numbers) {
    if (number < count && !config.is_gdn[number]) {
      return Refuse(shards, absl::StrCat(named.Below(number),
                                         "*: expected no such tensor: by "
                                         "config.json layer ",
                                         number, " is not a GDN layer"));
    }
  }
  std::vector<int> layers;
  for (int i = 0; i < count; ++i) {
    if (config.is_gdn[i]) layers.push_back(i);
  }
  if (layers.empty()) return Refuse(shards, "expected a GDN layer by config.json, found none");
  return layers;
}

// Whether the layers have projections: all or none.
absl::StatusOr<bool> HaveProjections(const Shards& shards, const NamedLayers& named,
                                     const std::vector<int>& numbers,
                                     const std::vector<LayerTensors>& layers) {
  std::optional<int> with, without;
  for (size_t i = 0; i < layers.size(); ++i) {
    std::optional<int>& first = layers[i].has_projections() ? with : without;
    if (!first) first = numbers[i];
  }
  if (with && without) {
    return Refuse(shards, absl::StrCat(named.Below(*without),
                                       "out_proj.weight: expected "
                                       "projections in every layer or in none, found layer ",
                                       *with, " with and layer ", *without, " without them"));
  }
  return with.has_value();
}

// The type of the first tensor that speaks for the checkpoint: vectors may be fp32 in any.
DType TypeOf(const LayerTensors& layer) {
  for (const TensorRole role : {TensorRole::kQkv, TensorRole::kQkvz, TensorRole::kConvWeight}) {
    if (layer[role]) return layer[role]->type;
  }
  return layer[TensorRole::kDtBias]->type;
}

absl::StatusOr<HfConfig> ReadConfig(const std::string& path) {
  absl::StatusOr<std::string> text = ReadWhole(path, kMaxConfigBytes);
  if (!text.ok()) return text.status();
  absl::StatusOr<HfConfig> config = ParseHfConfig(*text);
  if (!config.ok()) {
    return absl::FailedPreconditionError(absl::StrCat(path, ": ", config.status().message()));
  }
  return config;
}

class SafetensorsCheckpoint : public Checkpoint {
 public:
  explicit SafetensorsCheckpoint(Shards shards) : shards_(std::move(shards)) {}

  absl::Status Resolve(const HfConfig& config);
  const ModelInfo& info() const override { return info_; }
  absl::StatusOr<LayerWeights> ReadLayer(int index, DType io) override;

 private:
  Shards shards_;
  std::vector<LayerTensors> layers_;
  ModelInfo info_;
  LayerReader reader_;
};

// Finds and checks every tensor, and fills info_.
absl::Status SafetensorsCheckpoint::Resolve(const HfConfig& config) {
  info_.geometry = config.geometry;
  absl::StatusOr<NamedLayers> named = FindNamedLayers(shards_);
  if (!named.ok()) return named.status();
  absl::StatusOr<std::vector<int>> numbers = ChooseLayers(config, *named, shards_);
  if (!numbers.ok()) return numbers.status();
  info_.layers = *std::move(numbers);
  for (const int number : info_.layers) {
    auto layer = FindLayer(config.geometry, shards_, named->Below(number));
    if (!layer.ok()) return layer.status();
    for (const auto& tensor : layer->by_role) info_.gdn_bytes += tensor ? tensor->bytes() : 0;
    layers_.push_back(*std::move(layer));
  }
  auto projections = HaveProjections(shards_, *named, info_.layers, layers_);
  if (!projections.ok()) return projections.status();
  info_.projections = *projections;
  info_.dtype = config.dtype.value_or(TypeOf(layers_.front()));
  auto fingerprint = Fingerprint(config.geometry, info_.layers, layers_);
  if (!fingerprint.ok()) return fingerprint.status();
  info_.fingerprint = *std::move(fingerprint);
  return absl::OkStatus();
}

absl::StatusOr<LayerWeights> SafetensorsCheckpoint::ReadLayer(int index, DType io) {
  if (index < 0 || index >= static_cast<int>(layers_.size())) {
    return absl::InvalidArgumentError(
        absl::StrCat("layer index: expected one in [0, ", layers_.size(), "), found ", index));
  }
  return reader_.Read(info_.geometry, layers_[index], io);
}

}  // namespace

absl::StatusOr<std::unique_ptr<Checkpoint>> Checkpoint::Open(const std::string& directory) {
  absl::StatusOr<HfConfig> config = ReadConfig(absl::StrCat(directory, "/config.json"));
  if (!config.ok()) return config.status();
  absl::StatusOr<Shards> shards = OpenShards(directory);
  if (!shards.ok()) return shards.status();
  auto checkpoint = std::make_unique<SafetensorsCheckpoint>(*std::move(shards));
  if (absl::Status resolved = checkpoint->Resolve(*config); !resolved.ok()) return resolved;
  return checkpoint;
}

}  // namespace gdn
