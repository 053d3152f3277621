#include "server/wire/validate_step.h"

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "kernels/layout.h"

namespace gdn {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Pair;
using ::testing::UnorderedElementsAre;

class ValidateStepTest : public ::testing::Test {
 protected:
  ValidateStepTest() {
    limits_.geometry = {
        .hidden_size = 64, .key_heads = 1, .value_heads = 3, .key_dim = 16, .value_dim = 8};
    limits_.io = DType::kBf16;
    limits_.layers = {0, 1, 4};
    limits_.projections = true;
    limits_.slots = 10;
    limits_.max_rows = 8;
    limits_.max_tokens = 32;
    limits_.max_decode_tokens = 2;
    request_.layer = 4;
    request_.data_type = v1::DATA_TYPE_BF16;
    request_.input_layout = v1::INPUT_LAYOUT_HIDDEN;
  }

  void UseIds(std::vector<std::string> ids) {
    request_.request_ids = std::move(ids);
    FillInput();
  }

  void UseSlots(std::vector<int32_t> slots) {
    request_.slots = std::move(slots);
    request_.epochs.assign(request_.slots.size(), 1);
    FillInput();
  }

  // The input that rows and layout ask for.
  void FillInput() {
    const InputLayout layout = request_.input_layout == 0
                                   ? InputLayout::kHidden
                                   : static_cast<InputLayout>(request_.input_layout);
    bytes_.assign(request_.total_tokens() * InputRowBytes(limits_.geometry, layout, limits_.io), 0);
    request_.input = {std::string_view(bytes_).substr(0, bytes_.size() / 3),
                      std::string_view(bytes_).substr(bytes_.size() / 3)};
  }

  Fault Validate(StepKind kind = StepKind::kDecode) {
    return ValidateStep(request_, kind, limits_);
  }

  // That the step is refused for the batch as a whole, with a sentence that says `what`.
  void ExpectRefused(v1::ErrorReason reason, const std::string& what,
                     StepKind kind = StepKind::kDecode) {
    const Fault fault = Validate(kind);
    EXPECT_EQ(v1::ErrorReason_Name(fault.reason), v1::ErrorReason_Name(reason));
    EXPECT_THAT(fault.message, HasSubstr(what));
    EXPECT_EQ(fault.message.back(), '.');
    EXPECT_THAT(fault.rows, IsEmpty());
  }

