// From a batch in host memory to its answer there. What runs in between is in layer_pipeline.cc.
#include "kernels/cuda/backend/cuda_backend.h"

#include <cuda_runtime_api.h>

#include <algorithm>
#include <array>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "kernels/cuda/backend/layer_pipeline.h"
#include "kernels/cuda/backend/staging.h"
#include "kernels/cuda/backend/step_graphs.h"
#include "kernels/validate.h"

namespace gdn {
namespace cuda {
namespace {

// Of one layer's pools, by slot.
struct PoolLayout {
  explicit PoolLayout(const BackendShape& s)
      : ssm(static_cast<size_t>(s.geometry.ssm_elements()) * SizeOf(s.state)),
        conv(static_cast<size_t>(s.geometry.conv_elements()) * SizeOf(s.io)),
        answer(Aligned(static_cast<size_t>(s.max_decode_tokens) * s.answer_row_bytes())),
        slots(static_cast<size_t>(s.slots)) {}

  size_t layer_bytes() const {
    return Aligned(ssm * slots) + Aligned(conv * slots) + answer * slots;
  }

  size_t ssm;
  size_t conv;
  size_t answer;
  size_t slots;
};

class CudaBackend : public Backend {
 public:
  explicit CudaBackend(const BackendShape& shape)
      : shape_(shape),
        pool_layout_(shape),
        staging_{Staging(shape), Staging(shape)},
        layers_(static_cast<size_t>(shape.layers)) {}
  // What is in flight ends before its memory goes.
  ~CudaBackend() override { cudaDeviceSynchronize(); }

  absl::Status Start();

  std::string_view name() const override { return "cuda"; }
  absl::Status LoadLayer(int layer, const LayerWeights& weights) override;
  int depth() const override { return kDepth; }
  absl::Status Begin(const Batch& batch) override;
  absl::Status End(std::span<RowFault> faults) override;
  absl::Status ReadAnswer(int layer, int32_t slot, std::span<std::byte> out) override;

 private:
  // One batch computes while another is copied in or out.
  static constexpr int kDepth = 2;

  absl::Status Settle(const Errors& errors);
  StepShape ShapeOf(const Batch& batch) const;
  void Compute(int buffers, const StepShape& step, Errors& errors);
  void Prepare(int buffers, int layer, const StepShape& step);
  StepGraphs::Key KeyOf(int buffers, int layer, const StepShape& step) const;
  StepGraphs::Enqueue StepOf(int buffers, int layer, const StepShape& step);
  LayerPools PoolsOf(int layer) const;
  Staging& staging(int buffers) { return staging_[static_cast<size_t>(buffers)]; }

