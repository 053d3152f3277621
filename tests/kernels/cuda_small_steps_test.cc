// Small steps, whose kernels read and write the host's memory by themselves: parts of every kind
// beside one another, and the sizes around the largest of them.
#include <cuda_runtime_api.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <limits>
#include <memory>
#include <string_view>
#include <utility>
#include <vector>

#include "kernels/cuda/backend/fetch_list.h"
#include "kernels/cuda/backend/memory.h"
#include "kernels/cuda/backend/step_block.h"
#include "tests/testing/backend_case.h"

namespace gdn::test {
namespace {

using cuda::Memory;

// Where a part's bytes lie; the backend reaches those of the kinds that are direct by itself.
enum class Kind { kOrdinary, kPinned, kDevice, kUnaligned, kUnwanted, kSynthetic };

constexpr Kind kKinds[] = {Kind::kPinned,   Kind::kOrdinary, Kind::kUnaligned, Kind::kSynthetic,
                           Kind::kUnwanted, Kind::kDevice,   Kind::kPinned};

BackendShape Shape(int64_t hidden, int rows) {
  BackendShape shape = SmallShape();
  shape.geometry.hidden_size = hidden;
  shape.geometry.key_heads = 1;
  shape.geometry.value_heads = 2;
  shape.geometry.key_dim = shape.geometry.value_dim = 128;
  shape.io = DType::kBf16;
  shape.layers = 1;
  shape.slots = 2 * rows;
  shape.max_rows = rows;
  shape.max_tokens = shape.slots;
  return shape;
}

// The rows of one part, and their answers.
class PartBytes {
 public:
  PartBytes(Kind kind, std::span<const std::byte> input, size_t answer)
      : kind_(kind), input_(input.size()), answer_(answer) {
    const Memory::Place place =
        kind == Kind::kDevice ? Memory::Place::kDevice : Memory::Place::kPinned;
    memory_ = *Memory::Make(place, 8 + input_ + answer_);
    EXPECT_EQ(cudaMemcpy(in(), input.data(), input_, cudaMemcpyDefault), cudaSuccess);
    EXPECT_EQ(cudaMemset(out(), 0xcc, answer_), cudaSuccess);
    piece_ = {reinterpret_cast<const char*>(in()), input_};
  }

  BatchPart Part(int64_t first, int64_t tokens) const {
    BatchPart part;
    part.first_token = first;
    part.tokens = tokens;
    part.input = {&piece_, 1};
    part.output = kind_ == Kind::kUnwanted ? nullptr : out();
    part.direct_input = part.direct_output =
        kind_ == Kind::kPinned || kind_ == Kind::kDevice || kind_ == Kind::kUnaligned;
    if (kind_ == Kind::kSynthetic) part.synthetic_seed = 5;
    return part;
  }

  std::vector<std::byte> Answer() const {
    std::vector<std::byte> answer(answer_);
    EXPECT_EQ(cudaMemcpy(answer.data(), out(), answer_, cudaMemcpyDefault), cudaSuccess);
    return answer;
  }

 private:
  std::byte* in() const { return memory_.data() + (kind_ == Kind::kUnaligned ? 8 : 0); }
  std::byte* out() const { return in() + input_; }

  Kind kind_;
  size_t input_, answer_;
  Memory memory_;
  std::string_view piece_;
};

// What came of a batch, row by row.
struct Outcome {
  std::vector<RowFault> faults;
  std::vector<std::vector<std::byte>> answers;
  std::vector<std::vector<std::byte>> kept;  // zeros: nothing
};

// Bytes that lie anywhere: the list does not look at them.
std::byte* At(size_t address) { return reinterpret_cast<std::byte*>(address); }

TEST(FetchList, CutsWhatIsAdded) {
  constexpr size_t kMost = cuda::FetchPiece::kMostBytes;
  std::vector<cuda::FetchPiece> pieces(3);
  cuda::FetchList list(pieces);
  list.Clear(3);
  EXPECT_TRUE(list.Add(At(0x1000), At(0x20), kMost + 32));
  EXPECT_EQ(pieces[0].bytes, kMost);
  EXPECT_EQ(pieces[1].from, At(0x1000 + kMost));
  EXPECT_EQ(pieces[1].to, At(0x20 + kMost));
  EXPECT_EQ(pieces[1].bytes, 32u);
  EXPECT_FALSE(list.Add(At(0x1000), At(0x20), kMost + 16)) << "there is room for one piece";
  EXPECT_EQ(pieces[2].bytes, 0u) << "all or nothing";
  EXPECT_TRUE(list.Add(At(0x1000), At(0x20), kMost));
  list.Clear(1);
  for (const cuda::FetchPiece& piece : pieces) EXPECT_EQ(piece.bytes, 0u);
  EXPECT_FALSE(list.Add(At(0x1000), At(0x20), kMost + 16));
}

TEST(FetchList, TakesNothingThatDoesNotLieOnSixteenBytes) {
  std::vector<cuda::FetchPiece> pieces(1);
  cuda::FetchList list(pieces);
  EXPECT_FALSE(list.Add(At(0x1000), At(0x20), 16)) << "no room before Clear";
  list.Clear(1);
  EXPECT_FALSE(list.Add(At(0x1008), At(0x20), 16));
  EXPECT_FALSE(list.Add(At(0x1000), At(0x24), 16));
  EXPECT_FALSE(list.Add(At(0x1000), At(0x20), 24));
  EXPECT_EQ(pieces[0].bytes, 0u);
}

class CudaSmallSteps : public ::testing::Test {
 protected:
  static constexpr int64_t kHidden = 128;

