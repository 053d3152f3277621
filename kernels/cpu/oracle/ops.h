// Every op as its equation says, in plain loops that accumulate in double: the truth that the other
// implementations are compared with. Single-threaded and slow.
#pragma once

#include "kernels/ops/causal_conv1d.h"
#include "kernels/ops/chunk_delta_h.h"
#include "kernels/ops/chunk_gated_delta_rule.h"
#include "kernels/ops/chunk_local_cumsum.h"
#include "kernels/ops/chunk_o.h"
#include "kernels/ops/chunk_scaled_dot_kkt.h"
#include "kernels/ops/fused_gdn_gating.h"
#include "kernels/ops/fused_recurrent_gated_delta_rule.h"
#include "kernels/ops/l2norm.h"
#include "kernels/ops/projection.h"
#include "kernels/ops/recompute_w_u.h"
#include "kernels/ops/rmsnorm_gated.h"
#include "kernels/ops/solve_tril.h"

namespace gdn::oracle {

void L2Norm(const L2NormParams& p);
void ChunkLocalCumsum(const ChunkLocalCumsumParams& p);
void ChunkScaledDotKkt(const ChunkScaledDotKktParams& p);
void SolveTril(const SolveTrilParams& p);
void RecomputeWU(const RecomputeWUParams& p);
void ChunkDeltaH(const ChunkDeltaHParams& p);
void ChunkO(const ChunkOParams& p);
void ChunkGatedDeltaRule(const ChunkGatedDeltaRuleParams& p);
void FusedRecurrentGatedDeltaRule(const FusedRecurrentGatedDeltaRuleParams& p);
void CausalConv1dFn(const CausalConv1dFnParams& p);
void CausalConv1dUpdate(const CausalConv1dUpdateParams& p);
void FusedGdnGating(const FusedGdnGatingParams& p);
void RmsNormGated(const RmsNormGatedParams& p);
void Projection(const ProjectionParams& p);

}  // namespace gdn::oracle
