// What runs the layers: the CPU or one accelerator. A backend owns the state pools and the weights.
// One thread calls it. Start reading at Backend::Begin.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>

#include "absl/status/status.h"
#include "kernels/batch.h"
#include "kernels/geometry.h"
#include "kernels/weights.h"

namespace gdn {

// Everything that fixes the size of a backend's pools and buffers, for the life of the process.
struct BackendShape {
  Geometry geometry;
  DType io = DType::kFp32;     // inputs, outputs, matrices and conv state
  DType state = DType::kFp32;  // ssm state: fp32 or bf16
  bool projections = true;     // whether the layers have in_proj and out_proj
  int layers = 0;
  int slots = 0;
  int64_t max_rows = 0;    // of a batch, merged requests together
  int64_t max_tokens = 0;  // of a batch
  int max_decode_tokens = 0;

  // Bytes of one token's answer in the answer pool [layer][slot][max_decode_tokens]: the widest
  // output of any layout.
  size_t answer_row_bytes() const {
    const int64_t width = projections && geometry.hidden_size > geometry.value_size()
                              ? geometry.hidden_size
                              : geometry.value_size();
    return static_cast<size_t>(width) * SizeOf(io);
  }
  // Bytes of the three pools: ssm [layer][slot][HV][V][K], conv [layer][slot][W-1][conv_dim],
  // answers [layer][slot][max_decode_tokens][answer row].
  size_t pool_bytes() const {
    const size_t per_slot = static_cast<size_t>(geometry.ssm_elements()) * SizeOf(state) +
                            static_cast<size_t>(geometry.conv_elements()) * SizeOf(io) +
                            static_cast<size_t>(max_decode_tokens) * answer_row_bytes();
    return per_slot * static_cast<size_t>(layers) * static_cast<size_t>(slots);
  }
};

class Backend {
 public:
  virtual ~Backend() = default;

  // "cpu", "cuda"…
  virtual std::string_view name() const = 0;

  // Takes the weights of layer `layer` (0-based index of the layers hosted), once for each layer
  // and before the first Begin. Errors: INVALID_ARGUMENT where shapes or types do not fit `shape`.
  virtual absl::Status LoadLayer(int layer, const LayerWeights& weights) = 0;

  // How many batches may be begun and not ended. Where it is more than one, the copies of a batch
  // overlap the arithmetic of another.
  virtual int depth() const = 0;

  // Begins to fold the batch's tokens into the state of its slots: copies in, checks every row's
  // whole input for NaN and infinity before its first state write, computes, copies out. All that
  // the batch refers to stays as it is until its End. Batches run in the order in which they were
  // begun. REQUIRES that fewer than depth() are begun and not ended, and that none of them has a
  // slot of this one, unless this is a later piece of the same request.
  virtual absl::Status Begin(const Batch& batch) = 0;

  // Waits for the oldest batch begun and not ended: the outputs of its parts are written, and
  // faults [rows] says what became of each row; rows without a fault have committed.
  //
  // A status of Begin or End that is not OK means that the device is lost: every row with a slot,
  // of all batches begun and not ended, is then undefined and every later call fails too.
  virtual absl::Status End(std::span<RowFault> faults) = 0;

  // One batch by itself. REQUIRES that none is begun.
  absl::Status Run(const Batch& batch, std::span<RowFault> faults) {
    if (absl::Status status = Begin(batch); !status.ok()) return status;
    return End(faults);
  }

  // Reads the answer that the last step with keep_answer left at (layer, slot): `bytes` from its
  // first token on, rows of the layout's own width without gaps. REQUIRES that no batch begun and
  // not ended has the slot.
  virtual absl::Status ReadAnswer(int layer, int32_t slot, std::span<std::byte> out) = 0;
};

}  // namespace gdn
