// The head dimension of the models, 128 with W = 4, where backends have kernels of their own.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <span>
#include <vector>

#include "tests/testing/backend_case.h"

namespace gdn::test {
namespace {

class Backend128 : public BackendTest {};
GDN_ON_EVERY_BACKEND(Backend128);

BackendShape Shape128(int key_heads, int value_heads, DType io, DType state) {
  BackendShape shape = SmallShape();
  shape.geometry.hidden_size = 128;
  shape.geometry.key_heads = key_heads;
  shape.geometry.value_heads = value_heads;
  shape.geometry.key_dim = shape.geometry.value_dim = 128;
  shape.io = io;
  shape.state = state;
  shape.layers = 1;
  shape.slots = 48;
  shape.max_rows = 48;
  shape.max_decode_tokens = 4;
  return shape;
}

// Rows on slots first, first + 1, … of one length each, every fifth one padding.
std::vector<StepRow> RowsOf(const Twin& twin, int32_t first, int count, int64_t length) {
  std::vector<StepRow> rows;
  for (int32_t i = 0; i < count; ++i) {
    rows.push_back(twin.Next(0, first + i, length));
    if (i % 5 == 4) rows.back().slot = kPadSlotId;
  }
  return rows;
}

// A prefill, then decodes by few rows and by many, then a draft of several tokens.
void CheckPath(Twin& twin, InputLayout layout) {
  SCOPED_TRACE(::testing::Message() << "layout " << int(layout));
  Rng rng(5);
  const auto run = [&](std::vector<StepRow> rows) {
    Step step(rng, twin.shape(), 0, layout, std::move(rows));
    ASSERT_NO_FATAL_FAILURE(twin.Run(step));
  };
  ASSERT_NO_FATAL_FAILURE(run({twin.Next(0, 0, 100), twin.Next(0, 1, 1), twin.Next(0, 2, 65)}));
  for (int rows : {1, 2, 3, 7, 16, 33}) {
    SCOPED_TRACE(::testing::Message() << rows << " rows");
    ASSERT_NO_FATAL_FAILURE(run(RowsOf(twin, 0, rows, 1)));
  }
  ASSERT_NO_FATAL_FAILURE(run(RowsOf(twin, 30, 9, 4)));
  ASSERT_NO_FATAL_FAILURE(run({twin.Next(0, 0, 3), twin.Next(0, 40, 0), twin.Next(0, 1, 1)}));
}

TEST_P(Backend128, EveryRatioOfHeads) {
  for (const auto& [h, hv] : {std::pair{2, 2}, {2, 4}, {1, 3}, {2, 6}, {1, 4}, {1, 8}}) {
    SCOPED_TRACE(::testing::Message() << h << "/" << hv);
    Twin twin(*GetParam(), Shape128(h, hv, DType::kBf16, DType::kFp32));
    for (InputLayout layout : kLayouts) CheckPath(twin, layout);
  }
}

TEST_P(Backend128, EveryType) {
  for (DType io : {DType::kFp32, DType::kBf16, DType::kFp16}) {
    for (DType state : {DType::kFp32, DType::kBf16}) {
      SCOPED_TRACE(::testing::Message() << "io " << int(io) << ", state " << int(state));
      Twin twin(*GetParam(), Shape128(1, 2, io, state));
      CheckPath(twin, InputLayout::kHidden);
      CheckPath(twin, InputLayout::kQkvZBetaG);
    }
  }
}

// Of few rows and of many: row 0 has NaN in its input, row 1 overflows in the projection, and of
// the padding in row 2 nothing matters. Rows 0 and 3 then go on from where they were.
TEST_P(Backend128, FaultsNameTheirRows) {
  constexpr float kLargest = 3.3e38f;
  Twin twin(*GetParam(), Shape128(1, 2, DType::kBf16, DType::kFp32));
  Rng rng(6);
  for (int count : {4, 8, 12, 20, 33}) {
    SCOPED_TRACE(::testing::Message() << count << " rows");
    std::vector<StepRow> rows;
    for (int32_t i = 0; i < count; ++i) rows.push_back(twin.Next(0, i, 1));
    rows[2].slot = kPadSlotId;
    Step step(rng, twin.shape(), 0, InputLayout::kHidden, rows);
    const int64_t width = step.kinds()[0].width;
    step.tensor(0).set(width - 1, std::nanf(""));
    for (int64_t e = 0; e < width; ++e) {
      step.tensor(0).set(width + e, e % 2 == 0 ? kLargest : -kLargest);
      step.tensor(0).set(2 * width + e, std::nanf(""));
    }
    ASSERT_NO_FATAL_FAILURE(twin.Run(step, {RowFault::kNonFiniteInput, RowFault::kOverflow}));
    twin.Forget(0, 1);
    Step after(rng, twin.shape(), 0, InputLayout::kHidden, RowsOf(twin, 0, count, 1));
    ASSERT_NO_FATAL_FAILURE(twin.Run(after));
  }
}

// The answers that decodes of few rows and of many leave are their outputs.
TEST_P(Backend128, AnswersAreKept) {
  const BackendShape shape = Shape128(1, 2, DType::kBf16, DType::kFp32);
  Twin twin(*GetParam(), shape);
  Rng rng(7);
  for (int count : {3, 12, 20, 33}) {
    SCOPED_TRACE(::testing::Message() << count << " rows");
    std::vector<StepRow> rows = RowsOf(twin, 0, count, 1);
    for (StepRow& row : rows) row.keep_answer = row.slot % 2 == 0;
    Step step(rng, shape, 0, InputLayout::kHidden, rows);
    ASSERT_NO_FATAL_FAILURE(twin.Run(step));
    for (size_t row = 0; row < rows.size(); ++row) {
      if (!rows[row].keep_answer) continue;
      const std::span<const std::byte> output = step.output_bytes(row);
      std::vector<std::byte> kept(output.size());
      ASSERT_TRUE(twin.backend().ReadAnswer(0, rows[row].slot, kept).ok());
      EXPECT_TRUE(std::equal(kept.begin(), kept.end(), output.begin())) << "row " << row;
    }
  }
}

}  // namespace
}  // namespace gdn::test
