// Each step of the chunked form by itself, on the oracle's results of the steps before it.
#include <gtest/gtest.h>

#include "kernels/chunk_index.h"
#include "tests/testing/cases.h"
#include "tests/testing/compare.h"
#include "tests/testing/implementation.h"

namespace gdn::test {
namespace {

// All tensors of the chunked form, made by the oracle. Rows have an initial state; the last row is
// padding where there are several.
class Pipeline {
 public:
  Pipeline(uint64_t seed, const DeltaShape& shape, DType io, DType mid)
      : in(seed, shape, io), index(in.rows.offsets()), mid(mid) {
    in.rows.set_initial_state(true);
    if (in.rows.count() > 1) in.rows.slot(in.rows.count() - 1) = -1;
    const int64_t token_heads = in.rows.tokens() * in.heads.value_heads;
    gamma = Tensor(DType::kFp32, token_heads);
    a = inverse = Tensor(DType::kFp32, token_heads * kChunk);
    w = Tensor(mid, token_heads * in.heads.key_dim);
    u = v_new = Tensor(mid, token_heads * in.heads.value_dim);
    h = Tensor(mid, index.chunks().count * in.state_size());
    pool = in.Pool(5, DType::kFp32);
    o = Tensor(io, token_heads * in.heads.value_dim);
    oracle::L2Norm(Norm());
    oracle::ChunkLocalCumsum(Cumsum());
    oracle::ChunkScaledDotKkt(Kkt());
    oracle::SolveTril(Solve());
    oracle::RecomputeWU(WU());
    initial = pool;
    oracle::ChunkDeltaH(DeltaH());
    oracle::ChunkO(Output());
  }

  // The params of a step over this object's tensors.
  L2NormParams Norm() {
    const DType io = in.k.type();
    const int64_t stride = in.key_stride();
    return {in.rows.tokens(), in.heads.key_heads, in.heads.key_dim, io,        io, in.k.data(),
            stride,           in.k.data(),        stride,           kL2NormEps};
  }
  ChunkLocalCumsumParams Cumsum() {
    return {in.rows.view(), index.chunks(), in.heads.value_heads, 1, in.g.f32(), gamma.f32()};
  }
  ChunkScaledDotKktParams Kkt() {
    return {in.rows.view(),  index.chunks(), in.heads,      in.k.type(), in.k.data(),
            in.key_stride(), gamma.f32(),    in.beta.f32(), a.f32()};
  }
  SolveTrilParams Solve() {
    return {in.rows.view(), index.chunks(), in.heads.value_heads, a.f32(), inverse.f32()};
  }
  RecomputeWUParams WU() {
    return {in.rows.view(), index.chunks(),  in.heads,    in.k.type(),       mid,
            in.k.data(),    in.key_stride(), in.v.data(), in.value_stride(), gamma.f32(),
            in.beta.f32(),  inverse.f32(),   w.data(),    u.data()};
  }
  ChunkDeltaHParams DeltaH() {
    return {in.rows.view(),
            index.chunks(),
            in.heads,
            in.k.type(),
            mid,
            in.k.data(),
            in.key_stride(),
            w.data(),
            u.data(),
            gamma.f32(),
            {pool.data(), DType::kFp32, in.state_size()},
            h.data(),
            v_new.data()};
  }
  ChunkOParams Output() {
    return {in.rows.view(), index.chunks(),  in.heads,    in.q.type(),      o.type(),     mid,
            in.q.data(),    in.key_stride(), in.k.data(), in.key_stride(),  v_new.data(), h.data(),
            gamma.f32(),    0.125f,          o.data(),    in.value_stride()};
  }

