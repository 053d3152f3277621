#include "tests/testing/fake_backend.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "gtest/gtest.h"
#include "kernels/validate.h"

namespace gdn::test {
namespace {

constexpr FakeState kGarbage = {777, 0xdeadbeef};

std::vector<float> Numbers(std::string_view bytes) {
  std::vector<float> numbers(bytes.size() / sizeof(float));
  std::memcpy(numbers.data(), bytes.data(), numbers.size() * sizeof(float));
  return numbers;
}

bool Finite(std::string_view token) {
  const std::vector<float> numbers = Numbers(token);
  return std::all_of(numbers.begin(), numbers.end(), [](float x) { return std::isfinite(x); });
}

bool Holds(std::span<const std::string> tokens, float number) {
  return std::any_of(tokens.begin(), tokens.end(), [number](std::string_view token) {
    const std::vector<float> numbers = Numbers(token);
    return std::find(numbers.begin(), numbers.end(), number) != numbers.end();
  });
}

}  // namespace

BackendShape FakeShape() {
  return {.geometry =
              {.hidden_size = 4, .key_heads = 1, .value_heads = 1, .key_dim = 64, .value_dim = 64},
          .layers = 2,
          .slots = 4,
          .max_rows = 8,
          .max_tokens = 32,
          .max_decode_tokens = 2};
}

FakeState FakeState::Fold(std::string_view token) const {
  FakeState next = {count + 1, hash};
  for (const char byte : token) next.hash = (next.hash ^ static_cast<uint8_t>(byte)) * 16777619u;
  return next;
}

FakeBackend::FakeBackend(const BackendShape& shape, int depth)
    : shape_(shape),
      depth_(depth),
      states_(static_cast<size_t>(shape.layers * shape.slots), kGarbage),
      answers_(states_.size() * shape.max_decode_tokens * shape.answer_row_bytes()) {
  EXPECT_TRUE(Validate(shape).ok()) << Validate(shape);
}

absl::Status FakeBackend::LoadLayer(int, const LayerWeights&) { return absl::OkStatus(); }

absl::Status FakeBackend::Begin(const Batch& batch) {
  const absl::Status valid = Validate(batch, shape_);
  EXPECT_TRUE(valid.ok()) << valid;
  if (!valid.ok()) return valid;
  CheckBeside(batch);
  const std::lock_guard lock(mutex_);
  if (lost_) return absl::InternalError("the device is lost");
  runs_.push_back(
      {batch.layer,
       {batch.slots.begin(), batch.slots.end()},
       begun_.size(),
       batch.tokens(),
       batch.parts.size(),
       std::find(batch.keep_answer.begin(), batch.keep_answer.end(), 1) != batch.keep_answer.end(),
       std::any_of(batch.parts.begin(), batch.parts.end(),
                   [](const BatchPart& part) { return part.direct_output; }),
       batch.parts.front().direct_input});
  begun_.push_back(batch);
  return absl::OkStatus();
}

void FakeBackend::CheckBeside(const Batch& batch) const {
  EXPECT_LT(begun_.size(), static_cast<size_t>(depth_));
  for (const Batch& other : begun_) {
    const bool goes_on =
        batch.parts.front().tokens_before > 0 && other.parts.front().tokens_after > 0;
    for (const int32_t slot : batch.slots) {
      if (slot < 0 || goes_on) continue;
      EXPECT_EQ(std::find(other.slots.begin(), other.slots.end(), slot), other.slots.end())
          << "two batches have slot " << slot;
    }
  }
}

absl::Status FakeBackend::End(std::span<RowFault> faults) {
  EXPECT_FALSE(begun_.empty());
  PassGate();
  const std::lock_guard lock(mutex_);
  if (lost_ || ends_fail_) return absl::InternalError("the device is lost");
  const Batch batch = begun_.front();
  begun_.pop_front();
  EXPECT_EQ(faults.size(), batch.slots.size());
  std::fill(faults.begin(), faults.end(), RowFault::kNone);
  for (const BatchPart& part : batch.parts) RunPart(batch, part, faults);
  return absl::OkStatus();
}

void FakeBackend::PassGate() {
  std::unique_lock lock(mutex_);
  blocked_ = true;
  moved_.notify_all();
  moved_.wait(lock, [this] { return !closed_; });
  blocked_ = false;
}

// The rows that lie in the part, by their first token. Rows of no tokens fold nothing anyway.
void FakeBackend::RunPart(const Batch& batch, const BatchPart& part, std::span<RowFault> faults) {
  const std::vector<std::string> tokens = TokensOf(batch, part);
  const size_t row_bytes = OutputRowBytes(shape_.geometry, batch.layout, shape_.io);
  for (int64_t row = 0; row < batch.rows(); ++row) {
    const int64_t first = batch.offsets[row] - part.first_token;
    if (first < 0 || first >= part.tokens || batch.length(row) == 0) continue;
    std::byte* out = part.output == nullptr ? nullptr : part.output + first * row_bytes;
    faults[row] = RunRow(batch, row, std::span(tokens).subspan(first, batch.length(row)), out);
  }
}

RowFault FakeBackend::RunRow(const Batch& batch, int64_t row, std::span<const std::string> tokens,
                             std::byte* out) {
  const size_t row_bytes = OutputRowBytes(shape_.geometry, batch.layout, shape_.io);
  if (out != nullptr) std::memset(out, 0, tokens.size() * row_bytes);
  const int32_t slot = batch.slots[row];
  if (slot < 0) return RowFault::kNone;
  if (!std::all_of(tokens.begin(), tokens.end(), Finite)) return RowFault::kNonFiniteInput;
  FakeState& state = StateAt(batch.layer, slot);
  const bool overflow = Holds(tokens, kOverflowing);
  if (overflow || Holds(tokens, kDeviceFailing)) {
    state = kGarbage;
    return overflow ? RowFault::kOverflow : RowFault::kDevice;
  }
  if (batch.has_initial_state[row] == 0) state = FakeState();
  std::byte* kept = batch.keep_answer[row] != 0 ? AnswerAt(batch.layer, slot) : nullptr;
  for (size_t i = 0; i < tokens.size(); ++i) {
    state = state.Fold(tokens[i]);
    std::vector<float> answer(row_bytes / sizeof(float));
    answer[0] = state.first();
    answer[1] = state.second();
    if (out != nullptr) std::memcpy(out + i * row_bytes, answer.data(), row_bytes);
    if (kept != nullptr) std::memcpy(kept + i * row_bytes, answer.data(), row_bytes);
  }
  return RowFault::kNone;
}

// The bytes of each token of the part: its row of every tensor, one after another.
std::vector<std::string> FakeBackend::TokensOf(const Batch& batch, const BatchPart& part) const {
  std::vector<std::string> tokens(static_cast<size_t>(part.tokens));
  if (part.synthetic_seed != 0) {
    for (size_t i = 0; i < tokens.size(); ++i) {
      const float number = static_cast<float>(part.synthetic_seed % 1000 + i +
                                              static_cast<uint64_t>(part.tokens_before));
      tokens[i].assign(reinterpret_cast<const char*>(&number), sizeof number);
    }
    return tokens;
  }
  std::string bytes;
  for (const std::string_view piece : part.input) bytes += piece;
  size_t next = 0;
  for (const InputTensor& tensor : InputTensors(shape_.geometry, batch.layout, shape_.io)) {
    for (std::string& token : tokens) {
      token += bytes.substr(next, tensor.row_bytes());
      next += tensor.row_bytes();
    }
  }
  return tokens;
}

absl::Status FakeBackend::ReadAnswer(int layer, int32_t slot, std::span<std::byte> out) {
  const std::lock_guard lock(mutex_);
  EXPECT_LE(out.size(), shape_.max_decode_tokens * shape_.answer_row_bytes());
  if (lost_ || reads_fail_) return absl::InternalError("the device is lost");
  std::memcpy(out.data(), AnswerAt(layer, slot), out.size());
  return absl::OkStatus();
}

FakeState& FakeBackend::StateAt(int layer, int32_t slot) {
  return states_[static_cast<size_t>(layer * shape_.slots + slot)];
}

std::byte* FakeBackend::AnswerAt(int layer, int32_t slot) {
  return answers_.data() + static_cast<size_t>(layer * shape_.slots + slot) *
                               shape_.max_decode_tokens * shape_.answer_row_bytes();
}

std::vector<FakeBackend::RunRecord> FakeBackend::runs() const {
  const std::lock_guard lock(mutex_);
  return runs_;
}

size_t FakeBackend::batches() const {
  const std::lock_guard lock(mutex_);
  return runs_.size();
}

FakeBackend::RunRecord FakeBackend::last_run() const {
  const std::lock_guard lock(mutex_);
  return runs_.back();
}

void FakeBackend::LoseDevice() {
  const std::lock_guard lock(mutex_);
  lost_ = true;
}

void FakeBackend::FailReads() {
  const std::lock_guard lock(mutex_);
  reads_fail_ = true;
}

void FakeBackend::FailEnds() {
  const std::lock_guard lock(mutex_);
  ends_fail_ = true;
}

void FakeBackend::CloseGate() {
  const std::lock_guard lock(mutex_);
  closed_ = true;
}

void FakeBackend::OpenGate() {
  const std::lock_guard lock(mutex_);
  closed_ = false;
  moved_.notify_all();
}

void FakeBackend::AwaitBlocked() {
  std::unique_lock lock(mutex_);
  moved_.wait(lock, [this] { return closed_ && blocked_; });
}

}  // namespace gdn::test
