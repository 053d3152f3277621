// What must not matter: how a prefill is cut, who shares the batch, which run it is.
#include <gtest/gtest.h>

#include "tests/testing/backend_case.h"

namespace gdn::test {
namespace {

class BackendInvariance : public BackendTest {};
GDN_ON_EVERY_BACKEND(BackendInvariance);

// The tokens [first, first + length) of the one row of `whole`, as a step of its own.
Step Slice(Rng& rng, const BackendShape& shape, Step& whole, int64_t first, int64_t length) {
  Step step(rng, shape, whole.layer(), whole.layout(),
            {{.slot = 1, .length = length, .has_initial_state = first > 0}});
  for (size_t i = 0; i < step.kinds().size(); ++i) {
    const int64_t width = step.kinds()[i].width;
    for (int64_t e = 0; e < length * width; ++e) {
      step.tensor(i).set(e, whole.tensor(i)[first * width + e]);
    }
  }
  return step;
}

// Any chunking of a prefill, down to decodes, gives its outputs and a state that goes on alike.
TEST_P(BackendInvariance, ChunkingOfAPrefill) {
  constexpr int64_t kTokens = 150;
  for (DType io : {DType::kFp32, DType::kBf16}) {
    for (InputLayout layout : kLayouts) {
      BackendShape shape = SmallShape();
      shape.io = io;
      Rng rng(11);
      Step whole(rng, shape, 0, layout, {{.slot = 1, .length = kTokens}});
      std::unique_ptr<Backend> backend = MakeLoaded(*GetParam(), shape);
      ASSERT_TRUE(whole.Run(*backend).ok());
      const std::vector<float> truth = whole.output(0);
      const std::vector<std::vector<int64_t>> cuts = {
          {64, 64, 22}, {1, 149},          {149, 1},
          {63, 2, 85},  {70, 1, 1, 1, 77}, std::vector<int64_t>(kTokens, 1)};
      for (const std::vector<int64_t>& lengths : cuts) {
        SCOPED_TRACE(::testing::Message() << "io " << int(io) << ", layout " << int(layout)
                                          << ", pieces " << lengths.size());
        std::vector<float> out;
        for (int64_t length : lengths) {
          const auto first = static_cast<int64_t>(out.size()) / OutputWidth(shape.geometry, layout);
          Step step = Slice(rng, shape, whole, first, length);
          ASSERT_TRUE(step.Run(*backend).ok());
          const std::vector<float> piece = step.output(0);
          out.insert(out.end(), piece.begin(), piece.end());
        }
        EXPECT_TRUE(
            Close(out, truth, {kTokens, OutputWidth(shape.geometry, layout)}, LayerTolerance(io)));
      }
    }
  }
}

bool SameBytes(std::span<const std::byte> a, std::span<const std::byte> b) {
  return std::equal(a.begin(), a.end(), b.begin(), b.end());
}

// Row `row` of `whole` as a batch of its own.
Step Alone(Rng& rng, const BackendShape& shape, Step& whole, int64_t row) {
  Step step(rng, shape, whole.layer(), whole.layout(), {whole.rows()[row]});
  for (size_t i = 0; i < step.kinds().size(); ++i) {
    const int64_t width = step.kinds()[i].width;
    const int64_t begin = whole.begin(row) * width;
    for (int64_t e = 0; e < step.tensor(i).size(); ++e) {
      step.tensor(i).set(e, whole.tensor(i)[begin + e]);
    }
  }
  return step;
}

// Decode of the core: a row's bits, and those of its state, do not depend on the rows beside it.
TEST_P(BackendInvariance, DecodeBitsDoNotDependOnNeighbours) {
  for (DType io : {DType::kFp32, DType::kBf16, DType::kFp16}) {
    BackendShape shape = SmallShape();
    shape.io = io;
    std::unique_ptr<Backend> crowd = MakeLoaded(*GetParam(), shape);
    std::unique_ptr<Backend> alone = MakeLoaded(*GetParam(), shape);
    Rng rng(12);
    for (InputLayout layout : kLayouts) {
      if (layout == InputLayout::kHidden) continue;
      for (int step = 0; step < 3; ++step) {
        SCOPED_TRACE(::testing::Message()
                     << "io " << int(io) << ", layout " << int(layout) << ", step " << step);
        std::vector<StepRow> rows;
        for (int32_t slot = 0; slot < shape.slots; ++slot) {
          rows.push_back({.slot = slot, .length = 1, .has_initial_state = step > 0});
        }
        Step together(rng, shape, 0, layout, rows);
        ASSERT_TRUE(together.Run(*crowd).ok());
        for (int64_t row = 0; row < shape.slots; ++row) {
          Step one = Alone(rng, shape, together, row);
          ASSERT_TRUE(one.Run(*alone).ok());
          ASSERT_TRUE(SameBytes(one.output_bytes(0), together.output_bytes(row))) << "row " << row;
        }
      }
    }
  }
}

TEST_P(BackendInvariance, TheSameStepsGiveTheSameBits) {
  for (InputLayout layout : kLayouts) {
    std::vector<std::vector<std::byte>> outputs;
    for (int run = 0; run < 2; ++run) {
      const BackendShape shape = SmallShape();
      std::unique_ptr<Backend> backend = MakeLoaded(*GetParam(), shape);
      Rng rng(13);
      std::vector<std::byte> bytes;
      for (int64_t length : {100, 1, 3}) {
        Step step(rng, shape, 0, layout,
                  {{.slot = 1, .length = length, .has_initial_state = length < 100},
                   {.slot = 4, .length = 1, .has_initial_state = length < 100}});
        ASSERT_TRUE(step.Run(*backend).ok());
        for (int row : {0, 1}) {
          bytes.insert(bytes.end(), step.output_bytes(row).begin(), step.output_bytes(row).end());
        }
      }
      outputs.push_back(bytes);
    }
    EXPECT_EQ(outputs[0], outputs[1]) << "layout " << int(layout);
  }
}

// Requests merged into one batch, their bytes in any pieces, are what they are unmerged.
TEST_P(BackendInvariance, PartsAndPiecesDoNotMatter) {
  for (InputLayout layout : kLayouts) {
    SCOPED_TRACE(::testing::Message() << "layout " << int(layout));
    BackendShape shape = SmallShape();
    shape.io = DType::kBf16;  // rows of an odd number of 16-byte blocks
    const std::vector<StepRow> rows = {
        {.slot = 0, .length = 3}, {.slot = 1}, {.slot = 2, .length = 0}, {.slot = 3, .length = 70}};
    std::unique_ptr<Backend> backend = MakeLoaded(*GetParam(), shape);
    Rng rng(14);
    Step step(rng, shape, 0, layout, rows);
    ASSERT_TRUE(step.Run(*backend).ok());
    std::vector<std::vector<float>> truth;
    for (size_t row = 0; row < rows.size(); ++row) truth.push_back(step.output(row));
    for (const std::vector<size_t>& ends :
         std::vector<std::vector<size_t>>{{4}, {1, 4}, {1, 2, 3, 4}, {0, 2, 2, 4}}) {
      for (int pieces : {1, 2, 7, 500}) {
        step.SetParts(ends);
        step.CutPieces(rng, pieces);
        ASSERT_TRUE(step.Run(*backend).ok());
        for (size_t row = 0; row < rows.size(); ++row) {
          EXPECT_EQ(step.output(row), truth[row])
              << ends.size() << " parts, " << pieces << " pieces, row " << row;
        }
      }
    }
  }
}

}  // namespace
}  // namespace gdn::test
