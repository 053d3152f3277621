// Rows whose slot is negative: no state read or written, output exactly zero, whatever their input,
// in every op that looks at slots.
#include <gtest/gtest.h>

#include <limits>

#include "kernels/chunk_index.h"
#include "tests/testing/cases.h"
#include "tests/testing/compare.h"
#include "tests/testing/implementation.h"

namespace gdn::test {
namespace {

constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

// The last one would, were it taken for an index and multiplied, wrap around.
constexpr int32_t kPadSlots[] = {-1, -2, std::numeric_limits<int32_t>::min()};

// Overwrites the elements of a row in a [T, width] tensor.
void Poison(Tensor& t, const RowSet& rows, int64_t row, int64_t width) {
  for (int64_t i = rows.begin(row) * width; i < rows.begin(row + 1) * width; ++i) t.set(i, kNan);
}

// The elements of a row in a [T, width] tensor.
std::vector<float> RowOf(const Tensor& t, const RowSet& rows, int64_t row, int64_t width) {
  return t.floats(rows.begin(row) * width, rows.length(row) * width);
}

// A pool with a slot before its first and one behind its last, in which nothing may be written.
struct GuardedPool {
  GuardedPool(const Tensor& pool, int64_t slot_size)
      : all(pool.type(), pool.size() + 2 * slot_size, 42.0f), slot_size(slot_size) {
    for (int64_t i = 0; i < pool.size(); ++i) all.set(slot_size + i, pool[i]);
  }

  StatePool view() {
    auto* begin = static_cast<std::byte*>(all.data()) + slot_size * SizeOf(all.type());
    return {begin, all.type(), slot_size};
  }

  std::vector<float> slot(int64_t index) const {
    return all.floats((index + 1) * slot_size, slot_size);
  }

  Tensor all;
  int64_t slot_size;
};

// Every slot but those of `rows` with a slot is as it was.
void ExpectOthersUntouched(const GuardedPool& before, const GuardedPool& after,
                           const RowSet& rows) {
  for (int64_t slot = -1; slot <= rows.slots(); ++slot) {
    bool owned = false;
    for (int64_t row = 0; row < rows.count(); ++row)
      owned |= slot >= 0 && rows.view().slot(row) == slot;
    if (owned) {
      EXPECT_NE(after.slot(slot), before.slot(slot)) << "slot " << slot;
      EXPECT_TRUE(AllFinite(after.slot(slot))) << "slot " << slot;
    } else {
      EXPECT_EQ(after.slot(slot), before.slot(slot)) << "slot " << slot;
    }
  }
}

class Pad : public OpTest {};
GDN_ON_EVERY_IMPLEMENTATION(Pad);

// Rows 0 and 2 are padding among others; one of the others has slot 0, an ordinary slot.
template <typename Params>
void CheckDeltaRule(void (*rule)(const Params&), const std::vector<int64_t>& lengths) {
  for (int32_t pad : kPadSlots) {
    SCOPED_TRACE(pad);
    DeltaInputs in(21, {lengths, {1, 3, 64, 64}}, DType::kBf16);
    in.rows.set_initial_state(true);
    in.rows.slot(0) = in.rows.slot(2) = pad;
    in.rows.slot(1) = 0;
    for (int64_t row : {0, 2}) {
      Poison(in.q, in.rows, row, in.key_stride());
      Poison(in.k, in.rows, row, in.key_stride());
      Poison(in.v, in.rows, row, in.value_stride());
      Poison(in.g, in.rows, row, in.heads.value_heads);
      Poison(in.beta, in.rows, row, in.heads.value_heads);
    }
    const GuardedPool before(in.Pool(5, DType::kFp32), in.state_size());
    GuardedPool pool = before;
    Tensor o(DType::kBf16, in.rows.tokens() * in.value_stride(), kNan);
    Params p = in.Bind<Params>(nullptr, &o, true);
    p.ssm = pool.view();
    rule(p);
    ExpectOthersUntouched(before, pool, in.rows);
    for (int64_t row = 0; row < in.rows.count(); ++row) {
      const std::vector<float> out = RowOf(o, in.rows, row, in.value_stride());
      EXPECT_TRUE(row == 0 || row == 2 ? AllZero(out) : AllFinite(out)) << "row " << row;
    }
  }
}

TEST_P(Pad, Decode) { CheckDeltaRule(GetParam()->recurrent, {1, 1, 1, 1}); }

TEST_P(Pad, RecurrentOverSeveralTokens) { CheckDeltaRule(GetParam()->recurrent, {3, 70, 1, 2}); }

TEST_P(Pad, Prefill) { CheckDeltaRule(GetParam()->chunk, {65, 70, 1, 64}); }

TEST_P(Pad, PrefillOfPaddingAlone) {
  DeltaInputs in(22, {{65}, {1, 2, 64, 64}}, DType::kBf16);
  in.rows.slot(0) = -1;
  const GuardedPool before(in.Pool(5, DType::kFp32), in.state_size());
  GuardedPool pool = before;
  Tensor o(DType::kBf16, in.rows.tokens() * in.value_stride(), kNan);
  auto p = in.Bind<ChunkGatedDeltaRuleParams>(nullptr, &o, true);
  p.ssm = pool.view();
  GetParam()->chunk(p);
  EXPECT_EQ(pool.all, before.all);
  EXPECT_TRUE(AllZero(o.floats()));
}

template <typename Params>
void CheckConv(void (*conv)(const Params&), const std::vector<int64_t>& lengths) {
  for (int32_t pad : kPadSlots) {
    SCOPED_TRACE(pad);
    ConvInputs in(23, {lengths, 320, 4}, DType::kBf16);
    in.rows.set_initial_state(true);
    in.rows.slot(0) = in.rows.slot(2) = pad;
    in.rows.slot(1) = 0;
    for (int64_t row : {0, 2}) Poison(in.x, in.rows, row, in.channels);
    const GuardedPool before(in.pool, in.slot_stride());
    GuardedPool pool = before;
    Tensor y(DType::kBf16, in.x.size(), kNan);
    Params p = in.Bind<Params>(&in.pool, &y, true);
    p.conv = pool.view();
    conv(p);
    ExpectOthersUntouched(before, pool, in.rows);
    for (int64_t row = 0; row < in.rows.count(); ++row) {
      const std::vector<float> out = RowOf(y, in.rows, row, in.channels);
      EXPECT_TRUE(row == 0 || row == 2 ? AllZero(out) : AllFinite(out)) << "row " << row;
    }
  }
}

TEST_P(Pad, ConvPrefill) { CheckConv(GetParam()->conv_fn, {65, 70, 1, 2}); }

TEST_P(Pad, ConvUpdate) { CheckConv(GetParam()->conv_update, {1, 1, 1, 1}); }

}  // namespace
}  // namespace gdn::test
