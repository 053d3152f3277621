// The head dimension of the models, 128 with W = 4, where backends have kernels of their own.
#include <gtest/gtest.h>

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

}  // namespace
}  // namespace gdn::test
