#include "kernels/validate.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <limits>
#include <string>
#include <vector>

#include "tests/testing/layer_case.h"

namespace gdn::test {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

// A status is INVALID_ARGUMENT and says all of this.
template <typename... Text>
void ExpectInvalid(const absl::Status& status, Text... text) {
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(status.message()), AllOf(HasSubstr(text)...));
}

TEST(ValidateGeometry, AcceptsWhatModelsHave) {
  for (const auto& [h, hv] : {std::pair{16, 16}, {16, 32}, {16, 48}, {16, 64}, {1, 3}}) {
    Geometry g = SmallGeometry();
    g.key_heads = h;
    g.value_heads = hv;
    EXPECT_TRUE(Validate(g).ok()) << Validate(g);
  }
}

TEST(ValidateGeometry, HeadDimensions) {
  for (int dim = -1; dim <= 300; ++dim) {
    const bool fits = dim >= 64 && dim <= 256 && dim % 32 == 0;
    Geometry g = SmallGeometry();
    g.key_dim = dim;
    EXPECT_EQ(Validate(g).ok(), fits) << dim;
    g = SmallGeometry();
    g.value_dim = dim;
    EXPECT_EQ(Validate(g).ok(), fits) << dim;
  }
}

TEST(ValidateGeometry, ConvolutionWidth) {
  for (int width = -1; width <= 6; ++width) {
    Geometry g = SmallGeometry();
    g.conv_width = width;
    EXPECT_EQ(Validate(g).ok(), width == 0 || (width >= 2 && width <= 4)) << width;
  }
}

TEST(ValidateGeometry, SaysWhatWasExpectedAndFound) {
  Geometry g = SmallGeometry();
  g.value_heads = 5;
  ExpectInvalid(Validate(g), "value_heads", "multiple of the 2", "found 5");
  g = SmallGeometry();
  g.hidden_size = 0;
  ExpectInvalid(Validate(g), "hidden_size", "positive", "found 0");
  g = SmallGeometry();
  g.key_heads = -2;
  ExpectInvalid(Validate(g), "key_heads", "found -2");
  g = SmallGeometry();
  g.norm_eps = std::numeric_limits<float>::quiet_NaN();
  ExpectInvalid(Validate(g), "norm_eps");
}

TEST(ValidateShape, EverySizeIsPositive) {
  EXPECT_TRUE(Validate(SmallShape()).ok()) << Validate(SmallShape());
  BackendShape s = SmallShape();
  s.layers = 0;
  ExpectInvalid(Validate(s), "layers", "found 0");
  s = SmallShape();
  s.slots = -1;
  ExpectInvalid(Validate(s), "slots", "found -1");
  s = SmallShape();
  s.max_rows = 0;
  ExpectInvalid(Validate(s), "max_rows");
  s = SmallShape();
  s.max_tokens = 0;
  ExpectInvalid(Validate(s), "max_tokens");
  s = SmallShape();
  s.max_decode_tokens = 0;
  ExpectInvalid(Validate(s), "max_decode_tokens");
}

TEST(ValidateShape, TypesOfStateAndIo) {
  BackendShape s = SmallShape();
  s.state = DType::kFp16;
  ExpectInvalid(Validate(s), "state type", "fp32 or bf16", "found fp16");
  s = SmallShape();
  s.io = static_cast<DType>(9);
  ExpectInvalid(Validate(s), "io type");
}

TEST(ValidateShape, PoolsThatNoMemoryHolds) {
  BackendShape s = SmallShape();
  s.slots = s.layers = s.max_decode_tokens = std::numeric_limits<int>::max();
  ExpectInvalid(Validate(s), "pools");
}

TEST(ValidateWeights, FitTheirShape) {
  for (bool projections : {true, false}) {
    for (int width : {0, 2, 4}) {
      BackendShape s = SmallShape();
      s.projections = projections;
      s.geometry.conv_width = width;
      const RandomLayer layer(1, s);
      EXPECT_TRUE(Validate(layer.weights(), s).ok()) << Validate(layer.weights(), s);
    }
  }
}

