#include "server/engine/step_piece.h"

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace gdn {
namespace {

using ::testing::ElementsAre;

StepRequest Rows(std::vector<uint32_t> token_counts) {
  StepRequest request;
  request.slots.assign(token_counts.size(), 0);
  request.token_counts = std::move(token_counts);
  return request;
}

// The tokens before the end of each piece.
std::vector<int64_t> Cut(const StepRequest& request, const CutRules& rules) {
  std::vector<int64_t> ends;
  for (StepCursor at; at.row < request.rows();) {
    at = EndOfPiece(request, at, rules);
    ends.push_back(TokensBefore(request, at));
  }
  return ends;
}

TEST(StepPieceTest, ALongRowIsCutIntoPieces) {
  EXPECT_THAT(Cut(Rows({300}), {128, 1}), ElementsAre(128, 256, 300));
  EXPECT_THAT(Cut(Rows({256}), {128, 1}), ElementsAre(128, 256));
}

TEST(StepPieceTest, RowsAreCutAtMultiplesOf64OfTheirOwnTokens) {
  EXPECT_THAT(Cut(Rows({100, 200}), {128, 1}), ElementsAre(100, 228, 300));
  EXPECT_THAT(Cut(Rows({30, 200, 10}), {128, 1}), ElementsAre(94, 222, 240));
}

TEST(StepPieceTest, ShortRowsStayWhole) {
  EXPECT_THAT(Cut(Rows({50, 50, 50}), {128, 1}), ElementsAre(100, 150));
  EXPECT_THAT(Cut(Rows({50, 100, 300}), {128, 100}), ElementsAre(50, 150, 278, 406, 450));
  EXPECT_THAT(Cut(Rows({200, 10}), {128, 200}), ElementsAre(200, 210));  // longer than a piece
}

TEST(StepPieceTest, RowsOfNoTokensCostNothing) {
  EXPECT_THAT(Cut(Rows({0, 128, 0, 0, 1, 0}), {128, 1}), ElementsAre(128, 129));
}

TEST(StepPieceTest, OnlyPrefillsOfMoreThanAPieceAreCut) {
  StepRequest request = Rows({129});
  EXPECT_TRUE(IsCut(StepKind::kPrefill, request, {128, 1}));
  request.direct_input = true;
  EXPECT_TRUE(IsCut(StepKind::kPrefill, request, {128, 1}));
  request.shared_memory.emplace();  // the host does not look at it
  EXPECT_FALSE(IsCut(StepKind::kPrefill, request, {128, 1}));
  request.direct_input = false;
  EXPECT_TRUE(IsCut(StepKind::kPrefill, request, {128, 1}));
  EXPECT_FALSE(IsCut(StepKind::kDecode, request, {128, 1}));
  EXPECT_FALSE(IsCut(StepKind::kPrefill, request, {0, 1}));
  EXPECT_FALSE(IsCut(StepKind::kPrefill, Rows({128}), {128, 1}));
  EXPECT_FALSE(IsCut(StepKind::kPrefill, request, {128, 129}));  // it stays whole
}

// Two tensors of 1 and 2 numbers a token, in pieces that cut them anywhere.
TEST(StepPieceTest, APieceHasItsTokensOfEveryTensor) {
  StepRequest request = Rows({3});
  request.input = {"a1", "a2a3b1", "b1b2b", "2b3b3"};
  const std::vector<InputTensor> tensors = {{InputTensor::Kind::kB, 1, DType::kBf16},
                                            {InputTensor::Kind::kA, 2, DType::kBf16}};
  const auto joined = [&](int64_t first, int64_t count) {
    std::string bytes;
    for (const std::string_view piece : InputOf(request, tensors, first, count)) bytes += piece;
    return bytes;
  };
  EXPECT_EQ(joined(0, 3), "a1a2a3b1b1b2b2b3b3");
  EXPECT_EQ(joined(1, 1), "a2b2b2");
  EXPECT_EQ(joined(1, 2), "a2a3b2b2b3b3");
}

}  // namespace
}  // namespace gdn
