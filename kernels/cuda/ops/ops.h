// Every op on the device. Same parameters as the oracle, with device pointers.
#pragma once

#include "kernels/cuda/ops/causal_conv1d.h"
#include "kernels/cuda/ops/chunk_delta_h.h"
#include "kernels/cuda/ops/chunk_gated_delta_rule.h"
#include "kernels/cuda/ops/chunk_indices.h"
#include "kernels/cuda/ops/chunk_local_cumsum.h"
#include "kernels/cuda/ops/chunk_o.h"
#include "kernels/cuda/ops/chunk_scaled_dot_kkt.h"
#include "kernels/cuda/ops/fused_conv_gating.h"
#include "kernels/cuda/ops/fused_gdn_decode.h"
#include "kernels/cuda/ops/fused_gdn_gating.h"
#include "kernels/cuda/ops/fused_recurrent_gated_delta_rule.h"
#include "kernels/cuda/ops/l2norm.h"
#include "kernels/cuda/ops/recompute_w_u.h"
#include "kernels/cuda/ops/rmsnorm_gated.h"
#include "kernels/cuda/ops/solve_tril.h"
