// A backend whose answers can be foretold from the tokens alone: a sequence's state at a layer is a
// count of tokens and a hash of them, and an answer's row says both. Types are fp32.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <deque>
#include <mutex>
#include <string>
#include <string_view>
#include <vector>

#include "kernels/backend.h"

namespace gdn::test {

// One key and one value head, hidden states of 4 numbers.
BackendShape FakeShape();

struct FakeState {
  uint32_t count = 0;
  uint32_t hash = 2166136261u;

  // The state after one more token, whose numbers are these bytes.
  FakeState Fold(std::string_view token) const;
  // Elements 0 and 1 of the token's output row; the others are 0.
  float first() const { return static_cast<float>(count); }
  float second() const { return static_cast<float>(hash & 0xffffff); }
};

// Stand in a token whose arithmetic overflows, and in one under which the device fails.
inline constexpr float kOverflowing = 1e30f;
inline constexpr float kDeviceFailing = 2e30f;

class FakeBackend final : public Backend {
 public:
  // What the slots hold at first is garbage, as it is after every sequence.
  explicit FakeBackend(const BackendShape& shape, int depth = 1);

  std::string_view name() const override { return "fake"; }
  absl::Status LoadLayer(int layer, const LayerWeights& weights) override;
  int depth() const override { return depth_; }
  // Fails the test where the batch is not a valid one, or may not be begun beside the others.
  absl::Status Begin(const Batch& batch) override;
  // Here the batch is read, folded and answered, all at once.
  absl::Status End(std::span<RowFault> faults) override;
  absl::Status ReadAnswer(int layer, int32_t slot, std::span<std::byte> out) override;

  // The rest may be called from any thread.
  struct RunRecord {
    int layer = 0;
    std::vector<int32_t> slots;
    size_t beside = 0;  // batches that were in flight when it began
    int64_t tokens = 0;
    size_t parts = 0;           // requests merged
    bool kept = false;          // some row's answer went to the pool
    bool direct = false;        // some part's output is where a device reaches it
    bool direct_input = false;  // likewise the input of the first part
  };
  std::vector<RunRecord> runs() const;  // of the batches begun
  size_t batches() const;               // how many they are
  RunRecord last_run() const;

  void LoseDevice();  // every later Begin, End and ReadAnswer fails
  void FailReads();   // every later ReadAnswer fails
  void FailEnds();    // every later End fails

  // While it is closed, End waits at the gate.
  void CloseGate();
  void OpenGate();
  // Returns once an End waits at the gate.
  void AwaitBlocked();

 private:
  void CheckBeside(const Batch& batch) const;
  void PassGate();
  void RunPart(const Batch& batch, const BatchPart& part, std::span<RowFault> faults);
  RowFault RunRow(const Batch& batch, int64_t row, std::span<const std::string> tokens,
                  std::byte* out);
  std::vector<std::string> TokensOf(const Batch& batch, const BatchPart& part) const;
  FakeState& StateAt(int layer, int32_t slot);
  std::byte* AnswerAt(int layer, int32_t slot);

  const BackendShape shape_;
  const int depth_;
  std::vector<FakeState> states_;   // [layer][slot]
  std::vector<std::byte> answers_;  // [layer][slot][max_decode_tokens][answer row]
  std::deque<Batch> begun_;         // and not ended, oldest first

  mutable std::mutex mutex_;
  std::condition_variable moved_;
  std::vector<RunRecord> runs_;
  bool lost_ = false;
  bool reads_fail_ = false;
  bool ends_fail_ = false;
  bool closed_ = false;
  bool blocked_ = false;
};

}  // namespace gdn::test
