// The rest of a backend's contract: loading, the answer pool, synthetic input, empty batches.
#include <gtest/gtest.h>

#include <deque>
#include <limits>

#include "tests/testing/backend_case.h"

namespace gdn::test {
namespace {

class BackendContract : public BackendTest {
 protected:
  void SetUp() override {
    BackendTest::SetUp();
    if (!IsSkipped()) backend_ = MakeLoaded(*GetParam(), shape_);
  }

  BackendShape shape_ = SmallShape();
  std::unique_ptr<Backend> backend_;
  Rng rng_{15};

  std::vector<std::byte> Answer(const Step& step, int64_t row) {
    std::vector<std::byte> bytes(step.output_bytes(row).size());
    const absl::Status status = backend_->ReadAnswer(step.layer(), step.rows()[row].slot, bytes);
    EXPECT_TRUE(status.ok()) << status;
    return bytes;
  }

  static std::vector<std::byte> Output(const Step& step, int64_t row) {
    return {step.output_bytes(row).begin(), step.output_bytes(row).end()};
  }
};
GDN_ON_EVERY_BACKEND(BackendContract);

TEST_P(BackendContract, HasItsName) { EXPECT_EQ(backend_->name(), GetParam()->name); }

TEST_P(BackendContract, RefusesWeightsThatDoNotFit) {
  const RandomLayer random(0, shape_);
  LayerWeights w = random.weights();
  w.norm.shape[0] -= 1;
  EXPECT_EQ(backend_->LoadLayer(0, w).code(), absl::StatusCode::kInvalidArgument);
  w = random.weights();
  w.in_proj.type = DType::kFp16;
  EXPECT_EQ(backend_->LoadLayer(0, w).code(), absl::StatusCode::kInvalidArgument);
}

// The bytes of the weights may go once they are loaded.
TEST_P(BackendContract, KeepsItsOwnWeights) {
  std::unique_ptr<Backend> other = GetParam()->make(shape_);
  for (int layer = 0; layer < shape_.layers; ++layer) {
    auto random = std::make_unique<RandomLayer>(layer, shape_);
    ASSERT_TRUE(other->LoadLayer(layer, random->weights()).ok());
  }
  Step step(rng_, shape_, 0, InputLayout::kHidden, {{.slot = 1, .length = 3}});
  ASSERT_TRUE(step.Run(*other).ok());
  const std::vector<std::byte> out = Output(step, 0);
  ASSERT_TRUE(step.Run(*backend_).ok());
  EXPECT_EQ(out, Output(step, 0));
}

TEST_P(BackendContract, AnswersAreKeptByLayerAndSlot) {
  for (InputLayout layout : kLayouts) {
    SCOPED_TRACE(::testing::Message() << "layout " << int(layout));
    Step first(rng_, shape_, 0, layout,
               {{.slot = 1, .length = 2, .keep_answer = true},
                {.slot = 7, .length = 1, .keep_answer = true}});
    Step second(rng_, shape_, 1, layout, {{.slot = 1, .length = 1, .keep_answer = true}});
    ASSERT_TRUE(first.Run(*backend_).ok());
    ASSERT_TRUE(second.Run(*backend_).ok());
    EXPECT_EQ(Answer(first, 0), Output(first, 0));
    EXPECT_EQ(Answer(first, 1), Output(first, 1));
    EXPECT_EQ(Answer(second, 0), Output(second, 0));
  }
}

TEST_P(BackendContract, StepsThatKeepNothingLeaveTheAnswer) {
  Step kept(rng_, shape_, 0, InputLayout::kHidden, {{.slot = 1, .keep_answer = true}});
  ASSERT_TRUE(kept.Run(*backend_).ok());
  Step other(rng_, shape_, 0, InputLayout::kHidden,
             {{.slot = 1, .length = 9, .has_initial_state = true}, {.slot = 0}, {.slot = 2}});
  ASSERT_TRUE(other.Run(*backend_).ok());
  EXPECT_EQ(Answer(kept, 0), Output(kept, 0));
}

TEST_P(BackendContract, AnswersAreKeptThoughNobodyWantsTheOutput) {
  Step step(rng_, shape_, 0, InputLayout::kHidden,
            {{.slot = 1, .length = 2, .keep_answer = true}, {.slot = 3, .length = 70}});
  ASSERT_TRUE(step.Run(*backend_).ok());
  const std::vector<std::byte> truth = Output(step, 0);
  step.DiscardOutput();
  ASSERT_TRUE(step.Run(*backend_).ok());
  EXPECT_EQ(Answer(step, 0), truth);
  EXPECT_NE(Output(step, 0), truth) << "written though there was no output";
}

TEST_P(BackendContract, PaddingKeepsNoAnswer) {
  Step step(rng_, shape_, 0, InputLayout::kHidden,
            {{.slot = -1, .keep_answer = true}, {.slot = 0, .keep_answer = true}});
  ASSERT_TRUE(step.Run(*backend_).ok());
  EXPECT_EQ(Answer(step, 1), Output(step, 1));
}

TEST_P(BackendContract, SyntheticInputComesFromItsSeedAlone) {
  for (InputLayout layout : kLayouts) {
    SCOPED_TRACE(::testing::Message() << "layout " << int(layout));
    const auto run = [&](uint64_t seed, int32_t slot) {
      Step step(rng_, shape_, 0, layout, {{.slot = slot, .length = 5}});
      step.SetSynthetic(0, seed);
      EXPECT_TRUE(step.Run(*backend_).ok());
      EXPECT_EQ(step.fault(0), RowFault::kNone);
      EXPECT_TRUE(AllFinite(step.output(0)));
      return Output(step, 0);
    };
    const std::vector<std::byte> once = run(42, 1);
    EXPECT_EQ(run(42, 3), once);
    EXPECT_NE(run(43, 1), once);
  }
}

TEST_P(BackendContract, SyntheticInputInPiecesIsThatOfTheWhole) {
  for (InputLayout layout : kLayouts) {
    SCOPED_TRACE(::testing::Message() << "layout " << int(layout));
    Step whole(rng_, shape_, 0, layout, {{.slot = 1, .length = 70}});
    whole.SetSynthetic(0, 42);
    ASSERT_TRUE(whole.Run(*backend_).ok());
    std::vector<float> pieces;
    for (const auto& [first, length] : {std::pair(0, 64), std::pair(64, 6)}) {
      Step piece(rng_, shape_, 0, layout,
                 {{.slot = 3, .length = length, .has_initial_state = first > 0}});
      piece.SetSynthetic(0, 42);
      piece.SetPiece(first, 70 - first - length);
      ASSERT_TRUE(piece.Run(*backend_).ok());
      const std::vector<float> output = piece.output(0);
      pieces.insert(pieces.end(), output.begin(), output.end());
    }
    EXPECT_TRUE(Close(pieces, whole.output(0), {70, OutputWidth(shape_.geometry, layout)},
                      LayerTolerance(shape_.io)));
  }
}

TEST_P(BackendContract, SyntheticPartsBesideOthers) {
  Step alone(rng_, shape_, 0, InputLayout::kQkvZBA, {{.slot = 1}});
  alone.SetSynthetic(0, 7);
  ASSERT_TRUE(alone.Run(*backend_).ok());
  Step real(rng_, shape_, 0, InputLayout::kQkvZBA, {{.slot = 0}, {.slot = 5}, {.slot = -1}});
  ASSERT_TRUE(real.Run(*backend_).ok());
  const std::vector<std::byte> truth = Output(real, 0);
  real.SetParts({1, 2, 3});
  real.SetSynthetic(1, 7);
  real.SetSynthetic(2, 7);
  ASSERT_TRUE(real.Run(*backend_).ok());
  EXPECT_EQ(Output(real, 0), truth);
  EXPECT_EQ(Output(real, 1), Output(alone, 0));
  EXPECT_TRUE(AllZero(real.output(2))) << "padding";
}

TEST_P(BackendContract, BatchesWithoutTokens) {
  Step nothing(rng_, shape_, 0, InputLayout::kHidden, {});
  EXPECT_TRUE(nothing.Run(*backend_).ok());
  Step rows(rng_, shape_, 0, InputLayout::kHidden,
            {{.slot = 1, .length = 0}, {.slot = -1, .length = 0}});
  EXPECT_TRUE(rows.Run(*backend_).ok());
  EXPECT_EQ(rows.fault(0), RowFault::kNone);
  EXPECT_EQ(rows.fault(1), RowFault::kNone);
}

// A slot is not cleared for its next tenant, whose first row says that it has no state.
TEST_P(BackendContract, NothingOfAnEarlierTenantShows) {
  for (InputLayout layout : kLayouts) {
    for (int64_t length : {1, 2, 70}) {
      SCOPED_TRACE(::testing::Message() << "layout " << int(layout) << ", length " << length);
      Step step(rng_, shape_, 0, layout, {{.slot = 6, .length = length}});
      ASSERT_TRUE(step.Run(*backend_).ok());
      const std::vector<std::byte> first = Output(step, 0);
      ASSERT_TRUE(step.Run(*backend_).ok());
      EXPECT_EQ(Output(step, 0), first);
    }
  }
}

TEST_P(BackendContract, LayersHaveTheirOwnWeightsAndStates) {
  Step zero(rng_, shape_, 0, InputLayout::kHidden, {{.slot = 1, .length = 4}});
  ASSERT_TRUE(zero.Run(*backend_).ok());
  Twin twin(*GetParam(), shape_);
  Step a(rng_, shape_, 0, InputLayout::kHidden, {twin.Next(0, 1, 4)});
  Step b(rng_, shape_, 1, InputLayout::kHidden, {twin.Next(1, 1, 4)});
  Step c(rng_, shape_, 0, InputLayout::kHidden,
         {{.slot = 1, .length = 1, .has_initial_state = true}});
  twin.Run(a);
  twin.Run(b);
  twin.Run(c);
}

// A piece of a prefill begins while those before it, of the same slot, are in flight.
TEST_P(BackendContract, PiecesInFlightFollowOneAnother) {
  const std::unique_ptr<Backend> alone = MakeLoaded(*GetParam(), shape_);
  const auto depth = static_cast<size_t>(backend_->depth());
  constexpr int64_t kPiece = 70, kPieces = 5;
  for (InputLayout layout : kLayouts) {
    std::deque<std::pair<Step, Step>> in_flight;  // and the same, run alone
    const auto end = [&] {
      auto& [piece, twin] = in_flight.front();
      ASSERT_TRUE(piece.End(*backend_).ok());
      EXPECT_EQ(piece.fault(0), RowFault::kNone);
      EXPECT_EQ(Output(piece, 0), Output(twin, 0)) << "layout " << int(layout);
      in_flight.pop_front();
    };
    for (int64_t i = 0; i < kPieces; ++i) {
      Step piece(rng_, shape_, 0, layout,
                 {{.slot = 3, .length = kPiece, .has_initial_state = i > 0}});
      piece.SetPiece(i * kPiece, (kPieces - 1 - i) * kPiece);
      in_flight.emplace_back(piece, piece);
      ASSERT_TRUE(in_flight.back().second.Run(*alone).ok());
      ASSERT_TRUE(in_flight.back().first.Begin(*backend_).ok());
      if (in_flight.size() < depth) continue;
      ASSERT_NO_FATAL_FAILURE(end());
    }
    while (!in_flight.empty()) ASSERT_NO_FATAL_FAILURE(end());
  }
}

// As many batches in flight as there may be: what a slot's sequence is fed, what comes out and what
// is kept are as if every batch ran alone.
TEST_P(BackendContract, BatchesInFlightAreAsIfRunAlone) {
  const std::unique_ptr<Backend> alone = MakeLoaded(*GetParam(), shape_);
  const auto depth = static_cast<size_t>(backend_->depth());
  ASSERT_GE(depth, 1u);
  std::deque<std::pair<Step, Step>> in_flight;  // and the same, run alone
  const auto end = [&] {
    auto& [step, twin] = in_flight.front();
    ASSERT_TRUE(step.End(*backend_).ok());
    for (size_t row = 0; row < step.rows().size(); ++row) {
      EXPECT_EQ(step.fault(row), twin.fault(row));
      if (step.fault(row) != RowFault::kNone) continue;
      EXPECT_EQ(Output(step, row), Output(twin, row)) << "row " << row;
      if (!step.rows()[row].keep_answer) continue;
      std::vector<std::byte> kept(step.output_bytes(row).size());
      ASSERT_TRUE(alone->ReadAnswer(step.layer(), step.rows()[row].slot, kept).ok());
      EXPECT_EQ(Answer(step, row), kept) << "row " << row;
    }
    in_flight.pop_front();
  };
  for (int i = 0; i < 40; ++i) {
    SCOPED_TRACE(::testing::Message() << "batch " << i);
    // Its own rows among those in flight, and those of the batch that has ended.
    const auto slot = static_cast<int32_t>(i % depth) * 2;
    const bool decode = i % 3 != 0;
    const bool goes_on = i >= 10;
    Step step(rng_, shape_, i / 4 % 2, kLayouts[i / 2 % std::size(kLayouts)],
              {{.slot = slot,
                .length = decode ? 1 : 90,
                .has_initial_state = goes_on,
                .keep_answer = decode},
               {.slot = kPadSlotId, .length = i % 7 == 0 ? 0 : 1},
               {.slot = slot + 1, .length = decode ? 1 : 5, .has_initial_state = goes_on}});
    step.SetParts({1, 3});
    if (i % 8 == 5) step.SetSynthetic(1, 77);
    if (i % 8 == 6) step.DiscardOutput();
    if (i % 8 == 7) step.tensor(0).set(0, std::numeric_limits<float>::quiet_NaN());
    in_flight.emplace_back(step, step);
    ASSERT_TRUE(in_flight.back().second.Run(*alone).ok());
    ASSERT_TRUE(in_flight.back().first.Begin(*backend_).ok());
    if (in_flight.size() < depth) continue;
    ASSERT_NO_FATAL_FAILURE(end());
  }
  while (!in_flight.empty()) ASSERT_NO_FATAL_FAILURE(end());
}

// Everything that a batch may hold at once.
TEST_P(BackendContract, LargestBatch) {
  BackendShape shape = SmallShape();
  shape.slots = 16;
  Twin twin(*GetParam(), shape);
  std::vector<StepRow> rows;
  for (int32_t slot = 0; slot < 16; ++slot) rows.push_back({.slot = slot, .length = 32});
  Step step(rng_, shape, 1, InputLayout::kHidden, rows);
  ASSERT_EQ(step.tokens(), shape.max_tokens);
  ASSERT_EQ(static_cast<int64_t>(rows.size()), shape.max_rows);
  twin.Run(step);
}

// 32 GiB of pools, which on the host take memory only where they are touched.
TEST_P(BackendContract, SlotsBeyondTwoToTheThirtyOneElements) {
  BackendShape shape = SmallShape();
  shape.geometry.key_heads = shape.geometry.value_heads = 1;
  shape.geometry.value_dim = 64;
  shape.state = DType::kBf16;
  shape.layers = shape.max_decode_tokens = 1;
  const int64_t conv_elements =
      shape.geometry.conv_elements();  // fewer than those of the ssm state
  shape.slots = static_cast<int>((int64_t{1} << 31) / conv_elements) + 2;
  const int32_t last = shape.slots - 1;
  ASSERT_GE(last * conv_elements, int64_t{1} << 31);
  Twin twin(*GetParam(), shape);
  Rng rng(16);
  for (const int64_t length : {70, 1, 3}) {
    Step step(rng, shape, 0, InputLayout::kHidden,
              {twin.Next(0, 0, length), twin.Next(0, last, length), twin.Next(0, 9, length)});
    twin.Run(step);
  }
}

}  // namespace
}  // namespace gdn::test
