// The causal convolution, for many tokens and for one.
#include <gtest/gtest.h>

#include <limits>

#include "tests/testing/cases.h"
#include "tests/testing/compare.h"
#include "tests/testing/implementation.h"
#include "tests/testing/sparse_pool.h"

namespace gdn::test {
namespace {

struct Result {
  Tensor y, pool;
};

template <typename Params>
Result RunConv(void (*conv)(const Params&), const ConvInputs& in, DType y_type, bool bias) {
  Result r = {Tensor(in.x.type(), in.x.size(), 99.0f), in.pool};
  Params p = in.Bind<Params>(&r.pool, &r.y, bias);
  Tensor x = ConvInputs::Rounded(in.x);
  if (y_type == DType::kFp32) {  // the truth: the same inputs, nothing rounded behind them
    r = {Tensor(y_type, in.x.size()), ConvInputs::Rounded(in.pool)};
    p = in.Bind<Params>(&r.pool, &r.y, bias);
    p.io = DType::kFp32;
    p.x = x.data();
  }
  conv(p);
  return r;
}

// State rows hold inputs, so they move without rounding: the pools must be equal.
void CheckFn(const Implementation& impl, DType io, bool bias, bool initial, Tolerance t) {
  uint64_t seed = 300;
  for (const ConvShape& shape : ConvShapes()) {
    SCOPED_TRACE(::testing::Message() << shape << ", seed " << ++seed);
    ConvInputs in(seed, shape, io);
    in.rows.set_initial_state(initial);
    const Result truth = RunConv(oracle::CausalConv1dFn, in, DType::kFp32, bias);
    const Result result = RunConv(impl.conv_fn, in, io, bias);
    EXPECT_TRUE(Close(result.y, truth.y, {in.rows.tokens(), in.channels}, t));
    EXPECT_EQ(result.pool.floats(), truth.pool.floats());
  }
}

void CheckUpdate(const Implementation& impl, DType io, bool bias, bool initial, Tolerance output,
                 Tolerance state) {
  uint64_t seed = 400;
  for (const ConvShape& shape : ConvUpdateShapes()) {
    SCOPED_TRACE(::testing::Message() << shape << ", seed " << ++seed);
    ConvInputs in(seed, shape, io);
    in.rows.set_initial_state(initial);
    const Result truth = RunConv(oracle::CausalConv1dUpdate, in, DType::kFp32, bias);
    const Result result = RunConv(impl.conv_update, in, io, bias);
    EXPECT_TRUE(Close(result.y, truth.y, {in.rows.tokens(), in.channels}, output));
    EXPECT_TRUE(
        Close(result.pool, truth.pool, {in.rows.slots(), in.width - 1, in.channels}, state));
  }
}

class Conv : public OpTest {};
GDN_ON_EVERY_IMPLEMENTATION(Conv);

TEST_P(Conv, UpdateWithoutBias) {
  CheckUpdate(*GetParam(), DType::kBf16, false, true, Within(1e-2), Within(1e-3));
}

TEST_P(Conv, UpdateWithBias) {
  CheckUpdate(*GetParam(), DType::kBf16, true, true, Within(1e-2), Within(1e-3));
}

TEST_P(Conv, UpdateKeepsStateInPlace) {
  for (DType io : {DType::kBf16, DType::kFp16, DType::kFp32}) {
    CheckUpdate(*GetParam(), io, true, true, Within(1e-2), {1e-3, 1e-3, 1e-9});
    CheckUpdate(*GetParam(), io, true, false, Within(1e-2), {1e-3, 1e-3, 1e-9});
  }
}

TEST_P(Conv, VarlenPrefill) {
  CheckFn(*GetParam(), DType::kBf16, true, true, {2e-2, 5e-2, 1e-2});
  CheckFn(*GetParam(), DType::kBf16, false, false, {2e-2, 5e-2, 1e-2});
}

TEST_P(Conv, VarlenPrefillInOtherTypes) {
  CheckFn(*GetParam(), DType::kFp32, true, true, {1e-4, 1e-5, 1e-5});
  CheckFn(*GetParam(), DType::kFp16, true, true, {2e-3, 2e-3, 2e-3});
}

TEST_P(Conv, WithoutActivation) {
  ConvInputs in(1, {{9, 2}, 256, 4}, DType::kFp32);
  Tensor pool = in.pool;
  Tensor truth(DType::kFp32, in.x.size());
  auto p = in.Bind<CausalConv1dFnParams>(&pool, &truth, true);
  p.activation = Activation::kNone;
  oracle::CausalConv1dFn(p);
  Tensor y(DType::kFp32, in.x.size());
  pool = in.pool;
  p.y = y.data();
  GetParam()->conv_fn(p);
  EXPECT_TRUE(Close(y, truth, {in.rows.tokens(), in.channels}, {1e-5, 1e-6, 1e-6}));
}

// A prefill of n tokens is n updates.
TEST_P(Conv, PrefillAgreesWithUpdates) {
  for (int width = 2; width <= 4; ++width) {
    SCOPED_TRACE(width);
    ConvInputs in(2, {{11}, 320, width}, DType::kBf16);
    in.rows.set_initial_state(true);
    const Result prefill = RunConv(GetParam()->conv_fn, in, DType::kBf16, true);
    Tensor pool = in.pool;
    Tensor y(DType::kBf16, in.x.size());
    for (int64_t t = 0; t < in.rows.tokens(); ++t) {
      auto p = in.Bind<CausalConv1dUpdateParams>(&pool, &y, true);
      p.x = static_cast<const Bf16*>(in.x.data()) + t * in.channels;
      p.y = static_cast<Bf16*>(y.data()) + t * in.channels;
      GetParam()->conv_update(p);
    }
    EXPECT_TRUE(Close(y, prefill.y, {in.rows.tokens(), in.channels}, RoundingOf(DType::kBf16)));
    EXPECT_EQ(pool, prefill.pool);
  }
}

// A sum of two products that nearly cancel: rounding them to bf16 first would lose the last bit.
TEST_P(Conv, ProductsAreNotRoundedToIo) {
  const float step = 1.0078125f;  // 1 + 2^-7: its square is no bf16
  ConvInputs in(3, {{2}, 256, 2}, DType::kBf16);
  in.x = Tensor(DType::kBf16, in.x.size(), step);
  in.weight = Tensor(DType::kFp32, in.weight.size(), step);
  for (int64_t c = 0; c < in.channels; ++c) in.weight.set(2 * c, -1.015625f);  // 1 + 2^-6
  Tensor pool = in.pool;
  Tensor y(DType::kBf16, in.x.size());
  auto p = in.Bind<CausalConv1dFnParams>(&pool, &y, false);
  p.activation = Activation::kNone;
  GetParam()->conv_fn(p);
  // step² - step * 1.015625 = -step * 2^-7 exactly; the first token sees step² alone.
  for (int64_t c = 0; c < in.channels; ++c) {
    ASSERT_EQ(y[in.channels + c], -step * 0.0078125f) << "channel " << c;
  }
}

TEST_P(Conv, WithoutInitialStateGarbageInTheSlotIsIgnored) {
  const float nan = std::numeric_limits<float>::quiet_NaN();
  for (const ConvShape& shape : ConvShapes()) {
    SCOPED_TRACE(::testing::Message() << shape);
    ConvInputs in(4, shape, DType::kBf16);
    in.pool = Tensor(DType::kBf16, in.pool.size(), nan);
    const Result garbage = RunConv(GetParam()->conv_fn, in, DType::kBf16, true);
    in.pool = Tensor(DType::kBf16, in.pool.size(), 0.0f);
    const Result zeros = RunConv(GetParam()->conv_fn, in, DType::kBf16, true);
    EXPECT_EQ(garbage.y, zeros.y);
    for (int64_t row = 0; row < in.rows.count(); ++row) {
      if (in.rows.length(row) == 0) continue;
      const int64_t begin = in.rows.slot(row) * in.slot_stride();
      EXPECT_TRUE(AllFinite(garbage.pool.floats(begin, in.slot_stride()))) << "row " << row;
    }
  }
  ConvInputs one(5, {{1, 1}, 256, 4}, DType::kBf16);
  one.pool = Tensor(DType::kBf16, one.pool.size(), nan);
  const Result update = RunConv(GetParam()->conv_update, one, DType::kBf16, true);
  EXPECT_TRUE(AllFinite(update.y.floats()));
}

TEST_P(Conv, RowsWithoutTokensTouchNothing) {
  ConvInputs in(6, {{0, 3, 0}, 256, 4}, DType::kBf16);
  for (bool initial : {false, true}) {
    in.rows.set_initial_state(initial);
    const Result result = RunConv(GetParam()->conv_fn, in, DType::kBf16, true);
    for (int64_t row : {0, 2}) {
      const int64_t begin = in.rows.slot(row) * in.slot_stride();
      EXPECT_EQ(result.pool.floats(begin, in.slot_stride()),
                in.pool.floats(begin, in.slot_stride()));
    }
  }
}

// Slots whose states lie beyond 2^31 elements, by way of a large stride.
template <typename Params>
void CheckHighSlots(void (*conv)(const Params&), const std::vector<int64_t>& lengths) {
  constexpr int64_t kStride = int64_t{1} << 19;
  constexpr int32_t kSlots[] = {5000, 4096, 0};
  SparsePool sparse(5001 * kStride * sizeof(Bf16));
  ASSERT_TRUE(sparse.valid());
  ConvInputs in(7, {lengths, 256, 4}, DType::kBf16);
  in.rows.set_initial_state(true);
  const Result truth = RunConv(conv, in, DType::kBf16, true);
  const ConvInputs small = in;
  auto* high = static_cast<Bf16*>(sparse.data());
  const auto* low = static_cast<const Bf16*>(small.pool.data());
  for (int64_t row = 0; row < 3; ++row) {
    const Bf16* state = low + in.rows.slot(row) * in.slot_stride();
    std::copy(state, state + in.slot_stride(), high + kSlots[row] * kStride);
    in.rows.slot(row) = kSlots[row];
  }
  Tensor y(DType::kBf16, in.x.size());
  Params p = in.Bind<Params>(&in.pool, &y, true);
  p.conv = {sparse.data(), DType::kBf16, kStride};
  conv(p);
  EXPECT_EQ(y, truth.y);
  for (int64_t row = 0; row < 3; ++row) {
    const int64_t begin = small.rows.view().slot(row) * in.slot_stride();
    for (int64_t i = 0; i < in.slot_stride(); ++i) {
      ASSERT_EQ(ToFloat(high[kSlots[row] * kStride + i]), truth.pool[begin + i])
          << "row " << row << " at " << Coordinates(i, {3, in.channels});
    }
  }
}

TEST_P(Conv, SlotsBeyondTwoToTheThirtyOneElements) {
  CheckHighSlots(GetParam()->conv_fn, {65, 1, 2});
  CheckHighSlots(GetParam()->conv_update, {1, 1, 1});
}

}  // namespace
}  // namespace gdn::test
