// What can be said of a step when it arrives, before any sequence is looked at.
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

#include "kernels/geometry.h"
#include "server/wire/fault.h"
#include "server/wire/step.h"

namespace gdn {

// What the server hosts and allows, as GetServerInfo tells it.
struct StepLimits {
  Geometry geometry;
  DType io = DType::kBf16;       // of inputs and outputs
  std::vector<uint32_t> layers;  // N of model.layers.N
  bool projections = false;      // the HIDDEN layout is taken
  uint32_t slots = 0;
  uint32_t max_rows = 0;           // of a batch, padding included; less than kMaxRequestIds
  uint64_t max_tokens = 0;         // of a batch, padding included
  uint32_t max_decode_tokens = 0;  // of a row of Decode
  bool allow_synthetic_input = false;
  bool allow_shared_memory = false;
};

// ok(), or why the step is refused. Of several faults the first of: BATCH_TOO_LARGE (rows),
// MALFORMED_BATCH, UNSUPPORTED, BATCH_TOO_LARGE (tokens), SYNTHETIC_INPUT_DISABLED,
// INPUT_SIZE_MISMATCH; then the rows' own, all of them named: MALFORMED_ID, DUPLICATE_ROW (not the
// first of equal rows), SLOT_OUT_OF_RANGE.
// A step that passes has 1 to max_rows rows, arrays that are empty or of that length, and an input
// of exactly total_tokens() * InputRowBytes(): none with synthetic_seed, where what was sent is not
// read, nor with shared_memory, where PlaceStep says what else holds.
Fault ValidateStep(const StepRequest& request, StepKind kind, const StepLimits& limits);

// Whether `id` can name a sequence or a checkpoint: 1 to 128 of [A-Za-z0-9._:/-].
bool IsWellFormedId(std::string_view id);

}  // namespace gdn