TEST(ValidateWeights, NameTheOneThatDoesNotFit) {
  const BackendShape s = SmallShape();
  const RandomLayer layer(1, s);
  LayerWeights w = layer.weights();
  w.in_proj.shape[0] -= 1;
  ExpectInvalid(Validate(w, s), "in_proj", "expected [1032, 96] fp32", "found [1031, 96] fp32");
  w = layer.weights();
  w.out_proj = {};
  ExpectInvalid(Validate(w, s), "out_proj", "found nothing");
  w = layer.weights();
  w.in_proj.type = DType::kBf16;
  ExpectInvalid(Validate(w, s), "in_proj", "fp32", "bf16");
  w = layer.weights();
  w.conv_weight.shape[1] = 3;
  ExpectInvalid(Validate(w, s), "conv_weight", ", 4]", ", 3]");
  w = layer.weights();
  w.conv_bias = {};
  EXPECT_TRUE(Validate(w, s).ok());
  w = layer.weights();
  w.conv_bias.shape[0] = 1;
  ExpectInvalid(Validate(w, s), "conv_bias");
  w = layer.weights();
  w.a_log.type = DType::kFp16;
  ExpectInvalid(Validate(w, s), "A_log", "fp32", "fp16");
  w = layer.weights();
  w.dt_bias = {};
  ExpectInvalid(Validate(w, s), "dt_bias");
  w = layer.weights();
  w.norm.shape[0] = 65;
  ExpectInvalid(Validate(w, s), "norm", "found [65, 1]");
}

TEST(ValidateWeights, NothingBesideTheLayer) {
  BackendShape s = SmallShape();
  const RandomLayer layer(1, s);
  s.projections = false;
  ExpectInvalid(Validate(layer.weights(), s), "in_proj", "expected nothing");
  s = SmallShape();
  s.geometry.conv_width = 0;
  ExpectInvalid(Validate(layer.weights(), s), "conv_weight", "expected nothing");
}

// A batch with the arrays it points to, correct as it begins.
class ValidateBatch : public ::testing::Test {
 protected:
  ValidateBatch() : bytes_(3 * row_bytes(), 'x') {
    pieces_[0] = std::string_view(bytes_).substr(0, 5);
    pieces_[1] = std::string_view(bytes_).substr(5);
    parts_[0] = {.first_token = 0, .tokens = 3, .input = pieces_};
    parts_[1] = {.first_token = 3, .tokens = 2, .input = {}, .synthetic_seed = 1};
  }

  size_t row_bytes() const { return InputRowBytes(shape_.geometry, layout_, shape_.io); }

  absl::Status Check() const {
    return Validate({layer_, layout_, offsets_, slots_, has_, keep_, parts_}, shape_);
  }

  BackendShape shape_ = SmallShape();
  int layer_ = 1;
  InputLayout layout_ = InputLayout::kQkvZBetaG;
  std::vector<int64_t> offsets_ = {0, 2, 2, 5};
  std::vector<int32_t> slots_ = {3, -1, 0};
  std::vector<uint8_t> has_ = {1, 0, 0};
  std::vector<uint8_t> keep_ = {1, 0, 0};
  std::string bytes_;
  std::string_view pieces_[2];
  std::vector<BatchPart> parts_{2};
};

TEST_F(ValidateBatch, AcceptsAGoodOne) { EXPECT_TRUE(Check().ok()) << Check(); }

TEST_F(ValidateBatch, AcceptsOneWithoutRows) {
  Batch batch;
  batch.offsets = std::span(offsets_).first(1);
  EXPECT_TRUE(Validate(batch, shape_).ok());
}

TEST_F(ValidateBatch, Layer) {
  layer_ = 2;
  ExpectInvalid(Check(), "layer", "0 to 1", "found 2");
  layer_ = -1;
  ExpectInvalid(Check(), "layer", "found -1");
}

