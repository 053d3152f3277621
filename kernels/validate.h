// Checks of everything that reaches a backend, on the host and before anything runs. Errors are
// INVALID_ARGUMENT and say what was expected and what was found.
#pragma once

#include "absl/status/status.h"
#include "kernels/backend.h"
#include "kernels/batch.h"
#include "kernels/geometry.h"
#include "kernels/weights.h"

namespace gdn {

absl::Status Validate(const Geometry& g);

absl::Status Validate(const BackendShape& shape);

// Names the weight that does not fit. `shape` is valid.
absl::Status Validate(const LayerWeights& weights, const BackendShape& shape);

// Layer, layout, limits, offsets, slots (in range, none twice), the sizes of the per-row arrays,
// and that the parts cover the tokens with the right number of bytes. `shape` is valid. Values of
// the input are not looked at.
absl::Status Validate(const Batch& batch, const BackendShape& shape);

}  // namespace gdn
