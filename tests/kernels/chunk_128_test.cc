// The chunked delta rule in the shape that real layers have, K = V = 128 and 16-bit q, k and v, for
// which there are kernels of their own.
#include <gtest/gtest.h>

#include <algorithm>
#include <functional>
#include <limits>
#include <utility>
#include <vector>

#include "tests/testing/cases.h"
#include "tests/testing/compare.h"
#include "tests/testing/implementation.h"

namespace gdn::test {
namespace {

struct Types {
  DType io;
  DType o;
  DType state;
};

struct Batch {
  std::vector<int64_t> lengths;
  std::vector<int64_t> pads;  // rows that are PAD
  int64_t fresh;              // the row without a state before
};

// Rows about the edges of chunks, one without tokens.
const Batch kEdges = {{1, 64, 130, 0, 63, 65, 200}, {1, 5}, 4};

class Chunk128 : public OpTest {
 protected:
  // Against the recurrent oracle.
  static void Check(const Implementation& impl, const Types& types, int key_heads, int group,
                    bool qk_l2norm, const Batch& batch = kEdges) {
    SCOPED_TRACE(::testing::Message() << "H " << key_heads << ", R " << group);
    DeltaInputs in(40 + group, {batch.lengths, {key_heads, key_heads * group, 128, 128}}, types.io);
    in.rows.set_initial_state(true);
    in.rows.set_initial_state(batch.fresh, false);
    for (const int64_t row : batch.pads) in.rows.slot(row) = -1 - row;
    const auto rows = static_cast<int64_t>(batch.lengths.size() - batch.pads.size());
    Tensor pool = in.Pool(rows, types.state);
    const int64_t slot = in.rows.view().slot(batch.fresh) * in.state_size();
    for (int64_t i = 0; i < in.state_size(); ++i) {
      pool.set(slot + i, std::numeric_limits<float>::quiet_NaN());
    }
    Tensor truth_pool(DType::kFp32, pool.size());
    for (int64_t i = 0; i < pool.size(); ++i) truth_pool.set(i, pool[i]);
    Tensor truth(DType::kFp32, in.rows.tokens() * in.value_stride());
    oracle::FusedRecurrentGatedDeltaRule(
        in.Bind<FusedRecurrentGatedDeltaRuleParams>(&truth_pool, &truth, qk_l2norm));

    Tensor o(types.o, truth.size(), 99.0f);
    impl.chunk(in.Bind<ChunkGatedDeltaRuleParams>(&pool, &o, qk_l2norm));
    const Tolerance t = Within(types.io == DType::kFp16 ? 5e-3 : 2e-2);
    EXPECT_TRUE(Close(o, truth, in.output_shape(), t));
    EXPECT_TRUE(
        Close(pool, truth_pool, in.pool_shape(), types.state == DType::kBf16 ? Within(2e-2) : t));
    for (const int64_t row : batch.pads) {
      const auto width = in.value_stride();
      for (const float x : o.floats(in.rows.begin(row) * width, in.rows.length(row) * width)) {
        ASSERT_EQ(x, 0.0f) << "PAD row " << row;
      }
    }
  }
};
GDN_ON_EVERY_IMPLEMENTATION(Chunk128);

constexpr Types kBf16 = {DType::kBf16, DType::kBf16, DType::kFp32};

TEST_P(Chunk128, EveryRatioOfHeads) {
  for (const int group : {1, 2, 3, 4, 5, 8}) Check(*GetParam(), kBf16, 1, group, true);
  Check(*GetParam(), kBf16, 3, 2, true);
}

TEST_P(Chunk128, EveryType) {
  for (const DType io : {DType::kBf16, DType::kFp16}) {
    for (const DType o : {io, DType::kFp32}) {
      for (const DType state : {DType::kFp32, DType::kBf16}) {
        Check(*GetParam(), {io, o, state}, 1, 2, true);
      }
    }
  }
}

TEST_P(Chunk128, KeysAsTheyCome) {
  Check(*GetParam(), kBf16, 1, 3, false);
  Check(*GetParam(), {DType::kFp16, DType::kFp16, DType::kFp32}, 1, 2, false);
}

// Their products among themselves may leave fp16's range where nothing of the result does.
TEST_P(Chunk128, LongKeysAsTheyCome) {
  DeltaInputs in(61, {{130, 70}, {1, 3, 128, 128}}, DType::kBf16);
  for (int64_t i = 0; i < in.k.size(); ++i) in.k.set(i, in.k[i] * 256.0f);
  for (int64_t i = 0; i < in.beta.size(); ++i) in.beta.set(i, i / 3 % 64 == 40 ? 1.0f : 0.0f);
  Tensor truth(DType::kFp32, in.rows.tokens() * in.value_stride());
  Tensor o(DType::kBf16, truth.size());
  oracle::FusedRecurrentGatedDeltaRule(
      in.Bind<FusedRecurrentGatedDeltaRuleParams>(nullptr, &truth, false));
  GetParam()->chunk(in.Bind<ChunkGatedDeltaRuleParams>(nullptr, &o, false));
  EXPECT_TRUE(Close(o, truth, in.output_shape(), Within(2e-2)));
}

// Rows of bf16 that go on from a state of fp32, against the recurrent oracle.
void CheckWithState(const Implementation& impl, DeltaInputs& in, uint64_t seed,
                    DType output = DType::kBf16) {
  Tensor truth_pool = in.Pool(seed, DType::kFp32);
  Tensor pool = truth_pool;
  Tensor truth(DType::kFp32, in.rows.tokens() * in.value_stride());
  Tensor o(output, truth.size());
  in.rows.set_initial_state(true);
  oracle::FusedRecurrentGatedDeltaRule(
      in.Bind<FusedRecurrentGatedDeltaRuleParams>(&truth_pool, &truth, true));
  impl.chunk(in.Bind<ChunkGatedDeltaRuleParams>(&pool, &o, true));
  EXPECT_TRUE(Close(o, truth, in.output_shape(), Within(2e-2)));
  EXPECT_TRUE(Close(pool, truth_pool, in.pool_shape(), Within(2e-2)));
}

// Long enough that some of it, with few heads all of it, is prepared beside the chain of states;
// with an output of fp32 nothing is fused, however few SMs there are.
TEST_P(Chunk128, OneLongRow) {
  for (const auto& [key_heads, value_heads] : {std::pair{4, 32}, {1, 2}, {1, 3}}) {
    DeltaInputs in(49, {{2050}, {key_heads, value_heads, 128, 128}}, DType::kBf16);
    CheckWithState(*GetParam(), in, 2);
    CheckWithState(*GetParam(), in, 2, DType::kFp32);
  }
}

// So long that a chain for each head takes them one after another, beside what is prepared of them;
// a PAD row among them is longer than the ring.
TEST_P(Chunk128, RowsThatFollowOneAnother) {
  Check(*GetParam(), kBf16, 1, 4, true, {{1100, 70, 900, 0, 1, 1100, 1500}, {1, 5}, 4});
  Check(*GetParam(), kBf16, 16, 2, true, {{1500, 70, 1400}, {1}, 2});
}

// Heads of rows enough for all SMs, so that a block takes several: of lengths about the edges of
// chunks and far from one another, some without tokens or a state before, some PAD.
void CheckManyRows(const Implementation& impl, const Types& types, int key_heads, int group,
                   const std::vector<int64_t>& lengths, bool qk_l2norm) {
  SCOPED_TRACE(::testing::Message() << "H " << key_heads << ", R " << group);
  DeltaInputs in(60 + group, {lengths, {key_heads, key_heads * group, 128, 128}}, types.io);
  in.rows.set_initial_state(true);
  for (int64_t row = 0; row < in.rows.count(); ++row) {
    if (row % 5 == 1) in.rows.set_initial_state(row, false);
    if (row % 7 == 3) in.rows.slot(row) = -1;
  }
  Tensor pool = in.Pool(3, types.state);
  Tensor truth_pool(DType::kFp32, pool.size());
  for (int64_t i = 0; i < pool.size(); ++i) truth_pool.set(i, pool[i]);
  Tensor truth(DType::kFp32, in.rows.tokens() * in.value_stride());
  oracle::FusedRecurrentGatedDeltaRule(
      in.Bind<FusedRecurrentGatedDeltaRuleParams>(&truth_pool, &truth, qk_l2norm));
  Tensor o(types.o, truth.size(), 99.0f);
  impl.chunk(in.Bind<ChunkGatedDeltaRuleParams>(&pool, &o, qk_l2norm));
  const Tolerance t = Within(types.io == DType::kFp16 ? 5e-3 : 2e-2);
  EXPECT_TRUE(Close(o, truth, in.output_shape(), t));
  EXPECT_TRUE(
      Close(pool, truth_pool, in.pool_shape(), types.state == DType::kBf16 ? Within(2e-2) : t));
}

// Rows enough, in turn, of these lengths.
std::vector<int64_t> ManyRows(int64_t count, const std::vector<int64_t>& lengths) {
  std::vector<int64_t> rows;
  for (int64_t i = 0; i < count; ++i) rows.push_back(lengths[i % lengths.size()]);
  return rows;
}

TEST_P(Chunk128, ManyRowsOfOneChunk) {
  CheckManyRows(*GetParam(), kBf16, 2, 2, ManyRows(150, {64, 1, 63}), true);
}

TEST_P(Chunk128, ManyRaggedRows) {
  CheckManyRows(*GetParam(), kBf16, 2, 2, ManyRows(100, {1, 64, 130, 0, 63, 65, 200}), true);
  CheckManyRows(*GetParam(), kBf16, 1, 3, ManyRows(130, {70, 0, 0, 129, 1}), true);
  CheckManyRows(*GetParam(), kBf16, 1, 5, ManyRows(70, {70, 0, 129}), false);
}

// So that what a half leaves to the next shows in all of it.
void DecayLess(DeltaInputs& in) {
  for (int64_t i = 0; i < in.g.size(); ++i) in.g.set(i, in.g[i] * 0.01f);
}

// Somewhat more heads than SMs, so that they get on by halves in turn, with a PAD row and one
// without a state before: as where nothing is fused, which is so with an output of fp32.
TEST_P(Chunk128, SomewhatMoreHeadsThanSms) {
  constexpr int kRows = 4;
  const int processors = GetParam()->processors == nullptr ? 0 : GetParam()->processors();
  const int key_heads = std::max(processors * 3 / 2 / kRows / 3, 1);
  DeltaInputs in(47, {{1408, 1400, 1380, 1345}, {key_heads, 3 * key_heads, 128, 128}},
                 DType::kBf16);
  DecayLess(in);
  in.rows.set_initial_state(true);
  in.rows.set_initial_state(2, false);
  in.rows.slot(1) = -1;
  Tensor pool = in.Pool(3, DType::kFp32);
  Tensor truth_pool = pool;
  Tensor truth(DType::kFp32, in.rows.tokens() * in.value_stride());
  Tensor o(DType::kBf16, truth.size(), 99.0f);
  GetParam()->chunk(in.Bind<ChunkGatedDeltaRuleParams>(&truth_pool, &truth, true));
  GetParam()->chunk(in.Bind<ChunkGatedDeltaRuleParams>(&pool, &o, true));
  EXPECT_TRUE(Close(o, truth, in.output_shape(), Within(2e-2)));
  EXPECT_TRUE(Close(pool, truth_pool, in.pool_shape(), Within(2e-2)));
}

// The same with rows of one chunk and of none, on a device of 16 SMs.
TEST_P(Chunk128, SomewhatMoreHeadsThanSixteenSms) {
  std::vector<int64_t> lengths(10, 2500);
  lengths.insert(lengths.begin() + 3, 0);
  lengths.push_back(40);
  DeltaInputs in(48, {lengths, {1, 2, 128, 128}}, DType::kBf16);
  DecayLess(in);
  CheckWithState(*GetParam(), in, 4);
}

TEST_P(Chunk128, ManyRowsOfEveryType) {
  for (const DType io : {DType::kBf16, DType::kFp16}) {
    for (const DType o : {io, DType::kFp32}) {
      for (const DType state : {DType::kFp32, DType::kBf16}) {
        CheckManyRows(*GetParam(), {io, o, state}, 2, 2, ManyRows(90, {65, 10, 0}), true);
      }
    }
  }
}

// For one row and, so that heads are enough for all SMs, for many.
void ForFewAndManyRows(const std::function<void(DeltaInputs&)>& f) {
  for (const auto& lengths : {std::vector<int64_t>{129}, ManyRows(70, {70, 129})}) {
    SCOPED_TRACE(::testing::Message() << lengths.size() << " rows");
    DeltaInputs in(50, {lengths, {1, 2, 128, 128}}, DType::kBf16);
    f(in);
  }
}

// q, k and v are columns of rows that are wider than they by as little as may be.
TEST_P(Chunk128, ColumnsOfWiderRows) {
  ForFewAndManyRows([](DeltaInputs& in) {
    const int64_t width = 2 * in.key_stride() + in.value_stride() + 8;
    Tensor truth(DType::kBf16, in.rows.tokens() * in.value_stride());
    Tensor o = truth;
    GetParam()->chunk(in.Bind<ChunkGatedDeltaRuleParams>(nullptr, &truth, true));
    const Tensor packed = in.Packed(width);
    auto p = in.Bind<ChunkGatedDeltaRuleParams>(nullptr, &o, true);
    p.q = packed.data();
    p.k = static_cast<const Bf16*>(packed.data()) + in.key_stride();
    p.v = static_cast<const Bf16*>(packed.data()) + 2 * in.key_stride();
    p.q_stride = p.k_stride = p.v_stride = width;
    GetParam()->chunk(p);
    EXPECT_EQ(o, truth);
  });
}

// Normalised keys have their length from eps and from fp32's range alone.
TEST_P(Chunk128, KeysAndQueriesOfAnyLength) {
  ForFewAndManyRows([](DeltaInputs& in) {
    for (int64_t t = 0; t < in.rows.tokens(); ++t) {
      constexpr float kLengths[] = {0.0f, 1e-6f, 1e-3f, 1.0f, 1e4f, 1e15f};
      for (int64_t i = 0; i < in.key_stride(); ++i) {
        in.k.set(t * in.key_stride() + i, in.k[t * in.key_stride() + i] * kLengths[t % 6]);
        in.q.set(t * in.key_stride() + i, in.q[t * in.key_stride() + i] * kLengths[(t + 1) % 6]);
      }
    }
    CheckWithState(*GetParam(), in, 5);
  });
}

// Keys that are the same in every token make the inverse as large as normalised ones can.
TEST_P(Chunk128, RepeatedKeysWithoutDecay) {
  ForFewAndManyRows([](DeltaInputs& in) {
    for (int64_t t = 1; t < in.rows.tokens(); ++t) {
      for (int64_t i = 0; i < in.key_stride(); ++i) in.k.set(t * in.key_stride() + i, in.k[i]);
    }
    in.g = Tensor(DType::kFp32, in.g.size(), 0.0f);
    CheckWithState(*GetParam(), in, 5);
  });
}

// Nothing decays, all is written whole and is the same: what the state holds already must come out
// of each token's own value as exactly as it was written.
TEST_P(Chunk128, RepeatedTokens) {
  ForFewAndManyRows([](DeltaInputs& in) {
    for (int64_t t = 1; t < in.rows.tokens(); ++t) {
      for (int64_t i = 0; i < in.key_stride(); ++i) in.k.set(t * in.key_stride() + i, in.k[i]);
      for (int64_t i = 0; i < in.value_stride(); ++i) in.v.set(t * in.value_stride() + i, in.v[i]);
    }
    in.g = Tensor(DType::kFp32, in.g.size(), 0.0f);
    in.beta = Tensor(DType::kFp32, in.beta.size(), 1.0f);
    CheckWithState(*GetParam(), in, 5);
  });
}

// Reflections of a few directions, the most that beta may be: the inverse has elements of up to 2
// of either sign.
TEST_P(Chunk128, FewKeysWithTheLargestBeta) {
  ForFewAndManyRows([](DeltaInputs& in) {
    for (int64_t t = 3; t < in.rows.tokens(); ++t) {
      for (int64_t i = 0; i < in.key_stride(); ++i) {
        in.k.set(t * in.key_stride() + i, in.k[t % 3 * in.key_stride() + i]);
      }
    }
    for (int64_t i = 0; i < in.beta.size(); ++i) in.beta.set(i, i % 5 == 0 ? 0.5f : 2.0f);
    CheckWithState(*GetParam(), in, 5);
  });
}

}  // namespace
}  // namespace gdn::test