  void SetUp() override {
    if (!CudaDevicePresent()) GTEST_SKIP() << "cuda cannot run here: no device";
  }

  // Of `rows` rows, NaN in row 1, an overflow in row 2, row 3 padding. (In parts of more rows NaN
  // and overflow may be elsewhere: the tensors of a part lie one after the other.)
  void MakeRows(InputLayout layout, int rows) {
    constexpr float kLargest = 3.3e38f;
    Rng rng(3);
    shape_ = Shape(kHidden, rows);
    layout_ = layout;
    int64_t width = 0;
    for (const InputTensor& t : InputTensors(shape_.geometry, layout, shape_.io)) width += t.width;
    input_bytes_ = static_cast<size_t>(width) * SizeOf(shape_.io);
    answer_bytes_ = OutputRowBytes(shape_.geometry, layout, shape_.io);
    input_ = Tensor::Normal(rng, shape_.io, rows * width);
    input_.set(width + 5, std::numeric_limits<float>::quiet_NaN());
    for (int64_t i = 0; i < width; ++i) {
      input_.set(2 * width + i, i % 2 == 0 ? kLargest : -kLargest);
    }
    offsets_ = {0};
    slots_.clear();
    for (int i = 0; i < rows; ++i) {
      slots_.push_back(i == 3 ? kPadSlotId : i);
      offsets_.push_back(i + 1);
    }
    none_.assign(slots_.size(), 0);
    keep_ = none_;
    for (size_t i = 0; i < keep_.size(); i += 2) keep_[i] = 1;
  }

  // Parts of `part_rows` rows, of the kinds in turn. `behind`: while another batch is on its way.
  Outcome Run(std::span<const Kind> kinds, int64_t part_rows, bool behind) {
    const std::unique_ptr<Backend> backend = MakeLoaded(kBackend, shape_);
    const std::vector<PartBytes> bytes = BytesOf(kinds, part_rows);
    std::vector<BatchPart> parts;
    for (const PartBytes& part : bytes) {
      const int64_t first = static_cast<int64_t>(parts.size()) * part_rows;
      parts.push_back(part.Part(first, std::min(part_rows, rows() - first)));
    }
    Outcome outcome;
    outcome.faults.resize(slots_.size());
    Rng rng(9);
    Step other(rng, shape_, 0, InputLayout::kHidden, {{.slot = static_cast<int32_t>(rows())}});
    const auto check = [](const absl::Status& status) { EXPECT_TRUE(status.ok()) << status; };
    if (behind) check(other.Begin(*backend));
    check(backend->Begin({0, layout_, offsets_, slots_, none_, keep_, parts}));
    if (behind) check(other.End(*backend));
    check(backend->End(outcome.faults));
    for (const PartBytes& part : bytes) AddAnswers(part.Answer(), outcome);
    for (size_t row = 0; row < slots_.size(); ++row) {
      outcome.kept.emplace_back(answer_bytes_);
      if (keep_[row] != 0) check(backend->ReadAnswer(0, slots_[row], outcome.kept.back()));
    }
    return outcome;
  }

  std::vector<PartBytes> BytesOf(std::span<const Kind> kinds, int64_t part_rows) const {
    std::vector<PartBytes> bytes;
    for (int64_t first = 0; first < rows(); first += part_rows) {
      const auto count = static_cast<size_t>(std::min(part_rows, rows() - first));
      bytes.emplace_back(
          kinds[bytes.size() % kinds.size()],
          input_.bytes().subspan(static_cast<size_t>(first) * input_bytes_, count * input_bytes_),
          count * answer_bytes_);
    }
    return bytes;
  }

  void AddAnswers(const std::vector<std::byte>& answer, Outcome& outcome) const {
    for (auto at = answer.begin(); at != answer.end(); at += std::ptrdiff_t(answer_bytes_)) {
      outcome.answers.emplace_back(at, at + std::ptrdiff_t(answer_bytes_));
    }
  }

