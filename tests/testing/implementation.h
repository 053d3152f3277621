// The ops as each implementation has them: a test takes one of these as its parameter, so that one
// list of cases runs on all. Pointers in the parameters are host pointers; an implementation on a
// device copies.
#pragma once

#include <gtest/gtest.h>

#include <string>

#include "kernels/chunk_index.h"
#include "kernels/cpu/ops.h"
#include "kernels/cpu/oracle/ops.h"
#include "kernels/ops/fused_conv_gating.h"

namespace gdn::test {

struct Implementation {
  const char* name;
  void (*l2norm)(const L2NormParams&);
  void (*chunk_local_cumsum)(const ChunkLocalCumsumParams&);
  void (*chunk_scaled_dot_kkt)(const ChunkScaledDotKktParams&);
  void (*solve_tril)(const SolveTrilParams&);
  void (*recompute_w_u)(const RecomputeWUParams&);
  void (*chunk_delta_h)(const ChunkDeltaHParams&);
  void (*chunk_o)(const ChunkOParams&);
  void (*chunk)(const ChunkGatedDeltaRuleParams&);
  void (*recurrent)(const FusedRecurrentGatedDeltaRuleParams&);
  void (*conv_fn)(const CausalConv1dFnParams&);
  void (*conv_update)(const CausalConv1dUpdateParams&);
  void (*gating)(const FusedGdnGatingParams&);
  void (*conv_gating)(const FusedConvGatingParams&);
  void (*rmsnorm_gated)(const RmsNormGatedParams&);
  void (*projection)(const ProjectionParams&);
  void (*chunk_indices)(const ChunkIndicesParams&);
  const char* (*unavailable)() = nullptr;  // says why it cannot run on this machine, or null
  int (*processors)() = nullptr;           // of a device, which share a batch
};

// The fused op where there is none: its two ops.
template <void (*kConv)(const CausalConv1dFnParams&), void (*kGating)(const FusedGdnGatingParams&)>
void ConvThenGating(const FusedConvGatingParams& p) {
  kConv(p.conv);
  kGating(p.gating);
}

inline constexpr Implementation kOracle = {
    "oracle",
    oracle::L2Norm,
    oracle::ChunkLocalCumsum,
    oracle::ChunkScaledDotKkt,
    oracle::SolveTril,
    oracle::RecomputeWU,
    oracle::ChunkDeltaH,
    oracle::ChunkO,
    oracle::ChunkGatedDeltaRule,
    oracle::FusedRecurrentGatedDeltaRule,
    oracle::CausalConv1dFn,
    oracle::CausalConv1dUpdate,
    oracle::FusedGdnGating,
    ConvThenGating<oracle::CausalConv1dFn, oracle::FusedGdnGating>,
    oracle::RmsNormGated,
    oracle::Projection,
    ChunkIndices};

inline constexpr Implementation kCpu = {"cpu",
                                        cpu::L2Norm,
                                        cpu::ChunkLocalCumsum,
                                        cpu::ChunkScaledDotKkt,
                                        cpu::SolveTril,
                                        cpu::RecomputeWU,
                                        cpu::ChunkDeltaH,
                                        cpu::ChunkO,
                                        cpu::ChunkGatedDeltaRule,
                                        cpu::FusedRecurrentGatedDeltaRule,
                                        cpu::CausalConv1dFn,
                                        cpu::CausalConv1dUpdate,
                                        cpu::FusedGdnGating,
                                        ConvThenGating<cpu::CausalConv1dFn, cpu::FusedGdnGating>,
                                        cpu::RmsNormGated,
                                        cpu::Projection,
                                        ChunkIndices};

// The implementations under test: those on the host, or the device's in a program of its own, which
// has no need of the host's libraries.
#ifdef GDN_TEST_CUDA
extern const Implementation kCuda;
inline auto Implementations() { return ::testing::Values(&kCuda); }
#else
inline auto Implementations() { return ::testing::Values(&kOracle, &kCpu); }
#endif

inline void PrintTo(const Implementation* i, std::ostream* out) { *out << i->name; }

// Skips where the implementation cannot run.
class OpTest : public ::testing::TestWithParam<const Implementation*> {
 protected:
  void SetUp() override {
    if (GetParam()->unavailable == nullptr) return;
    if (const char* reason = GetParam()->unavailable()) {
      GTEST_SKIP() << GetParam()->name << " cannot run here: " << reason;
    }
  }
};

inline std::string ImplementationName(const ::testing::TestParamInfo<const Implementation*>& info) {
  return info.param->name;
}

}  // namespace gdn::test

// Runs the tests of `Suite`, an OpTest, on every implementation.
#define GDN_ON_EVERY_IMPLEMENTATION(Suite)                             \
  INSTANTIATE_TEST_SUITE_P(Ops, Suite, ::gdn::test::Implementations(), \
                           ::gdn::test::ImplementationName)
