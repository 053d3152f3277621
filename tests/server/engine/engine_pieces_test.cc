// Prefills that run in pieces of 4 tokens.
#include <limits>
#include <numeric>

#include "tests/server/engine/engine_harness.h"

namespace gdn::test {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;
using ::testing::SizeIs;

constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
constexpr uint32_t kChunk = 4;

class EnginePieces : public EngineHarness, public ::testing::WithParamInterface<int> {
 protected:
  explicit EnginePieces(int depth = GetParam()) : EngineHarness(depth, kChunk) {}

  // A prefill at layer 3 that begins what is not there.
  std::shared_ptr<Outcome> SendPrefill(std::vector<std::string> ids, std::vector<uint32_t> counts,
                                       std::string input, uint64_t step_id = 0) {
    StepRequest request = ById(std::move(ids), true);
    request.token_counts = std::move(counts);
    request.step_id = step_id;
    return Send(StepKind::kPrefill, request, std::move(input));
  }
  std::shared_ptr<Outcome> SendDecode(const std::string& id, int layer = 3) {
    StepRequest request = ById({id});
    request.layer = static_cast<uint32_t>(layer);
    return Send(StepKind::kDecode, request, Hidden({2}));
  }
  static std::string Tokens(int first, int count) {
    std::string hidden;
    for (int i = 0; i < count; ++i) hidden += Hidden({static_cast<float>(first + i)});
    return hidden;
  }
  // Of the batches begun since `first`.
  std::vector<int64_t> TokensOfRuns(size_t first = 0) const {
    std::vector<int64_t> tokens;
    const auto runs = backend_.runs();
    for (size_t i = first; i < runs.size(); ++i) tokens.push_back(runs[i].tokens);
    return tokens;
  }
  // Until another piece has ended and there is more.
  void RunPiece() {
    const size_t before = backend_.runs().size();
    do {
      ASSERT_TRUE(engine_->Step(now_));
    } while (engine_->between_pieces() == nullptr || backend_.runs().size() == before ||
             backend_.runs().back().tokens == 1);
  }
};
INSTANTIATE_TEST_SUITE_P(Depths, EnginePieces, ::testing::Values(1, 2));

TEST_P(EnginePieces, AnswersAsTheWhole) {
  const auto outcome = SendPrefill({"a"}, {10}, Tokens(1, 10));
  RunAll();
  ASSERT_TRUE(outcome->ok()) << outcome->fault.message;
  FakeState state;
  EXPECT_EQ(outcome->output(), Foretell(Tokens(1, 10), &state));
  EXPECT_THAT(TokensOfRuns(), ElementsAre(4, 4, 2));
  EXPECT_EQ(PositionOf("a"), 10u);
  EXPECT_THAT(outcome->answer.slots, ElementsAre(SlotOf("a")));
}

TEST_P(EnginePieces, APieceBeginsWhileTheOneBeforeRuns) {
  SendPrefill({"a"}, {12}, Tokens(1, 12));
  RunAll();
  std::vector<size_t> beside;
  for (const auto& run : backend_.runs()) beside.push_back(run.beside);
  const size_t others = GetParam() - 1;
  EXPECT_THAT(beside, ElementsAre(0, others, others));
}

// The last one never begins.
TEST_P(EnginePieces, WhatIsSpoiltIsAnsweredOnceItsPiecesHaveEnded) {
  const auto outcome = SendPrefill({"a"}, {12}, Hidden({kOverflowing}) + Tokens(1, 11));
  const int pieces = GetParam();
  do {
    EXPECT_EQ(outcome->times, 0);
    ASSERT_TRUE(engine_->Step(now_));
  } while (engine_->waiting() > 0);
  EXPECT_THAT(engine_->in_flight(), IsEmpty());
  ExpectFault(*outcome, v1::ERROR_REASON_STATE_POISONED, {0});
  RunAll();
  EXPECT_THAT(TokensOfRuns(), SizeIs(pieces));
}

TEST_P(EnginePieces, RowsGoOnWhereTheyWereCut) {
  Begin("b");
  const auto outcome = SendPrefill({"a", "", "b", "c"}, {3, 2, 9, 1}, Tokens(10, 15));
  const size_t before = backend_.runs().size();
  RunAll();
  ASSERT_TRUE(outcome->ok()) << outcome->fault.message;
  EXPECT_THAT(TokensOfRuns(before), ElementsAre(3, 2, 4, 4, 2));
  FakeState a, b, c;
  Foretell(Hidden({1}), &b);
  std::vector<float> expected = Foretell(Tokens(10, 3), &a);
  expected.resize(expected.size() + 8);
  for (const auto& [state, first, count] : {std::tuple(&b, 15, 9), std::tuple(&c, 24, 1)}) {
    const std::vector<float> rows = Foretell(Tokens(first, count), state);
    expected.insert(expected.end(), rows.begin(), rows.end());
  }
  EXPECT_EQ(outcome->output(), expected);
  EXPECT_EQ(PositionOf("b"), 10u);
}

// Of tokens whose numbers all differ, as single decodes do it.
TEST_P(EnginePieces, EveryTensorOfALayoutIsCut) {
  constexpr int kTokens = 6;
  constexpr int kMixed = 192;
  const auto numbers = [](int first, int count) {
    std::vector<float> row(static_cast<size_t>(count));
    std::iota(row.begin(), row.end(), static_cast<float>(first));
    return std::string(reinterpret_cast<const char*>(row.data()), row.size() * sizeof(float));
  };
  StepRequest request = ById({"a"}, true);
  request.input_layout = v1::INPUT_LAYOUT_QKV_B_A;
  request.token_counts = {kTokens};
  const auto cut = Prefill(
      request, numbers(0, kTokens * kMixed) + numbers(2000, kTokens) + numbers(3000, kTokens));
  ASSERT_TRUE(cut->ok()) << cut->fault.message;
  EXPECT_THAT(TokensOfRuns(), ElementsAre(4, 2));
  request.request_ids = {"b"};
  request.token_counts.clear();
  std::vector<float> expected;
  for (int i = 0; i < kTokens; ++i) {
    const auto one =
        Decode(request, numbers(i * kMixed, kMixed) + numbers(2000 + i, 1) + numbers(3000 + i, 1));
    ASSERT_TRUE(one->ok());
    const std::vector<float> row = one->output();
    expected.insert(expected.end(), row.begin(), row.end());
  }
  EXPECT_EQ(cut->output(), expected);
}

TEST_P(EnginePieces, SyntheticTokensAreThoseOfTheWhole) {
  StepRequest request = ById({"a"}, true);
  request.token_counts = {6};
  request.synthetic_seed = 7;
  const auto outcome = Prefill(request, "");
  ASSERT_TRUE(outcome->ok()) << outcome->fault.message;
  FakeState state;
  for (int i = 0; i < 6; ++i) {
    const float number = static_cast<float>(7 + i);
    state = state.Fold({reinterpret_cast<const char*>(&number), sizeof number});
  }
  EXPECT_EQ(outcome->output()[5 * 4 + 1], state.second());
}

TEST_P(EnginePieces, DecodesOfOthersRunBetween) {
  Begin("b");
  const size_t before = backend_.runs().size();
  const auto prefill = SendPrefill({"a"}, {12}, Tokens(1, 12));
  RunPiece();
  const auto first = SendDecode("b");
  RunPiece();
  const auto second = SendDecode("b", 7);
  RunAll();
  EXPECT_TRUE(first->ok() && second->ok() && prefill->ok());
  EXPECT_THAT(TokensOfRuns(before), ElementsAre(4, 1, 4, 1, 4));
  FakeState state;
  EXPECT_EQ(prefill->output(), Foretell(Tokens(1, 12), &state));
}

TEST_P(EnginePieces, NothingOfItsSequencesRunsBetween) {
  Begin("a");
  const auto prefill = Send(
      StepKind::kPrefill,
      [] {
        StepRequest request = ById({"a"});
        request.token_counts = {8};
        return request;
      }(),
      Tokens(1, 8));
  RunPiece();
  const auto same = SendDecode("a");
  const auto elsewhere = SendDecode("a", 7);
  bool asked = false;
  SendCall({{"a"}, false, false}, [&](absl::Time) {
    asked = true;
    EXPECT_EQ(PositionOf("a"), 10u);
  });
  EXPECT_EQ(PositionOf("a"), 1u);
  RunAll();
  EXPECT_TRUE(asked && prefill->ok() && same->ok() && elsewhere->ok());
  EXPECT_THAT(TokensOfRuns(1), ElementsAre(4, 4, 1, 1));
}

TEST_P(EnginePieces, PositionsMoveAndAnswersAreKeptAtTheEnd) {
  const auto first = SendPrefill({"a"}, {6}, Tokens(1, 6), 5);
  RunPiece();
  EXPECT_EQ(PositionOf("a"), 0u);
  const auto again = SendPrefill({"a"}, {6}, Tokens(1, 6), 5);
  RunAll();
  EXPECT_EQ(PositionOf("a"), 6u);
  ASSERT_TRUE(again->ok()) << again->fault.message;
  EXPECT_EQ(again->answer.replayed_rows, 1u);
  EXPECT_EQ(again->output(), first->output());
}

TEST_P(EnginePieces, OnceBegunItRunsToItsEndThoughNobodyListens) {
  const auto outcome = SendPrefill({"a"}, {8}, Tokens(1, 8));
  RunPiece();
  last_step_->cancelled = true;
  last_step_->deadline = now_;
  now_ += 3 * kTtl;  // nor does a lease end under it
  RunAll();
  EXPECT_TRUE(outcome->ok());
  EXPECT_EQ(PositionOf("a"), 8u);
}

// The NaN is in the last piece, and no piece writes state.
TEST_P(EnginePieces, AllOfARowIsLookedAtBeforeItsFirstPiece) {
  Begin("a");
  Begin("b");
  const auto outcome =
      SendPrefill({"a", "new", "b"}, {9, 5, 6},
                  Tokens(1, 8) + Hidden({kNan}) + Tokens(1, 4) + Hidden({kNan}) + Tokens(3, 6), 5);
  RunAll();
  ExpectFault(*outcome, v1::ERROR_REASON_NON_FINITE_INPUT, {0, 1});
  EXPECT_EQ(PositionOf("a"), 1u);
  EXPECT_FALSE(Lives("new"));
  EXPECT_EQ(PositionOf("b"), 7u);
  FakeState a;
  Foretell(Hidden({1}), &a);
  EXPECT_EQ(Decode(ById({"a"}), Hidden({9}))->output(), Foretell(Hidden({9}), &a));
  // The others committed: what is sent again without the bad rows is answered from the store.
  const auto again = SendPrefill({"", "", "b"}, {9, 5, 6}, std::string(20 * 16, '\0'), 5);
  RunAll();
  ASSERT_TRUE(again->ok()) << again->fault.message;
  EXPECT_EQ(again->answer.replayed_rows, 1u);
}

// What is cut, and all of one type.
TEST_P(EnginePieces, SaysWhichInputItWouldLookThrough) {
  StepRequest request = ById({"a"}, true);
  request.token_counts = {kChunk + 1};
  const auto asked = [&](StepKind kind) {
    return engine_->TypeToCheck(*NewStep(kind, request, "").first);
  };
  EXPECT_EQ(asked(StepKind::kPrefill), DType::kFp32);
  EXPECT_EQ(asked(StepKind::kDecode), std::nullopt);
  request.token_counts = {kChunk};
  EXPECT_EQ(asked(StepKind::kPrefill), std::nullopt);
}

TEST_P(EnginePieces, WhatIsKnownFiniteIsNotLookedThrough) {
  StepRequest request = ById({"a"}, true);
  request.token_counts = {5};
  const auto [step, outcome] = NewStep(StepKind::kPrefill, request, Tokens(1, 4) + Hidden({kNan}));
  step->known_finite = true;
  engine_->Submit(step, now_);
  EXPECT_THAT(step->non_finite, IsEmpty());
  RunAll();
  ExpectFault(*outcome, v1::ERROR_REASON_STATE_POISONED, {0});  // by the backend, too late
}

TEST_P(EnginePieces, APrefillWithNoRowToGoOnWithEndsEarly) {
  const auto outcome = SendPrefill({"a"}, {12}, Tokens(1, 11) + Hidden({kNan}));
  RunAll();
  ExpectFault(*outcome, v1::ERROR_REASON_NON_FINITE_INPUT, {0});
  EXPECT_THAT(TokensOfRuns(), ElementsAre(4));
  EXPECT_EQ(engine_->slots_used(), 0);
}

TEST_P(EnginePieces, AnOverflowInAPiecePoisonsItsRowAndEndsIt) {
  Begin("a");
  const auto outcome =
      SendPrefill({"a", "b"}, {9, 3}, Tokens(1, 4) + Hidden({kOverflowing}) + Tokens(1, 7));
  const size_t before = backend_.runs().size();
  RunAll();
  ExpectFault(*outcome, v1::ERROR_REASON_STATE_POISONED, {0});
  EXPECT_TRUE(engine_->table().At(SlotOf("a")).poisoned);
  EXPECT_EQ(PositionOf("b"), 3u);
  const auto runs = backend_.runs();
  ASSERT_EQ(runs.size(), before + 3);
  EXPECT_THAT(runs[before].slots, ElementsAre(SlotOf("a")));
  // What has begun by then goes on.
  EXPECT_THAT(runs.back().slots, ElementsAre(GetParam() == 1 ? -1 : SlotOf("a"), SlotOf("b")));
}

TEST_P(EnginePieces, ADeviceFaultInAPieceIsItsRowsAlone) {
  const auto outcome =
      SendPrefill({"a", "b"}, {8, 8}, Tokens(1, 6) + Hidden({kDeviceFailing}) + Tokens(1, 9));
  RunAll();
  ExpectFault(*outcome, v1::ERROR_REASON_DEVICE_ERROR, {0});
  EXPECT_FALSE(Lives("a"));  // it was to begin
  EXPECT_EQ(PositionOf("b"), 8u);
}

TEST_P(EnginePieces, ADeviceLostBetweenPiecesPoisonsItsRows) {
  Begin("a");
  const auto outcome = SendPrefill({"a", "b"}, {8, 1}, Tokens(1, 9));
  RunPiece();
  backend_.LoseDevice();
  RunAll();
  ExpectFault(*outcome, v1::ERROR_REASON_DEVICE_ERROR, {0, 1});
  EXPECT_TRUE(engine_->table().At(SlotOf("a")).poisoned);
  EXPECT_EQ(devices_lost_, 1);
  EXPECT_EQ(engine_->waiting(), 0u);
}

// While the next one runs, and more of it waits.
TEST_P(EnginePieces, ADeviceLostAtAPiecesEndEndsThoseBehindIt) {
  Begin("a");
  const auto lost = SendPrefill({"a"}, {16}, Tokens(1, 16));
  RunPiece();
  const auto behind = SendDecode("a");
  backend_.FailEnds();
  RunAll();
  ExpectFault(*lost, v1::ERROR_REASON_DEVICE_ERROR, {0});
  EXPECT_EQ(lost->times, 1);
  EXPECT_FALSE(behind->ok());
  EXPECT_TRUE(engine_->table().At(SlotOf("a")).poisoned);
  EXPECT_EQ(devices_lost_, 1);
  EXPECT_EQ(engine_->between_pieces(), nullptr);
  EXPECT_THAT(engine_->in_flight(), IsEmpty());
  EXPECT_EQ(engine_->waiting(), 0u);
}

// None of its pieces is in flight then.
TEST_P(EnginePieces, ADeviceLostInADecodeBetweenPiecesEndsThem) {
  Begin("b");
  const auto lost = SendPrefill({"a"}, {12}, Tokens(1, 12));
  RunPiece();
  const auto decode = SendDecode("b");
  while (decode->times == 0 && backend_.runs().back().tokens != 1) ASSERT_TRUE(engine_->Step(now_));
  backend_.FailEnds();
  RunAll();
  EXPECT_EQ(lost->times, 1);
  EXPECT_EQ(lost->fault.reason, v1::ERROR_REASON_DEVICE_ERROR);
  EXPECT_FALSE(Lives("a"));
  EXPECT_EQ(engine_->between_pieces(), nullptr);
  EXPECT_EQ(engine_->waiting(), 0u);
}

TEST_P(EnginePieces, ItsSequencesAreReleasedAfterTheLastPiece) {
  StepRequest request = ById({"a"}, true);
  request.token_counts = {6};
  request.release_after = true;
  const auto outcome = Prefill(request, Tokens(1, 6));
  EXPECT_TRUE(outcome->ok());
  EXPECT_FALSE(Lives("a"));
}

TEST_P(EnginePieces, AnEpochGuessedBetweenPiecesIsNotFound) {
  const auto prefill = SendPrefill({"a"}, {6}, Tokens(1, 6));
  RunPiece();
  const auto guess = Send(StepKind::kDecode, BySlot({SlotOf("a")}, {kFirstEpoch}), Hidden({1}));
  RunAll();
  EXPECT_TRUE(prefill->ok());
  ExpectFault(*guess, v1::ERROR_REASON_SEQUENCE_NOT_FOUND, {0});
}

TEST_P(EnginePieces, CloseEndsWhatHasBegunAndRefusesTheRest) {
  const auto begun = SendPrefill({"a"}, {12}, Tokens(1, 12));
  RunPiece();
  const auto waiting = SendPrefill({"b"}, {12}, Tokens(1, 12));
  engine_->Close(now_);
  EXPECT_TRUE(begun->ok());
  EXPECT_EQ(PositionOf("a"), 12u);
  EXPECT_EQ(waiting->fault.reason, v1::ERROR_REASON_DRAINING);
  EXPECT_EQ(engine_->waiting(), 0u);
  EXPECT_EQ(engine_->between_pieces(), nullptr);
}

TEST_P(EnginePieces, PrefillsAreCutOneAfterAnother) {
  const auto first = SendPrefill({"a"}, {8}, Tokens(1, 8));
  const auto second = SendPrefill({"b"}, {8}, Tokens(1, 8));
  RunPiece();
  RunAll();
  EXPECT_TRUE(first->ok() && second->ok());
  std::vector<int32_t> slots;
  for (const auto& run : backend_.runs()) slots.push_back(run.slots.front());
  EXPECT_THAT(slots, ElementsAre(SlotOf("a"), SlotOf("a"), SlotOf("b"), SlotOf("b")));
}

TEST_P(EnginePieces, ALeaseRunsFromTheLastPiece) {
  SendPrefill({"a"}, {8}, Tokens(1, 8));
  RunPiece();
  now_ += 2 * kTtl;
  RunAll();
  now_ += kTtl;
  EXPECT_FALSE(engine_->Step(now_));
  EXPECT_TRUE(Lives("a"));
  now_ += absl::Nanoseconds(1);
  EXPECT_FALSE(engine_->Step(now_));
  EXPECT_FALSE(Lives("a"));
}

}  // namespace
}  // namespace gdn::test