  // Kinds in which a part is synthetic or unwanted stay so: its answer is another.
  void CheckKinds(std::span<const Kind> kinds, int64_t part_rows, bool behind) {
    std::vector<Kind> ordinary(kinds.begin(), kinds.end());
    for (Kind& kind : ordinary) {
      if (kind != Kind::kSynthetic && kind != Kind::kUnwanted) kind = Kind::kOrdinary;
    }
    const Outcome expected = Run(ordinary, part_rows, false);
    const Outcome outcome = Run(kinds, part_rows, behind);
    EXPECT_EQ(outcome.faults, expected.faults);
    for (size_t row = 0; row < slots_.size(); ++row) {
      if (expected.faults[row] == RowFault::kNonFiniteInput) continue;  // undefined
      EXPECT_EQ(outcome.answers[row], expected.answers[row]) << "row " << row;
      EXPECT_EQ(outcome.kept[row], expected.kept[row]) << "row " << row;
    }
  }

  int64_t rows() const { return static_cast<int64_t>(slots_.size()); }

  BackendShape shape_;
  InputLayout layout_ = InputLayout::kHidden;
  size_t input_bytes_ = 0, answer_bytes_ = 0;  // of a row
  Tensor input_;
  std::vector<int64_t> offsets_;
  std::vector<int32_t> slots_;
  std::vector<uint8_t> none_, keep_;
};

// By few rows, whose projections end the step, and by many; where what comes first is fetched, and
// where it is not.
TEST_F(CudaSmallSteps, PartsOfEveryKind) {
  for (const InputLayout layout : {InputLayout::kHidden, InputLayout::kQkvZBA}) {
    for (const int rows : {4, 12, 24, 40}) {
      for (const bool behind : {false, true}) {
        SCOPED_TRACE(::testing::Message() << "layout " << int(layout) << ", " << rows
                                          << " rows, behind another: " << behind);
        MakeRows(layout, rows);
        CheckKinds(kKinds, 1, behind);
        CheckKinds(kKinds, 5, behind);
      }
    }
  }
}

// More than a list of what to fetch has room for.
TEST_F(CudaSmallSteps, ManyDirectParts) {
  MakeRows(InputLayout::kHidden, 48);
  CheckKinds(std::vector<Kind>{Kind::kPinned}, 1, false);
}

TEST_F(CudaSmallSteps, FaultsAndPaddingInDirectParts) {
  for (const int rows : {4, 40}) {
    SCOPED_TRACE(::testing::Message() << rows << " rows");
    MakeRows(InputLayout::kHidden, rows);
    const Outcome outcome = Run(std::vector<Kind>{Kind::kPinned}, 1, false);
    std::vector<RowFault> expected(slots_.size());
    expected[1] = RowFault::kNonFiniteInput;
    expected[2] = RowFault::kOverflow;
    EXPECT_EQ(outcome.faults, expected);
    EXPECT_EQ(outcome.answers[3], std::vector<std::byte>(answer_bytes_)) << "padding is zero";
  }
}

// Rows that lie elsewhere each time, on with what they left: a kernel that looks at them ahead of
// time must not meet those of a step before.
TEST_F(CudaSmallSteps, EachStepHasItsOwnRows) {
  for (const int rows : {4, 12, 40}) {
    SCOPED_TRACE(::testing::Message() << rows << " rows");
    const BackendShape shape = Shape(kHidden, rows);
    Rng rng(6);
    Twin twin(kBackend, shape);
    for (int i = 0; i < 6; ++i) {
      std::vector<StepRow> step_rows;
      for (int row = 0; row < rows; ++row) {
        step_rows.push_back(twin.Next(0, (row + 3 * i) % shape.slots, 1));
      }
      Step step(rng, shape, 0, InputLayout::kHidden, step_rows);
      ASSERT_NO_FATAL_FAILURE(twin.Run(step));
    }
  }
}

// One row fewer than the next graph's, so that there is padding, too, on either side.
TEST_F(CudaSmallSteps, SizesAroundTheLargest) {
  constexpr int64_t kWide = 8192;
  constexpr auto kRows = static_cast<int64_t>(cuda::kMostSmallBytes) / (2 * kWide);
  const BackendShape shape = Shape(kWide, 2 * kRows);
  Rng rng(4);
  for (const int64_t rows : {kRows - 1, kRows, kRows + 1}) {
    SCOPED_TRACE(::testing::Message() << rows << " rows");
    const int64_t padded = rows <= kRows ? kRows : kRows / 2 * 3;
    EXPECT_EQ(cuda::IsSmall(shape, {.rows = padded, .tokens = padded}), rows <= kRows);
    Twin twin(kBackend, shape);
    std::vector<StepRow> step_rows;
    for (int64_t i = 0; i < rows; ++i)
      step_rows.push_back(twin.Next(0, static_cast<int32_t>(i), 1));
    step_rows[1].slot = kPadSlotId;
    Step step(rng, shape, 0, InputLayout::kHidden, step_rows);
    step.SetParts({3, static_cast<size_t>(rows)});
    ASSERT_NO_FATAL_FAILURE(twin.Run(step));
  }
}

}  // namespace
}  // namespace gdn::test
