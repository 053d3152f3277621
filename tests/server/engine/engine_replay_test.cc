// A row's last answer, given again and never made again: from the backend's pool or from the store.
#include <algorithm>
#include <limits>
#include <span>
#include <vector>

#include "absl/status/status.h"
#include "kernels/device_memory.h"
#include "tests/server/engine/engine_harness.h"

namespace gdn::test {
namespace {

constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

using EngineReplayTest = EngineHarness;

// Memory that the device writes and does not give back.
class UnreadableMemory final : public DeviceMemory {
 public:
  explicit UnreadableMemory(std::span<float> memory) : memory_(std::as_writable_bytes(memory)) {}

  std::byte* address() const override { return memory_.data(); }
  absl::Status Read(size_t, std::span<std::byte>) const override {
    return absl::InternalError("it cannot be read");
  }
  absl::Status Write(size_t, std::span<const std::byte>) const override { return absl::OkStatus(); }

 private:
  const std::span<std::byte> memory_;
};

TEST_F(EngineReplayTest, TheSameStepAgainIsAnsweredFromTheStore) {
  Begin("a");
  StepRequest request = ById({"a"});
  request.step_id = 5;
  request.positions = {1};
  const auto first = Decode(request, Hidden({2}));
  const auto second = Decode(request, Hidden({kNan}));  // what it brings is not looked at
  ASSERT_TRUE(second->ok()) << second->fault.message;
  EXPECT_EQ(second->output(), first->output());
  EXPECT_EQ(second->answer.replayed_rows, 1u);
  EXPECT_EQ(first->answer.replayed_rows, 0u);
  EXPECT_EQ(PositionOf("a"), 2u);
}

TEST_F(EngineReplayTest, ABatchMayBeHalfReplayed) {
  Begin("a");
  Begin("b");
  StepRequest request = ById({"a", ""});
  request.step_id = 5;
  const auto first = Decode(request, Hidden({2, 0}));
  request.request_ids = {"a", "b"};
  const auto second = Decode(request, Hidden({2, 3}));
  ASSERT_TRUE(second->ok());
  EXPECT_EQ(second->answer.replayed_rows, 1u);
  FakeState b;
  Foretell(Hidden({1}), &b);
  const std::vector<float> row_b = Foretell(Hidden({3}), &b);
  const std::vector<float> output = second->output();
  std::vector<float> row_a = first->output();
  row_a.resize(4);
  EXPECT_EQ(std::vector<float>(output.begin(), output.begin() + 4), row_a);
  EXPECT_EQ(std::vector<float>(output.begin() + 4, output.end()), row_b);
  EXPECT_EQ(PositionOf("a"), 2u);
  EXPECT_EQ(PositionOf("b"), 2u);
}

TEST_F(EngineReplayTest, AReplayWithoutOutputAndAStoredAnswerOfADiscardedOne) {
  Begin("a");
  StepRequest request = ById({"a"});
  request.step_id = 5;
  request.discard_output = true;
  EXPECT_EQ(Decode(request, Hidden({2}))->answer.output.size, 0u);
  request.discard_output = false;
  FakeState state;
  Foretell(Hidden({1}), &state);
  EXPECT_EQ(Decode(request, Hidden({2}))->output(), Foretell(Hidden({2}), &state));
}

TEST_F(EngineReplayTest, LargeAnswersAreKeptWithinReplayBytes) {
  StepRequest request = ById({"a"}, true);
  request.step_id = 5;
  request.token_counts = {6};
  const auto first = Prefill(request, Hidden({1, 2, 3, 4, 5, 6}));
  const auto again = Prefill(request, Hidden({1, 2, 3, 4, 5, 6}));
  EXPECT_EQ(again->output(), first->output());
  EXPECT_EQ(again->answer.replayed_rows, 1u);

  StepRequest other = ById({"b"}, true);  // 3 more tokens than there is room for
  other.step_id = 6;
  other.token_counts = {5};
  Prefill(other, Hidden({1, 2, 3, 4, 5}));
  ExpectFault(*Prefill(request, Hidden({1, 2, 3, 4, 5, 6})), v1::ERROR_REASON_ANSWER_NOT_KEPT, {0});
  EXPECT_EQ(PositionOf("a"), 6u);
  EXPECT_TRUE(Prefill(other, Hidden({1, 2, 3, 4, 5}))->ok());
}

TEST_F(EngineReplayTest, AnAnswerInSharedMemoryIsKeptBeforeItsCallerCanOverwriteIt) {
  std::vector<float> region(12);  // 3 tokens
  StepRequest request = ById({"a"}, true);
  request.step_id = 5;
  request.token_counts = {3};
  auto [step, outcome] = NewStep(StepKind::kPrefill, request, Hidden({1, 2, 3}));
  step->allocate = [&region](size_t bytes) {
    OutputBuffer buffer;
    buffer.data = reinterpret_cast<std::byte*>(region.data());
    buffer.size = bytes;
    buffer.shared = true;
    return buffer;
  };
  step->done = [&region](const Fault& fault, const StepAnswer&) {
    EXPECT_TRUE(fault.ok());
    std::fill(region.begin(), region.end(), 0.0f);
  };
  engine_->Submit(step, now_);
  RunAll();
  FakeState state;
  const auto again = Prefill(request, Hidden({1, 2, 3}));
  EXPECT_EQ(again->output(), Foretell(Hidden({1, 2, 3}), &state));
  EXPECT_EQ(again->answer.replayed_rows, 1u);
}

TEST_F(EngineReplayTest, AnAnswerTooLargeForTheStoreIsNotKept) {
  StepRequest request = ById({"a"}, true);
  request.step_id = 5;
  request.token_counts = {9};
  const std::string input = Hidden({1, 2, 3, 4, 5, 6, 7, 8, 9});
  EXPECT_TRUE(Prefill(request, input)->ok());
  ExpectFault(*Prefill(request, input), v1::ERROR_REASON_ANSWER_NOT_KEPT, {0});
}

TEST_F(EngineReplayTest, AnAnswerThatTheDeviceDoesNotGiveBackIsNotKept) {
  std::vector<float> region(12);  // 3 tokens
  UnreadableMemory memory(region);
  StepRequest request = ById({"a"}, true);
  request.step_id = 5;
  request.token_counts = {3};
  auto [step, outcome] = NewStep(StepKind::kPrefill, request, Hidden({1, 2, 3}));
  step->allocate = [&memory](size_t bytes) {
    OutputBuffer buffer;
    buffer.size = bytes;
    buffer.direct = true;
    buffer.shared = true;
    buffer.device = &memory;
    return buffer;
  };
  engine_->Submit(step, now_);
  RunAll();
  EXPECT_TRUE(outcome->ok());
  FakeState state;
  EXPECT_EQ(region, Foretell(Hidden({1, 2, 3}), &state));
  ExpectFault(*Prefill(request, Hidden({1, 2, 3})), v1::ERROR_REASON_ANSWER_NOT_KEPT, {0});
}

TEST_F(EngineReplayTest, OutputRowsOfProjectedLayoutsAreReplayedAtTheirWidth) {
  StepRequest request = ById({"a", "b"}, true);
  request.step_id = 5;
  request.input_layout = v1::INPUT_LAYOUT_QKV_B_A;
  const std::string input(2 * (192 + 2) * sizeof(float), '\0');
  const auto first = Decode(request, input);
  ASSERT_TRUE(first->ok());
  EXPECT_EQ(first->answer.output.size, 2 * 64 * sizeof(float));
  EXPECT_EQ(Decode(request, input)->output(), first->output());
}

TEST_F(EngineReplayTest, AnswersOfAnEndedSequenceAreForgotten) {
  StepRequest request = ById({"a"}, true);
  request.step_id = 5;
  request.token_counts = {6};
  const std::string input = Hidden({1, 2, 3, 4, 5, 6});
  Prefill(request, input);
  engine_->Release(SlotOf("a"));
  const auto again = Prefill(request, input);
  ASSERT_TRUE(again->ok());
  EXPECT_EQ(again->answer.replayed_rows, 0u);
  EXPECT_EQ(again->output()[0], 1);
}

TEST_F(EngineReplayTest, OnlyStepsThatCanBeReplayedAreKept) {
  Decode(ById({"a"}, true), Hidden({1}));
  EXPECT_FALSE(backend_.runs().back().kept);
  StepRequest request = ById({"a"});
  request.step_id = 5;
  Decode(request, Hidden({2}));
  EXPECT_TRUE(backend_.runs().back().kept);
}

}  // namespace
}  // namespace gdn::test
