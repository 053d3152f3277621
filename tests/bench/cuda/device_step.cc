#include "tests/bench/cuda/device_step.h"

#include <cuda_runtime_api.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "kernels/cuda/backend/layer_pipeline.h"
#include "kernels/cuda/backend/memory.h"
#include "kernels/cuda/backend/staging.h"
#include "kernels/cuda/backend/step_graphs.h"
#include "tests/bench/bf16_noise.h"

namespace gdn::bench {
namespace {

using cuda::Memory;

void Check(const absl::Status& status) {
  if (status.ok()) return;
  std::fprintf(stderr, "%s\n", std::string(status.message()).c_str());
  std::exit(1);
}

Memory Make(Memory::Place place, int64_t bytes) {
  absl::StatusOr<Memory> memory = Memory::Make(place, static_cast<size_t>(bytes));
  Check(memory.status());
  return *std::move(memory);
}

constexpr int64_t kScratchBytes = int64_t{1} << 30;  // 0.2 ms or more

class TimedStep {
 public:
  TimedStep(const BackendShape& shape, const LayerWeights& weights, int64_t rows, int64_t tokens)
      : shape_(shape),
        staging_(shape),
        ssm_(Make(Memory::Place::kDevice, shape.slots * shape.geometry.ssm_elements() *
                                              static_cast<int64_t>(SizeOf(shape.state)))),
        conv_(Make(Memory::Place::kDevice, shape.slots * shape.geometry.conv_elements() *
                                               static_cast<int64_t>(SizeOf(shape.io)))),
        answers_(Make(Memory::Place::kDevice,
                      shape.slots * static_cast<int64_t>(shape.answer_row_bytes()))),
        scratch_(Make(Memory::Place::kDevice, kScratchBytes)),
        input_(Make(Memory::Place::kPinned, tokens * RowBytes())),
        output_(Make(Memory::Place::kPinned, tokens * RowBytes())) {
    Check(staging_.Allocate());
    auto pipeline = cuda::LayerPipeline::Make(shape);
    Check(pipeline.status());
    pipeline_ = *std::move(pipeline);
    auto layer = cuda::ToDevice(weights);
    Check(layer.status());
    layer_ = *std::move(layer);
    pools_ = {{ssm_.data(), shape.state, shape.geometry.ssm_elements()},
              {conv_.data(), shape.io, shape.geometry.conv_elements()},
              answers_.data(),
              static_cast<int64_t>(shape.answer_row_bytes())};
    FillWithBf16({input_.data(), input_.size()});
    for (const Memory* pool : {&ssm_, &conv_}) {
      errors_.Add("pool", cudaMemset(pool->data(), 0, pool->size()));
    }
    for (cudaEvent_t& event : events_) errors_.Add("event", cudaEventCreate(&event));
    MakeBatch(rows, tokens);
    Check(errors_.status());
  }
  TimedStep(const TimedStep&) = delete;
  TimedStep& operator=(const TimedStep&) = delete;
  ~TimedStep() {
    for (cudaEvent_t event : events_) cudaEventDestroy(event);
  }

  // What is written first leaves nothing of the step in cache, and takes longer than the host does
  // to enqueue the step.
  DeviceTime Run() {
    const cudaStream_t stream = staging_.stream();
    errors_.Add("scratch", cudaMemsetAsync(scratch_.data(), 0, scratch_.size(), stream));
    Record(0);
    staging_.CopyIn(batch_, step_, errors_);
    Record(1);
    Compute(stream);
    Record(2);
    staging_.CopyOut(errors_);
    Record(3);
    staging_.HandOut(faults_, errors_);
    errors_.Add("event", cudaEventSynchronize(events_[3]));
    Check(errors_.status());
    return {Between(0, 3), Between(1, 2)};
  }

 private:
  int64_t RowBytes() const {
    return shape_.geometry.hidden_size * static_cast<int64_t>(SizeOf(shape_.io));
  }

  void MakeBatch(int64_t rows, int64_t tokens) {
    for (int64_t row = 0; row < rows; ++row) {
      slots_.push_back(static_cast<int32_t>(row));
      offsets_.push_back((row + 1) * (tokens / rows));
    }
    flags_.assign(slots_.size(), 1);
    faults_.resize(slots_.size());
    piece_ = {reinterpret_cast<const char*>(input_.data()), input_.size()};
    part_.tokens = tokens;
    part_.input = {&piece_, 1};
    part_.output = output_.data();
    part_.direct_input = part_.direct_output = true;
    batch_.offsets = offsets_;
    batch_.slots = slots_;
    batch_.has_initial_state = batch_.keep_answer = flags_;
    batch_.parts = {&part_, 1};
    step_.rows = rows;
    step_.tokens = tokens;
    step_.by_kernels = rows == tokens && IsSmall(shape_, step_);
    if (rows == tokens) return;
    flags_.assign(slots_.size(), 0);
    step_.form = cuda::RowForm::kAny;
    step_.longest = tokens / rows;
    step_.chunks = rows * ((step_.longest + kChunk - 1) / kChunk);
  }

  void Compute(cudaStream_t stream) {
    const auto enqueue = [this](cudaStream_t to, cuda::Errors& errors) {
      pipeline_->Enqueue(layer_, pools_, step_, staging_.memory(), to, errors);
    };
    if (step_.form == cuda::RowForm::kAny) return enqueue(stream, errors_);
    graphs_.Launch({.rows = step_.rows}, enqueue, stream, errors_);
  }

  void Record(int event) {
    errors_.Add("event", cudaEventRecord(events_[event], staging_.stream()));
  }
  double Between(int begin, int end) {
    float milliseconds = 0;
    errors_.Add("event", cudaEventElapsedTime(&milliseconds, events_[begin], events_[end]));
    return 1000.0 * milliseconds;
  }

  const BackendShape shape_;
  cuda::Errors errors_;
  cuda::Staging staging_;
  Memory ssm_, conv_, answers_, scratch_, input_, output_;
  std::unique_ptr<cuda::LayerPipeline> pipeline_;
  cuda::DeviceLayer layer_;
  cuda::LayerPools pools_;
  cuda::StepGraphs graphs_;
  cudaEvent_t events_[4] = {};

  cuda::StepShape step_;
  Batch batch_;
  BatchPart part_;
  std::string_view piece_;
  std::vector<int64_t> offsets_ = {0};
  std::vector<int32_t> slots_;
  std::vector<uint8_t> flags_;
  std::vector<RowFault> faults_;
};

double Median(std::vector<double>* times) {
  std::nth_element(times->begin(), times->begin() + times->size() / 2, times->end());
  return (*times)[times->size() / 2];
}

}  // namespace

DeviceTime TimeOnDevice(const BackendShape& shape, const LayerWeights& weights, int64_t rows,
                        int64_t tokens, int runs) {
  TimedStep step(shape, weights, rows, tokens);
  std::vector<double> whole, kernels;
  for (int i = 0; i < 3; ++i) step.Run();  // kernels are loaded, the graph is captured
  for (int i = 0; i < runs; ++i) {
    const DeviceTime time = step.Run();
    whole.push_back(time.step);
    kernels.push_back(time.kernels);
  }
  return {Median(&whole), Median(&kernels)};
}

}  // namespace gdn::bench