  BackendShape shape_;
  PoolLayout pool_layout_;
  absl::Status lost_;  // why, once the device is
  Memory pools_;       // by layer: ssm, conv, answers
  std::array<Staging, kDepth> staging_;
  int oldest_ = 0;  // in staging_, of the batches begun and not ended
  int begun_ = 0;   // how many these are
  std::unique_ptr<LayerPipeline> pipeline_;
  std::vector<DeviceLayer> layers_;
  StepGraphs graphs_;
};

absl::Status CudaBackend::Start() {
  Errors errors;
  errors.Add("device", cudaSetDevice(0));
  if (!errors.ok()) return errors.status();
  auto pools = Memory::Make(Memory::Place::kDevice, pool_layout_.layer_bytes() * layers_.size());
  if (!pools.ok()) return pools.status();
  pools_ = *std::move(pools);
  for (Staging& staging : staging_) {
    if (absl::Status status = staging.Allocate(); !status.ok()) return status;
  }
  auto pipeline = LayerPipeline::Make(shape_);
  if (!pipeline.ok()) return pipeline.status();
  pipeline_ = *std::move(pipeline);
  return absl::OkStatus();
}

absl::Status CudaBackend::LoadLayer(int layer, const LayerWeights& weights) {
  if (layer < 0 || layer >= shape_.layers) return absl::InvalidArgumentError("no such layer");
  if (absl::Status status = Validate(weights, shape_); !status.ok()) return status;
  absl::StatusOr<DeviceLayer> loaded = ToDevice(weights);
  if (!loaded.ok()) return loaded.status();
  layers_[static_cast<size_t>(layer)] = *std::move(loaded);
  if (!pipeline_->fused() || !shape_.projections) return absl::OkStatus();
  // The main way in is captured now, the others when they are first gone.
  for (int64_t rows = 1; rows <= GraphRows(shape_.max_rows); rows = GraphRows(rows + 1)) {
    StepShape step;
    step.rows = step.tokens = rows;
    if (rows > shape_.max_tokens) break;
    for (int buffers = 0; buffers < kDepth; ++buffers) {
      step.by_kernels = false;
      Prepare(buffers, layer, step);
      step.by_kernels = IsSmall(shape_, step);
      if (step.by_kernels) Prepare(buffers, layer, step);
    }
  }
  return absl::OkStatus();
}

// All on the batch's own stream; only its ops wait for those of the batch before. So the host
// gathers a batch, and the copy engines move it, while the one before computes. With none before it
// there is nothing to do meanwhile, and a small step does without them: to take over from a copy
// engine, or it from the kernels, takes longer than the copy.
absl::Status CudaBackend::Begin(const Batch& batch) {
  if (!lost_.ok()) return lost_;
  const int buffers = (oldest_ + begun_) % kDepth;
  ++begun_;
  Errors errors;
  const StepShape step = ShapeOf(batch);
  Staging& own = staging(buffers);
  own.CopyIn(batch, step, errors);
  if (step.tokens > 0) Compute(buffers, step, errors);
  if (errors.ok()) own.CopyOut(errors);
  return Settle(errors);
}

absl::Status CudaBackend::End(std::span<RowFault> faults) {
  if (!lost_.ok()) return lost_;
  Errors errors;
  staging(oldest_).HandOut(faults, errors);
  oldest_ = (oldest_ + 1) % kDepth;
  --begun_;
  return Settle(errors);
}

// An error of CUDA's is the device's end: what it was doing, and all that it would do, is lost.
// Where it goes on all the same, it is waited for: its copies must not reach memory that is given
// back.
absl::Status CudaBackend::Settle(const Errors& errors) {
  if (errors.ok()) return lost_;
  lost_ = errors.status();
  cudaDeviceSynchronize();
  return lost_;
}

StepShape CudaBackend::ShapeOf(const Batch& batch) const {
  StepShape step;
  step.layout = batch.layout;
  step.rows = batch.rows();
  step.tokens = batch.tokens();
  bool single = pipeline_->fused();
  for (int64_t row = 0; row < batch.rows(); ++row) {
    const int64_t length = batch.length(row);
    single = single && length == 1;
    step.longest = std::max(step.longest, length);
    step.chunks += (length + kChunk - 1) / kChunk;
  }
  const int64_t padded = GraphRows(step.rows);
  if (!single || padded > shape_.max_tokens) {
    step.form = RowForm::kAny;
    return step;
  }
  step.form = RowForm::kSingle;
  step.rows = step.tokens = padded;
  step.chunks = 0;
  step.by_kernels = begun_ == 1 && IsSmall(shape_, step);
  return step;
}

// The batch's ops, after those of the batch before.
void CudaBackend::Compute(int buffers, const StepShape& step, Errors& errors) {
  Staging& own = staging(buffers);
  const int layer = own.batch().layer;
  if (begun_ > 1) {
    errors.Add("step", cudaStreamWaitEvent(own.stream(), staging(oldest_).computed(), 0));
  }
  if (step.form == RowForm::kSingle) {
    graphs_.Launch(KeyOf(buffers, layer, step), StepOf(buffers, layer, step), own.stream(), errors);
  } else {
    StepOf(buffers, layer, step)(own.stream(), errors);
  }
  errors.Add("step", cudaEventRecord(own.computed(), own.stream()));
}

StepGraphs::Key CudaBackend::KeyOf(int buffers, int layer, const StepShape& step) const {
  return {layer, step.layout, step.rows, step.by_kernels, buffers};
}

void CudaBackend::Prepare(int buffers, int layer, const StepShape& step) {
  graphs_.Prepare(KeyOf(buffers, layer, step), StepOf(buffers, layer, step),
                  staging(buffers).stream());
}

// What a decode graph holds.
StepGraphs::Enqueue CudaBackend::StepOf(int buffers, int layer, const StepShape& step) {
  return [this, buffers, layer, step](cudaStream_t stream, Errors& errors) {
    pipeline_->Enqueue(layers_[static_cast<size_t>(layer)], PoolsOf(layer), step,
                       staging(buffers).memory(), stream, errors);
  };
}

LayerPools CudaBackend::PoolsOf(int layer) const {
  const PoolLayout& pool = pool_layout_;
  std::byte* ssm = pools_.data() + pool.layer_bytes() * static_cast<size_t>(layer);
  std::byte* conv = ssm + Aligned(pool.ssm * pool.slots);
  LayerPools pools;
  pools.ssm = {ssm, shape_.state, shape_.geometry.ssm_elements()};
  pools.conv = {conv, shape_.io, shape_.geometry.conv_elements()};
  pools.answers = conv + Aligned(pool.conv * pool.slots);
  pools.answer_stride = static_cast<int64_t>(pool.answer);
  return pools;
}

// Not behind the batches in flight: the one that left the answer has ended.
absl::Status CudaBackend::ReadAnswer(int layer, int32_t slot, std::span<std::byte> out) {
  if (!lost_.ok()) return lost_;
  const LayerPools pools = PoolsOf(layer);
  Errors errors;
  errors.Add("read answer", cudaMemcpy(out.data(), pools.answers + pools.answer_stride * slot,
                                       out.size(), cudaMemcpyDeviceToHost));
  return Settle(errors);
}

}  // namespace
}  // namespace cuda

bool CudaDevicePresent() {
  int count = 0, major = 0;
  if (cudaGetDeviceCount(&count) != cudaSuccess || count == 0) return false;
  return cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, 0) == cudaSuccess &&
         major == 9;
}

absl::StatusOr<std::unique_ptr<Backend>> MakeCudaBackend(const BackendShape& shape) {
  if (!CudaDevicePresent()) return absl::FailedPreconditionError("there is no Hopper GPU");
  auto backend = std::make_unique<cuda::CudaBackend>(shape);
  if (absl::Status status = backend->Start(); !status.ok()) return status;
  return backend;
}

}  // namespace gdn
