// A step of a layer as a sequence of kernels: the page to read for what runs on the device.
#pragma once

#include <cuda_runtime_api.h>

#include <cstddef>
#include <cstdint>
#include <memory>

#include "absl/status/statusor.h"
#include "kernels/backend.h"
#include "kernels/cuda/backend/device_layer.h"
#include "kernels/cuda/backend/errors.h"
#include "kernels/cuda/backend/memory.h"
#include "kernels/cuda/backend/projection.h"
#include "kernels/cuda/backend/step_block.h"
#include "kernels/ops/fused_conv_gating.h"
#include "kernels/ops/operands.h"

namespace gdn::cuda {

// The parts of the pools that belong to one layer.
struct LayerPools {
  StatePool ssm;
  StatePool conv;
  std::byte* answers = nullptr;
  int64_t answer_stride = 0;  // bytes from slot to slot
};

class LayerPipeline {
 public:
  static absl::StatusOr<std::unique_ptr<LayerPipeline>> Make(const BackendShape& shape);

  // Whether rows of one token run as one kernel, and may come in RowForm::kSingle.
  bool fused() const { return fused_; }

  // Enqueues the ops of a step. Then the block's `faults` say what became of the rows (bits of
  // kernels/ops/fused_gdn_decode.h), by kernels those of the host as well, and `answer` has the
  // output. Successive steps share what lies between the two, so all run on one stream.
  void Enqueue(const DeviceLayer& layer, const LayerPools& pools, const StepShape& step,
               const StepMemory& memory, cudaStream_t stream, Errors& errors);

 private:
  struct Step;       // what the methods below hand on
  struct CoreInput;  // what the core takes

  explicit LayerPipeline(const BackendShape& shape);
  absl::Status Allocate();

  void FetchBlock(const Step& step);
  void Decode(const Step& step);
  void Prefill(const Step& step);
  void CheckInput(const Step& step);
  CoreInput FromBlock(const Step& step) const;
  ProjectionParams InProjection(const Step& step) const;
  CoreInput ProjectIn(const Step& step);
  void CheckGates(const Step& step, const CoreInput& in);
  void ConvolveAndGate(const Step& step, CoreInput& in);
  CausalConv1dFnParams Convolution(const Step& step, const CoreInput& in) const;
  FusedGdnGatingParams Gating(const Step& step, const CoreInput& in) const;
  void DeltaRule(const Step& step, const CoreInput& in);
  void NormAndGate(const Step& step, const CoreInput& in);
  void Finish(const Step& step, const void* classify);
  void ProjectOutAndFinish(const Step& step, const void* classify);
  FinishRowsParams FinishOf(const Step& step, const void* classify) const;
  bool IsDecode(const StepShape& step) const;

  BackendShape shape_;
  Geometry g_;
  bool fused_ = false;
  int64_t in_stride_;  // of projected_, in elements
  std::unique_ptr<Projection> in_proj_;
  std::unique_ptr<Projection> out_proj_;
  Memory memory_;
  std::byte* projected_ = nullptr;  // [tokens, in_stride]
  std::byte* convolved_ = nullptr;  // [tokens, conv_dim]
  float* beta_ = nullptr;           // [tokens, HV]
  float* decay_ = nullptr;          // [tokens, HV], g
  std::byte* core_ = nullptr;       // [tokens, HV * V], where it is not the answer
  int32_t* masked_ = nullptr;       // [rows]
  std::byte* workspace_ = nullptr;
};

}  // namespace gdn::cuda
