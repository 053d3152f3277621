// Rows that a backend refuses or that overflow, and what becomes of the rows beside them.
#include <gtest/gtest.h>

#include <limits>

#include "tests/testing/backend_case.h"

namespace gdn::test {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();

class BackendFaults : public BackendTest {};
GDN_ON_EVERY_BACKEND(BackendFaults);

// Four rows, of which row 1 has `value` in its first or last element of tensor `tensor`; then the
// same slots go on, row 1 from where it was.
void CheckRefused(Twin& twin, InputLayout layout, size_t tensor, bool last, int64_t length,
                  float value) {
  Rng rng(5);
  const auto rows = [&](int64_t of_row_1) {
    return std::vector<StepRow>{twin.Next(0, 0, 1), twin.Next(0, 3, of_row_1), twin.Next(0, 1, 2),
                                twin.Next(0, 6, 1)};
  };
  Step bad(rng, twin.shape(), 0, layout, rows(length));
  const int64_t width = bad.kinds()[tensor].width;
  bad.tensor(tensor).set(last ? bad.begin(2) * width - 1 : bad.begin(1) * width, value);
  ASSERT_NO_FATAL_FAILURE(twin.Run(bad, {RowFault::kNone, RowFault::kNonFiniteInput}));
  Step after(rng, twin.shape(), 0, layout, rows(1));
  ASSERT_NO_FATAL_FAILURE(twin.Run(after));
}

TEST_P(BackendFaults, NonFiniteInputLeavesTheStateAsItWas) {
  for (DType io : {DType::kFp32, DType::kBf16, DType::kFp16}) {
    BackendShape shape = SmallShape();
    shape.io = io;
    Twin twin(*GetParam(), shape);
    Rng rng(17);
    Step begin(rng, shape, 0, InputLayout::kHidden, {{.slot = 3, .length = 3}});
    ASSERT_NO_FATAL_FAILURE(twin.Run(begin));
    for (InputLayout layout : kLayouts) {
      const size_t tensors = InputTensors(shape.geometry, layout, io).size();
      for (size_t tensor = 0; tensor < tensors; ++tensor) {
        for (int64_t length : {1, 70}) {
          SCOPED_TRACE(::testing::Message() << "io " << int(io) << ", layout " << int(layout)
                                            << ", tensor " << tensor << ", length " << length);
          CheckRefused(twin, layout, tensor, true, length, std::nanf(""));
          CheckRefused(twin, layout, tensor, false, length, -kInfinity);
          if (HasFatalFailure()) return;
        }
      }
    }
  }
}

// A row without a state yet: nothing begins, and the next step begins from empty.
TEST_P(BackendFaults, NonFiniteInputOfANewRow) {
  Twin twin(*GetParam(), SmallShape());
  Rng rng(6);
  Step bad(rng, twin.shape(), 1, InputLayout::kHidden, {{.slot = 2, .length = 5}});
  bad.tensor(0).set(0, kInfinity);
  twin.Run(bad, {RowFault::kNonFiniteInput});
  Step good(rng, twin.shape(), 1, InputLayout::kHidden, {{.slot = 2, .length = 5}});
  twin.Run(good);
}

TEST_P(BackendFaults, AllRowsRefused) {
  Twin twin(*GetParam(), SmallShape());
  Rng rng(7);
  Step bad(rng, twin.shape(), 0, InputLayout::kQkvZBA, {{.slot = 2}, {.slot = 4}});
  for (int64_t i = 0; i < bad.tensor(1).size(); ++i) bad.tensor(1).set(i, kInfinity);
  twin.Run(bad, {RowFault::kNonFiniteInput, RowFault::kNonFiniteInput});
}

TEST_P(BackendFaults, PaddingIsNeverAtFault) {
  Twin twin(*GetParam(), SmallShape());
  Rng rng(8);
  for (InputLayout layout : kLayouts) {
    for (int64_t length : {1, 66}) {
      SCOPED_TRACE(::testing::Message() << "layout " << int(layout) << ", length " << length);
      Step step(rng, twin.shape(), 0, layout,
                {{.slot = -1, .length = length}, twin.Next(0, 2, length)});
      for (size_t i = 0; i < step.kinds().size(); ++i) {
        for (int64_t e = 0; e < length * step.kinds()[i].width; ++e) {
          step.tensor(i).set(e, e % 2 == 0 ? std::nanf("") : kInfinity);
        }
      }
      ASSERT_NO_FATAL_FAILURE(twin.Run(step));
    }
  }
}

// The largest finite numbers: the convolution or the projection overflows in row 1 alone. Its slot
// is then undefined until a row begins anew there.
TEST_P(BackendFaults, OverflowNamesItsRow) {
  for (DType io : {DType::kFp32, DType::kBf16}) {
    BackendShape shape = SmallShape();
    shape.io = io;
    Twin twin(*GetParam(), shape);
    Rng rng(9);
    for (InputLayout layout : kLayouts) {
      for (int64_t length : {1, 70}) {
        SCOPED_TRACE(::testing::Message()
                     << "io " << int(io) << ", layout " << int(layout) << ", length " << length);
        const std::vector<StepRow> rows = {twin.Next(0, 0, length), twin.Next(0, 3, length),
                                           twin.Next(0, 5, 1)};
        Step bad(rng, shape, 0, layout, rows);
        const int64_t width = bad.kinds()[0].width;
        for (int64_t e = bad.begin(1) * width; e < bad.begin(2) * width; ++e) {
          bad.tensor(0).set(e, e % 2 == 0 ? 3.3e38f : -3.3e38f);
        }
        ASSERT_NO_FATAL_FAILURE(twin.Run(bad, {RowFault::kNone, RowFault::kOverflow}));
        twin.Forget(0, 3);
        Step again(rng, shape, 0, layout, {twin.Next(0, 3, length), twin.Next(0, 0, 1)});
        ASSERT_NO_FATAL_FAILURE(twin.Run(again));
      }
    }
  }
}

// Numbers that fit fp32 but not the io type, in which the convolution's state is kept.
TEST_P(BackendFaults, OverflowOfTheIoType) {
  BackendShape shape = SmallShape();
  shape.io = DType::kFp16;
  Twin twin(*GetParam(), shape);
  Rng rng(10);
  Step step(rng, shape, 0, InputLayout::kHidden, {{.slot = 1}, {.slot = 2}});
  for (int64_t e = 0; e < shape.geometry.hidden_size; ++e) step.tensor(0).set(e, 65504.0f);
  twin.Run(step, {RowFault::kOverflow});
}

// Finite hidden states of which the projections make infinity where a sigmoid follows: beta, g and
// the gate of the norm would be finite numbers again.
TEST_P(BackendFaults, GatesThatOverflowNameTheirRow) {
  BackendShape shape = SmallShape();
  shape.io = DType::kFp16;
  shape.geometry.gate = Gate::kSigmoid;
  const Geometry& g = shape.geometry;
  const int64_t z = g.conv_dim(), b = z + g.value_size(), a = b + g.value_heads;
  for (const int64_t row : {z, b, b + 1, a, a + 1}) {
    RandomLayer layer(3, shape);
    const float sign = (row - b) % 2 == 0 ? -1.0f : 1.0f;
    for (int64_t i = 0; i < g.hidden_size; ++i) {
      layer.in_proj().set(row * g.hidden_size + i, sign * 100.0f);
    }
    const std::unique_ptr<Backend> backend = GetParam()->make(shape);
    ASSERT_TRUE(backend->LoadLayer(0, layer.weights()).ok());
    for (const int64_t length : {1, 2, 70}) {
      SCOPED_TRACE(::testing::Message() << "row " << row << ", length " << length);
      Rng rng(11);
      Step step(rng, shape, 0, InputLayout::kHidden,
                {{.slot = 0, .length = length}, {.slot = 1, .length = length}});
      for (int64_t e = 0; e < g.hidden_size; ++e) step.tensor(0).set(e, 1000.0f);
      ASSERT_TRUE(step.Run(*backend).ok());
      EXPECT_EQ(step.fault(0), RowFault::kOverflow);
      EXPECT_EQ(step.fault(1), RowFault::kNone);
    }
  }
}

double Largest(const std::vector<double>& x) {
  double largest = 0;
  for (double e : x) largest = std::max(largest, std::abs(e));
  return largest;
}

// Where only squares overflow (in the normalisation of q and k, in the gated norm) the answer would
// be finite and wrong: such a row is either right or named.
TEST_P(BackendFaults, LargeInputIsRightOrNamed) {
  const BackendShape shape = SmallShape();
  const oracle::Layer layer(shape.geometry, RandomLayer(0, shape).weights(), shape.io);
  Twin twin(*GetParam(), shape);
  Rng rng(16);
  for (float scale : {1e10f, 1e17f, 1e19f, 1e22f, 1e30f, 1e36f}) {
    for (InputLayout layout : kLayouts) {
      for (int64_t length : {1, 66}) {
        SCOPED_TRACE(::testing::Message()
                     << "scale " << scale << ", layout " << int(layout) << ", length " << length);
        Step step(rng, shape, 0, layout, {{.slot = 1, .length = length}});
        for (int64_t e = 0; e < step.tensor(0).size(); ++e) {
          step.tensor(0).set(e, scale * step.tensor(0)[e]);
        }
        const absl::Status status = step.Run(twin.backend());
        ASSERT_TRUE(status.ok()) << status;
        if (step.fault(0) == RowFault::kOverflow) continue;
        oracle::LayerState state = layer.EmptyState();
        const std::vector<double> truth = layer.Run(layout, step.RowInput(0), state);
        EXPECT_TRUE(Close(step.output(0), truth, {length, OutputWidth(shape.geometry, layout)},
                          {1e-2, 1e-2 * Largest(truth), 1e-3}));
      }
    }
  }
}

}  // namespace
}  // namespace gdn::test
