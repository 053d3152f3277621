// Whole layers on a backend against the layer oracle: layouts, types, geometries, mixtures of rows.
#include <gtest/gtest.h>

#include "tests/testing/backend_case.h"

namespace gdn::test {
namespace {

class BackendAgreement : public BackendTest {};
GDN_ON_EVERY_BACKEND(BackendAgreement);

// A prefill and some decodes of one sequence on every layer and in every layout.
void CheckSequences(Twin& twin) {
  Rng rng(1);
  for (int layer = 0; layer < twin.shape().layers; ++layer) {
    int32_t slot = 0;
    for (InputLayout layout : kLayouts) {
      if (layout == InputLayout::kHidden && !twin.shape().projections) continue;
      SCOPED_TRACE(::testing::Message() << "layer " << layer << ", layout " << int(layout));
      Step prefill(rng, twin.shape(), layer, layout, {twin.Next(layer, slot, 70)});
      ASSERT_NO_FATAL_FAILURE(twin.Run(prefill));
      for (int i = 0; i < 3; ++i) {
        Step decode(rng, twin.shape(), layer, layout, {twin.Next(layer, slot, 1)});
        ASSERT_NO_FATAL_FAILURE(twin.Run(decode));
      }
      ++slot;
    }
  }
}

TEST_P(BackendAgreement, EveryLayoutInEveryType) {
  for (DType io : {DType::kFp32, DType::kBf16, DType::kFp16}) {
    for (DType state : {DType::kFp32, DType::kBf16}) {
      SCOPED_TRACE(::testing::Message() << "io " << int(io) << ", state " << int(state));
      BackendShape shape = SmallShape();
      shape.io = io;
      shape.state = state;
      Twin twin(*GetParam(), shape);
      CheckSequences(twin);
    }
  }
}

TEST_P(BackendAgreement, EveryRatioOfHeads) {
  for (const auto& [h, hv] : {std::pair{1, 1}, {2, 2}, {1, 3}, {2, 6}, {1, 4}}) {
    SCOPED_TRACE(::testing::Message() << h << "/" << hv);
    BackendShape shape = SmallShape();
    shape.geometry.key_heads = h;
    shape.geometry.value_heads = hv;
    Twin twin(*GetParam(), shape);
    CheckSequences(twin);
  }
}

TEST_P(BackendAgreement, EveryHeadDimension) {
  for (const auto& [k, v] : {std::pair{64, 64}, {96, 160}, {128, 128}, {192, 64}, {256, 224}}) {
    SCOPED_TRACE(::testing::Message() << k << "/" << v);
    BackendShape shape = SmallShape();
    shape.geometry.key_heads = 1;
    shape.geometry.value_heads = 2;
    shape.geometry.key_dim = k;
    shape.geometry.value_dim = v;
    Twin twin(*GetParam(), shape);
    CheckSequences(twin);
  }
}

TEST_P(BackendAgreement, EveryConvolution) {
  for (int width : {0, 2, 3, 4}) {
    for (Activation activation : {Activation::kSilu, Activation::kNone}) {
      SCOPED_TRACE(::testing::Message() << "W " << width << ", activation " << int(activation));
      BackendShape shape = SmallShape();
      shape.geometry.conv_width = width;
      shape.geometry.conv_activation = activation;
      Twin twin(*GetParam(), shape);
      CheckSequences(twin);
    }
  }
}

TEST_P(BackendAgreement, SigmoidGate) {
  BackendShape shape = SmallShape();
  shape.geometry.gate = Gate::kSigmoid;
  Twin twin(*GetParam(), shape);
  CheckSequences(twin);
}

TEST_P(BackendAgreement, WithoutProjections) {
  BackendShape shape = SmallShape();
  shape.projections = false;
  Twin twin(*GetParam(), shape);
  CheckSequences(twin);
}

// Without normalisation k must be short for the rule to contract, so the input is scaled down, and
// there is no convolution to lengthen it again.
TEST_P(BackendAgreement, WithoutL2Norm) {
  BackendShape shape = SmallShape();
  shape.geometry.qk_l2norm = false;
  shape.geometry.conv_width = 0;
  Twin twin(*GetParam(), shape);
  Rng rng(2);
  for (int64_t length : {1, 70, 1, 2}) {
    Step step(rng, shape, 0, InputLayout::kQkvBetaG, {twin.Next(0, 3, length)});
    for (int64_t i = 0; i < step.tensor(0).size(); ++i) {
      step.tensor(0).set(i, 0.1f * step.tensor(0)[i]);
    }
    ASSERT_NO_FATAL_FAILURE(twin.Run(step));
  }
}

TEST_P(BackendAgreement, LongPrefillNextToShortOnes) {
  BackendShape shape = SmallShape();
  Twin twin(*GetParam(), shape);
  Rng rng(3);
  Step step(rng, shape, 1, InputLayout::kHidden,
            {twin.Next(1, 0, 257), twin.Next(1, 5, 1), twin.Next(1, 2, 64), twin.Next(1, 7, 65)});
  twin.Run(step);
}

int64_t RandomLength(Rng& rng) {
  constexpr int64_t kLengths[] = {0, 1, 1, 1, 1, 2, 5, 17, 63, 64, 65, 100};
  return kLengths[rng() % std::size(kLengths)];
}

// Up to eight rows over distinct slots, padding among them, some beginning anew.
std::vector<StepRow> RandomRows(Rng& rng, Twin& twin, int layer) {
  std::vector<int32_t> slots(twin.shape().slots);
  for (size_t i = 0; i < slots.size(); ++i) slots[i] = static_cast<int32_t>(i);
  std::shuffle(slots.begin(), slots.end(), rng);
  const bool decode = rng() % 2 == 0;
  std::vector<StepRow> rows;
  for (size_t i = 0, count = rng() % slots.size(); i < count; ++i) {
    const int64_t length = decode ? 1 : RandomLength(rng);
    if (rng() % 8 == 0) twin.Forget(layer, slots[i]);
    rows.push_back(twin.Next(layer, slots[i], length));
    if (rng() % 5 == 0) rows.back().slot = -1 - static_cast<int32_t>(rng() % 3);
  }
  return rows;
}

// Ascending ends of parts; parts may be empty.
std::vector<size_t> RandomParts(Rng& rng, size_t rows) {
  std::vector<size_t> ends = {rows};
  for (size_t i = rng() % 4; i > 0; --i) ends.push_back(rng() % (rows + 1));
  std::sort(ends.begin(), ends.end());
  return ends;
}

// NaN all over the input of padding rows.
void PoisonPadding(Step& step) {
  for (size_t row = 0; row < step.rows().size(); ++row) {
    if (step.rows()[row].slot >= 0) continue;
    for (size_t i = 0; i < step.kinds().size(); ++i) {
      const int64_t width = step.kinds()[i].width;
      const int64_t begin = step.begin(row) * width;
      for (int64_t e = begin; e < begin + step.rows()[row].length * width; ++e) {
        step.tensor(i).set(e, std::nanf(""));
      }
    }
  }
}

TEST_P(BackendAgreement, RandomMixtures) {
  for (DType io : {DType::kFp32, DType::kBf16}) {
    BackendShape shape = SmallShape();
    shape.io = io;
    shape.geometry.key_heads = 1;
    shape.geometry.value_heads = 3;
    shape.max_tokens = 1024;
    Twin twin(*GetParam(), shape);
    Rng rng(4);
    for (int i = 0; i < 40; ++i) {
      SCOPED_TRACE(::testing::Message() << "io " << int(io) << ", step " << i);
      const int layer = static_cast<int>(rng() % shape.layers);
      const InputLayout layout = kLayouts[rng() % 5];
      Step step(rng, shape, layer, layout, RandomRows(rng, twin, layer));
      step.SetParts(RandomParts(rng, step.rows().size()));
      step.CutPieces(rng, 1 + static_cast<int>(rng() % 9));
      PoisonPadding(step);
      ASSERT_NO_FATAL_FAILURE(twin.Run(step));
    }
  }
}

}  // namespace
}  // namespace gdn::test