  DeltaInputs in;
  ChunkIndex index;
  DType mid;
  Tensor gamma, a, inverse, w, u, v_new, h, pool, initial, o;
};

Shape Squares(const Pipeline& p) { return {p.in.rows.tokens(), p.in.heads.value_heads, kChunk}; }

Tensor Garbage(const Tensor& like) { return {like.type(), like.size(), 77.0f}; }

struct Types {
  DType io, mid;
};

class ChunkSteps : public OpTest {
 protected:
  // Calls `check` with the pipeline of every shape, in fp32 and in bf16.
  template <typename Check>
  void ForEachPipeline(Check check) {
    for (const Types& types : {Types{DType::kFp32, DType::kFp32},
                               {DType::kBf16, DType::kFp32},
                               {DType::kBf16, DType::kBf16}}) {
      for (const DeltaShape& shape : DeltaShapes()) {
        SCOPED_TRACE(::testing::Message()
                     << shape << ", io " << int(types.io) << ", mid " << int(types.mid));
        Pipeline truth(31, shape, types.io, types.mid);
        check(truth);
      }
    }
  }
};
GDN_ON_EVERY_IMPLEMENTATION(ChunkSteps);

TEST_P(ChunkSteps, CumsumPerHead) {
  ForEachPipeline([&](Pipeline& truth) {
    Pipeline run = truth;
    run.gamma = Garbage(truth.gamma);
    GetParam()->chunk_local_cumsum(run.Cumsum());
    EXPECT_TRUE(Close(run.gamma, truth.gamma, {truth.in.rows.tokens(), truth.in.heads.value_heads},
                      {1e-5, 1e-5, 1e-5}));
  });
}

TEST_P(ChunkSteps, CumsumOfVectorsInPlace) {
  Rng rng(1);
  const RowSet rows({65, 0, 129});
  const ChunkIndex index(rows.offsets());
  Tensor g = Tensor::Uniform(rng, DType::kFp32, rows.tokens() * 3 * 64, -1.0f, 0.0f);
  Tensor truth = g;
  oracle::ChunkLocalCumsum({rows.view(), index.chunks(), 3, 64, g.f32(), truth.f32()});
  GetParam()->chunk_local_cumsum({rows.view(), index.chunks(), 3, 64, g.f32(), g.f32()});
  EXPECT_TRUE(Close(g, truth, {rows.tokens(), 3, 64}, {1e-5, 1e-5, 1e-5}));
}

TEST_P(ChunkSteps, ScaledDotKkt) {
  ForEachPipeline([&](Pipeline& truth) {
    Pipeline run = truth;
    run.a = Garbage(truth.a);
    GetParam()->chunk_scaled_dot_kkt(run.Kkt());
    EXPECT_TRUE(Close(run.a, truth.a, Squares(truth), {1e-4, 1e-5, 1e-5}));
  });
}

TEST_P(ChunkSteps, SolveTril) {
  ForEachPipeline([&](Pipeline& truth) {
    Pipeline run = truth;
    run.inverse = Garbage(truth.inverse);
    GetParam()->solve_tril(run.Solve());
    EXPECT_TRUE(Close(run.inverse, truth.inverse, Squares(truth), {1e-4, 1e-5, 1e-5}));
  });
}

TEST_P(ChunkSteps, SolveTrilInPlace) {
  Pipeline truth(32, {{64, 33}, {1, 2, 64, 64}}, DType::kFp32, DType::kFp32);
  Tensor a = truth.a;
  SolveTrilParams p = truth.Solve();
  p.a = p.inverse = a.f32();
  GetParam()->solve_tril(p);
  EXPECT_TRUE(Close(a, truth.inverse, Squares(truth), {1e-4, 1e-5, 1e-5}));
}

TEST_P(ChunkSteps, RecomputeWU) {
  ForEachPipeline([&](Pipeline& truth) {
    Pipeline run = truth;
    run.w = Garbage(truth.w);
    run.u = Garbage(truth.u);
    GetParam()->recompute_w_u(run.WU());
    const Heads& heads = truth.in.heads;
    EXPECT_TRUE(Close(run.w, truth.w, {truth.in.rows.tokens(), heads.value_heads, heads.key_dim},
                      RoundingOf(truth.mid)));
    EXPECT_TRUE(Close(run.u, truth.u, truth.in.output_shape(), RoundingOf(truth.mid)));
  });
}

TEST_P(ChunkSteps, DeltaH) {
  ForEachPipeline([&](Pipeline& truth) {
    Pipeline run = truth;
    run.pool = truth.initial;
    // Rows that are padding must stay as they are here.
    run.h = Tensor(truth.mid, truth.h.size());
    run.v_new = Tensor(truth.mid, truth.v_new.size());
    GetParam()->chunk_delta_h(run.DeltaH());
    const Heads& heads = truth.in.heads;
    EXPECT_TRUE(
        Close(run.h, truth.h,
              {truth.index.chunks().count, heads.value_heads, heads.value_dim, heads.key_dim},
              RoundingOf(truth.mid)));
    EXPECT_TRUE(Close(run.v_new, truth.v_new, truth.in.output_shape(), RoundingOf(truth.mid)));
    EXPECT_TRUE(Close(run.pool, truth.pool, truth.in.pool_shape(), RoundingOf(truth.mid)));
  });
}

TEST_P(ChunkSteps, Output) {
  ForEachPipeline([&](Pipeline& truth) {
    Pipeline run = truth;
    run.o = Garbage(truth.o);
    GetParam()->chunk_o(run.Output());
    EXPECT_TRUE(Close(run.o, truth.o, truth.in.output_shape(), RoundingOf(truth.in.q.type())));
    if (truth.in.rows.count() > 1) {
      const int64_t begin = truth.in.rows.begin(truth.in.rows.count() - 1);
      EXPECT_TRUE(AllZero(run.o.floats(begin * truth.in.value_stride())));
    }
  });
}

}  // namespace
}  // namespace gdn::test