  StepLimits limits_;
  StepRequest request_;
  std::string bytes_;
};

TEST_F(ValidateStepTest, TakesRowsByIdAndBySlot) {
  UseIds({"a", "A9._:/-", "", "", std::string(128, 'x')});
  EXPECT_TRUE(Validate().ok()) << Validate().message;
  request_.request_ids.clear();
  UseSlots({0, 9, -1, -1, -7});
  EXPECT_TRUE(Validate().ok()) << Validate().message;
  EXPECT_TRUE(Validate(StepKind::kPrefill).ok());
}

TEST_F(ValidateStepTest, TakesEveryLayout) {
  for (int layout = 0; layout <= 5; ++layout) {
    request_.input_layout = layout;
    UseIds({"a", "b"});
    EXPECT_TRUE(Validate().ok()) << Validate().message;
  }
}

TEST_F(ValidateStepTest, TakesRowsOfNoTokens) {
  request_.token_counts = {0, 2};
  UseIds({"a", "b"});
  EXPECT_TRUE(Validate().ok()) << Validate().message;
  request_.token_counts = {0, 0};
  FillInput();
  EXPECT_TRUE(Validate().ok()) << Validate().message;
}

TEST_F(ValidateStepTest, RefusesRowsThatAreNotOfOneKind) {
  ExpectRefused(v1::ERROR_REASON_MALFORMED_BATCH, "0 rows");
  UseIds({"a"});
  UseSlots({1});
  ExpectRefused(v1::ERROR_REASON_MALFORMED_BATCH, "request_ids (1) and slots (1)");
}

TEST_F(ValidateStepTest, RefusesArraysOfOtherLengths) {
  UseIds({"a", "b"});
  request_.epochs = {1};
  ExpectRefused(v1::ERROR_REASON_MALFORMED_BATCH, "epochs has 1 elements for 2 rows");
  request_.epochs = {1, 2};
  request_.positions = {1, 2, 3};
  ExpectRefused(v1::ERROR_REASON_MALFORMED_BATCH, "positions has 3");
  request_.positions = {};
  request_.token_counts = {1, 1, 1};
  ExpectRefused(v1::ERROR_REASON_MALFORMED_BATCH, "token_counts has 3");
}

TEST_F(ValidateStepTest, SlotsNeedEpochsAndCreateNothing) {
  UseSlots({1});
  request_.create = true;
  ExpectRefused(v1::ERROR_REASON_MALFORMED_BATCH, "create");
  request_.create = false;
  request_.epochs.clear();
  ExpectRefused(v1::ERROR_REASON_MALFORMED_BATCH, "epochs");
}

TEST_F(ValidateStepTest, SpeculativeExcludesReleaseAfter) {
  UseIds({"a"});
  request_.speculative = true;
  ExpectRefused(v1::ERROR_REASON_UNSUPPORTED, "peculative");
  request_.release_after = true;
  ExpectRefused(v1::ERROR_REASON_MALFORMED_BATCH, "release_after");
}

TEST_F(ValidateStepTest, RefusesWhatTheServerDoesNotHost) {
  UseIds({"a"});
  request_.layer = 3;
  ExpectRefused(v1::ERROR_REASON_UNSUPPORTED, "Layer 3");
  request_.layer = 4;
  for (int type : {0, 2, 3, 4, -1}) {
    request_.data_type = type;
    ExpectRefused(v1::ERROR_REASON_UNSUPPORTED, "the server's is DATA_TYPE_BF16");
  }
  request_.data_type = v1::DATA_TYPE_BF16;
  for (int layout : {6, -1, 1 << 20}) {
    request_.input_layout = layout;
    ExpectRefused(v1::ERROR_REASON_UNSUPPORTED, "input_layout " + std::to_string(layout));
  }
  request_.input_layout = v1::INPUT_LAYOUT_HIDDEN;
  request_.shared_memory.emplace();
  ExpectRefused(v1::ERROR_REASON_UNSUPPORTED, "shared memory");
}

TEST_F(ValidateStepTest, HiddenNeedsProjections) {
  limits_.projections = false;
  UseIds({"a"});
  ExpectRefused(v1::ERROR_REASON_UNSUPPORTED, "HIDDEN");
  request_.input_layout = v1::INPUT_LAYOUT_UNSPECIFIED;
  ExpectRefused(v1::ERROR_REASON_UNSUPPORTED, "HIDDEN");
  request_.input_layout = v1::INPUT_LAYOUT_QKV_B_A;
  FillInput();
  EXPECT_TRUE(Validate().ok()) << Validate().message;
}

TEST_F(ValidateStepTest, RefusesTooManyRows) {
  UseSlots({0, 1, 2, 3, 4, 5, 6, -1});
  EXPECT_TRUE(Validate().ok()) << Validate().message;
  UseSlots({0, 1, 2, 3, 4, 5, 6, -1, -1});
  ExpectRefused(v1::ERROR_REASON_BATCH_TOO_LARGE, "9 rows; at most 8");
}

TEST_F(ValidateStepTest, RefusesTooManyTokens) {
  request_.token_counts = {31, 1};
  UseIds({"a", "b"});
  EXPECT_TRUE(Validate(StepKind::kPrefill).ok());
  ExpectRefused(v1::ERROR_REASON_BATCH_TOO_LARGE, "Row 0 decodes 31 tokens; at most 2");
  request_.token_counts = {31, 2};
  ExpectRefused(v1::ERROR_REASON_BATCH_TOO_LARGE, "33 tokens; at most 32", StepKind::kPrefill);
  request_.token_counts = {0xffffffff, 33};  // 32 where sums wrap at 32 bits
  ExpectRefused(v1::ERROR_REASON_BATCH_TOO_LARGE, "4294967328 tokens", StepKind::kPrefill);
}

TEST_F(ValidateStepTest, SyntheticInputIsAFlag) {
  UseIds({"a"});
  request_.input.clear();
  request_.synthetic_seed = 5;
  ExpectRefused(v1::ERROR_REASON_SYNTHETIC_INPUT_DISABLED, "--allow_synthetic_input");
  limits_.allow_synthetic_input = true;
  EXPECT_TRUE(Validate().ok()) << Validate().message;
  for (v1::InputLayout layout : {v1::INPUT_LAYOUT_QKV_BETA_G, v1::INPUT_LAYOUT_QKV_Z_BETA_G}) {
    request_.input_layout = layout;
    ExpectRefused(v1::ERROR_REASON_UNSUPPORTED, "synthetic");
  }
}

TEST_F(ValidateStepTest, InputHasTheSizeThatRowsAndLayoutGive) {
  UseIds({"a", "", "c"});
  request_.input.push_back("x");
  const Fault fault = Validate();
  EXPECT_EQ(fault.reason, v1::ERROR_REASON_INPUT_SIZE_MISMATCH);
  EXPECT_EQ(fault.message, "`input` has 385 bytes; 3 tokens take 384.");  // 3 * 64 * 2
  EXPECT_THAT(fault.metadata,
              UnorderedElementsAre(Pair("expected_bytes", "384"), Pair("actual_bytes", "385")));
  request_.input.clear();
  EXPECT_EQ(Validate().metadata.at("actual_bytes"), "0");
}

TEST_F(ValidateStepTest, NamesMalformedAndRepeatedIds) {
  UseIds({"a", "b c", "a", "", std::string(129, 'x'), "\xc3\xa9", "a"});
  const Fault fault = Validate();
  EXPECT_EQ(fault.reason, v1::ERROR_REASON_MALFORMED_ID);  // of the lowest row
  EXPECT_THAT(fault.message, HasSubstr("Row 1 has a request_id of 3 bytes"));
  ASSERT_EQ(fault.rows.size(), 2u);
  EXPECT_THAT(fault.rows.at(v1::ERROR_REASON_MALFORMED_ID).rows, ElementsAre(1, 4, 5));
  EXPECT_THAT(fault.rows.at(v1::ERROR_REASON_DUPLICATE_ROW).rows, ElementsAre(2, 6));
}

TEST_F(ValidateStepTest, NamesRepeatedSlotsAndThoseOutOfRange) {
  UseSlots({3, -1, 3, 10, -1, 0x7fffffff, 9, 3});
  const Fault fault = Validate();
  EXPECT_EQ(fault.reason, v1::ERROR_REASON_DUPLICATE_ROW);
  EXPECT_THAT(fault.message, HasSubstr("Row 2 has the slot of an earlier row."));
  ASSERT_EQ(fault.rows.size(), 2u);
  EXPECT_THAT(fault.rows.at(v1::ERROR_REASON_DUPLICATE_ROW).rows, ElementsAre(2, 7));
  EXPECT_THAT(fault.rows.at(v1::ERROR_REASON_SLOT_OUT_OF_RANGE).rows, ElementsAre(3, 5));
}

TEST(IsWellFormedId, TakesOnlyTheCharactersNamed) {
  EXPECT_FALSE(IsWellFormedId(""));
  EXPECT_TRUE(IsWellFormedId("azAZ09._:/-"));
  for (int c = 0; c < 256; ++c) {
    const bool named =
        c < 128 && (std::isalnum(c) ||
                    std::string_view("._:/-").find(static_cast<char>(c)) != std::string::npos);
    EXPECT_EQ(IsWellFormedId(std::string(1, static_cast<char>(c))), named) << c;
  }
}

}  // namespace
}  // namespace gdn
