#include "server/checkpoint/gdn_tensors.h"

#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "server/checkpoint/json.h"

namespace gdn {
namespace {

struct Spec {
  TensorRole role;
  absl::string_view name;
  std::vector<int64_t> shape;
};

// What a layer may have. Without a convolution (W = 0) there is no conv1d.
std::vector<Spec> Specs(const Geometry& g) {
  using R = TensorRole;
  const int64_t hidden = g.hidden_size, heads = g.value_heads;
  std::vector<Spec> specs = {
      {R::kQkv, "in_proj_qkv.weight", {g.conv_dim(), hidden}},
      {R::kZ, "in_proj_z.weight", {g.value_size(), hidden}},
      {R::kB, "in_proj_b.weight", {heads, hidden}},
      {R::kA, "in_proj_a.weight", {heads, hidden}},
      {R::kQkvz, "in_proj_qkvz.weight", {g.conv_dim() + g.value_size(), hidden}},
      {R::kBa, "in_proj_ba.weight", {2 * heads, hidden}},
      {R::kOut, "out_proj.weight", {hidden, g.value_size()}},
      {R::kALog, "A_log", {heads}},
      {R::kDtBias, "dt_bias", {heads}},
      {R::kNorm, "norm.weight", {g.value_dim}},
  };
  if (g.conv_width > 0) {
    specs.push_back({R::kConvWeight, "conv1d.weight", {g.conv_dim(), 1, g.conv_width}});
    specs.push_back({R::kConvBias, "conv1d.bias", {g.conv_dim()}});
  }
  return specs;
}

std::optional<DType> ParseType(absl::string_view type) {
  if (type == "BF16") return DType::kBf16;
  if (type == "F16") return DType::kFp16;
  if (type == "F32") return DType::kFp32;
  return std::nullopt;
}

// Checks the tensor against its spec.
absl::StatusOr<TensorSource> MakeSource(const Spec& spec, absl::string_view name,
                                        const TensorLocation& location) {
  const SafetensorsEntry& entry = *location.entry;
  const std::optional<DType> type = ParseType(entry.type);
  if (!type || entry.shape != spec.shape) {
    return absl::FailedPreconditionError(absl::StrCat(
        location.file->path(), ": ", name, ": expected BF16, F16 or F32 ", ShapeString(spec.shape),
        ", found ", Printable(entry.type), " ", ShapeString(entry.shape)));
  }
  return TensorSource{.name = std::string(name),
                      .file = location.file,
                      .type = *type,
                      .rows = spec.shape.front(),
                      .columns = spec.shape.size() == 1 ? 1 : spec.shape.back(),
                      .offset = entry.offset};
}

absl::Status Missing(const Shards& shards, absl::string_view prefix, const Spec& spec) {
  return absl::FailedPreconditionError(absl::StrCat(shards.path, ": ", prefix, spec.name,
                                                    ": expected BF16, F16 or F32 ",
                                                    ShapeString(spec.shape), ", found nothing"));
}

// Whether a layer with these tensors must have `role` too.
bool IsRequired(const LayerTensors& layer, TensorRole role) {
  using R = TensorRole;
  const bool split = layer[R::kQkv] || layer[R::kZ] || layer[R::kB] || layer[R::kA];
  const bool interleaved = layer[R::kQkvz] || layer[R::kBa];
  switch (role) {
    case R::kQkv:
    case R::kZ:
    case R::kB:
    case R::kA:
      return split || (layer[R::kOut] && !interleaved);
    case R::kQkvz:
    case R::kBa:
      return interleaved;
    case R::kOut:
      return split || interleaved;
    case R::kConvBias:
      return false;
    default:
      return true;
  }
}

// Everything below the prefix is a tensor that a layer has, and of one form.
absl::Status RefuseStrangers(const Shards& shards, absl::string_view prefix,
                             const std::vector<Spec>& specs, const LayerTensors& layer) {
  using R = TensorRole;
  for (auto it = shards.tensors.lower_bound(prefix); it != shards.tensors.end(); ++it) {
    const auto& [name, location] = *it;
    if (!absl::StartsWith(name, prefix)) break;
    const absl::string_view rest = absl::string_view(name).substr(prefix.size());
    bool known = false;
    for (const Spec& spec : specs) known |= spec.name == rest;
    if (known) continue;
    return absl::FailedPreconditionError(
        absl::StrCat(location.file->path(), ": ", Printable(name),
                     ": not a tensor of a GDN layer of this kind"));
  }
  if (layer[R::kQkvz] && layer[R::kQkv]) {
    return absl::FailedPreconditionError(
        absl::StrCat(layer[R::kQkvz]->file->path(), ": ", layer[R::kQkvz]->name,
                     ": expected either it or ", layer[R::kQkv]->name, ", found both"));
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<LayerTensors> FindLayer(const Geometry& g, const Shards& shards,
                                       const std::string& prefix) {
  const std::vector<Spec> specs = Specs(g);
  LayerTensors layer;
  for (const Spec& spec : specs) {
    const auto it = shards.tensors.find(absl::StrCat(prefix, spec.name));
    if (it == shards.tensors.end()) continue;
    absl::StatusOr<TensorSource> source = MakeSource(spec, it->first, it->second);
    if (!source.ok()) return source.status();
    layer.by_role[static_cast<size_t>(spec.role)] = *std::move(source);
  }
  absl::Status strangers = RefuseStrangers(shards, prefix, specs, layer);
  if (!strangers.ok()) return strangers;
  for (const Spec& spec : specs) {
    if (!layer[spec.role] && IsRequired(layer, spec.role)) return Missing(shards, prefix, spec);
  }
  return layer;
}

}  // namespace gdn
