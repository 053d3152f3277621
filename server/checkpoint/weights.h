// GDN layers of a Hugging Face checkpoint on disk: config.json and safetensors, as the hub has
// them.
#pragma once

#include <cstddef>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "kernels/geometry.h"
#include "kernels/weights.h"

namespace gdn {

// What config.json and the tensors' headers say, without reading a weight.
struct ModelInfo {
  Geometry geometry;
  DType dtype = DType::kBf16;  // of the checkpoint: `dtype`, `torch_dtype`, else of in_proj
  std::vector<int> layers;     // N of model.layers.N with a GDN layer, ascending
  bool projections = true;     // false: no layer has in_proj and out_proj
  std::string fingerprint;     // equal for equal weights, however they are cut into files
  size_t gdn_bytes = 0;        // of the GDN layers' tensors on disk
};

// A checkpoint opened for reading. Only the GDN layers' tensors matter, whatever else is there. One
// buffer serves all layers, which are converted as they are read: memory does not grow with the
// checkpoint. A layer's tensors are A_log, dt_bias, norm.weight, conv1d.weight (and, where there is
// one, conv1d.bias), out_proj.weight and in_proj_{qkv,z,b,a}.weight or, interleaved by key head,
// in_proj_{qkvz,ba}.weight, below model.layers.N.linear_attn, the same with
// model.language_model.layers.N, or their short forms.
//
// The fingerprint samples: it is a 64-bit digest of geometry, layer numbers and each GDN tensor's
// type, shape and content; of tensors over 64 KiB, 16 blocks of 4 KiB evenly spaced from the first
// byte to the last.
class Checkpoint {
 public:
  // `directory` holds config.json and either model.safetensors or model.safetensors.index.json with
  // its shards. Errors (FAILED_PRECONDITION) name the file, the tensor or key, what was expected
  // and what was found.
  static absl::StatusOr<std::unique_ptr<Checkpoint>> Open(const std::string& directory);
  virtual ~Checkpoint() = default;

  virtual const ModelInfo& info() const = 0;

  // The weights of info().layers[index] in `io`, valid until the next call. Interleaved projections
  // are put in order, matrices converted (rounded to nearest even), small vectors made fp32. Errors
  // (FAILED_PRECONDITION) as above: a file cut short since, values that are not finite in `io`.
  virtual absl::StatusOr<LayerWeights> ReadLayer(int index, DType io) = 0;
};

}  // namespace gdn