TEST_F(ValidateBatch, Layout) {
  for (int layout : {0, 6, 200}) {
    layout_ = static_cast<InputLayout>(layout);
    ExpectInvalid(Check(), "layout", "found " + std::to_string(layout));
  }
  layout_ = InputLayout::kHidden;
  shape_.projections = false;
  ExpectInvalid(Check(), "layout", "projected");
}

TEST_F(ValidateBatch, SlotsOutOfRangeOrTwice) {
  slots_[2] = 8;
  ExpectInvalid(Check(), "slot of row 2", "less than 8", "found 8");
  slots_[2] = std::numeric_limits<int32_t>::max();
  ExpectInvalid(Check(), "slot of row 2");
  slots_[2] = 3;
  ExpectInvalid(Check(), "slot of row 2", "no other row", "found 3");
}

TEST_F(ValidateBatch, PaddingMayRepeat) {
  slots_ = {-1, -1, -1};
  EXPECT_TRUE(Check().ok()) << Check();
  slots_ = {-5, std::numeric_limits<int32_t>::min(), 7};
  EXPECT_TRUE(Check().ok()) << Check();
}

TEST_F(ValidateBatch, Offsets) {
  keep_[0] = 0;
  offsets_ = {1, 2, 2, 5};
  ExpectInvalid(Check(), "offsets[0]", "found 1");
  offsets_ = {0, 3, 2, 5};
  ExpectInvalid(Check(), "offsets[2]", "at least 3", "found 2");
  offsets_ = {0, 2, 5};
  ExpectInvalid(Check(), "offsets", "4 entries", "found 3");
  offsets_ = {};
  ExpectInvalid(Check(), "offsets", "found 0");
}

TEST_F(ValidateBatch, RowArrays) {
  has_.pop_back();
  ExpectInvalid(Check(), "has_initial_state", "3 entries", "found 2");
  has_.push_back(0);
  keep_.push_back(0);
  ExpectInvalid(Check(), "keep_answer", "3 entries", "found 4");
}

TEST_F(ValidateBatch, Limits) {
  shape_.max_rows = 2;
  ExpectInvalid(Check(), "rows", "at most 2", "found 3");
  shape_.max_rows = 3;
  shape_.max_tokens = 4;
  ExpectInvalid(Check(), "tokens", "at most 4", "found 5");
  shape_.max_tokens = 5;
  shape_.max_decode_tokens = 1;
  ExpectInvalid(Check(), "row 0, whose answer is kept", "at most 1", "found 2");
}

TEST_F(ValidateBatch, BytesOfAPart) {
  pieces_[1].remove_suffix(1);
  ExpectInvalid(Check(), "input of part 0", "expected " + std::to_string(bytes_.size()) + " bytes",
                "found " + std::to_string(bytes_.size() - 1));
  pieces_[1] = std::string_view(bytes_);
  ExpectInvalid(Check(), "input of part 0");
}

TEST_F(ValidateBatch, SyntheticPartsHaveNoBytes) {
  parts_[0].synthetic_seed = 3;
  ExpectInvalid(Check(), "input of part 0", "expected 0 bytes");
}

TEST_F(ValidateBatch, PartsCoverTheTokens) {
  parts_[1].first_token = 4;
  ExpectInvalid(Check(), "first token of part 1", "expected 3", "found 4");
  parts_[1].first_token = 3;
  parts_[1].tokens = 1;
  ExpectInvalid(Check(), "tokens of all parts", "expected 5", "found 4");
  parts_[1].tokens = 3;
  ExpectInvalid(Check(), "tokens of part 1", "0 to 2", "found 3");
  parts_[1].tokens = -1;
  ExpectInvalid(Check(), "tokens of part 1", "found -1");
  parts_.pop_back();
  ExpectInvalid(Check(), "tokens of all parts", "found 3");
}

}  // namespace
}  // namespace gdn::test
