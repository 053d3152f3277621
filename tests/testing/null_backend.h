// A backend that computes nothing: it gathers the input, as a real one does before its first
// kernel, and writes the output and the answer pool. What is left of a step's time is everyone
// else's.
#pragma once

#include <atomic>
#include <vector>

#include "kernels/backend.h"

namespace gdn {

class NullBackend : public Backend {
 public:
  explicit NullBackend(const BackendShape& shape);

  std::string_view name() const override { return "null"; }
  absl::Status LoadLayer(int layer, const LayerWeights& weights) override;
  int depth() const override { return 1; }
  absl::Status Begin(const Batch& batch) override;
  absl::Status End(std::span<RowFault> faults) override;
  absl::Status ReadAnswer(int layer, int32_t slot, std::span<std::byte> out) override;

  // What it was given so far.
  int64_t batches() const { return batches_; }
  int64_t rows() const { return rows_; }

 private:
  std::byte* AnswerAt(int layer, int32_t slot);
  void WriteOutput(const Batch& batch);
  void KeepAnswers(const Batch& batch);

  const BackendShape shape_;
  std::vector<std::byte> input_;
  std::vector<std::byte> answers_;
  std::atomic<int64_t> batches_ = 0;
  std::atomic<int64_t> rows_ = 0;
};

}  // namespace gdn
