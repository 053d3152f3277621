// config.json of a Hugging Face model, as far as its GDN layers are concerned.
#pragma once

#include <optional>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "kernels/geometry.h"

namespace gdn {

// What layer N of the model is: full attention, another mixer, a GDN layer.
struct HfConfig {
  Geometry geometry;
  std::optional<DType> dtype;  // `dtype` or `torch_dtype`

  // [number of layers], true at GDN layers; empty where the configuration does not say how many
  // layers there are.
  std::vector<bool> is_gdn;
};

// Parses config.json of Qwen3-Next, Qwen3.5 and their kin; a nested `text_config` is the
// configuration. Which model it is does not matter: the keys and the tensors say everything.
// `layer_types` names the GDN layers ("linear_attention"); without it layer i is one unless i + 1
// is a multiple of `full_attention_interval` (default 4). The geometry is one that Validate passes.
// Errors (FAILED_PRECONDITION) name the key, what was expected and found; they do not name the
// file.
absl::StatusOr<HfConfig> ParseHfConfig(absl::string_view json);

}  // namespace gdn
