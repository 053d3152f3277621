// Every op on the device. Same parameters as the oracle, with device pointers.
#pragma once

#include "kernels/cuda/causal_conv1d.h"
#include "kernels/cuda/chunk_delta_h.h"
#include "kernels/cuda/chunk_gated_delta_rule.h"
#include "kernels/cuda/chunk_indices.h"
#include "kernels/cuda/chunk_local_cumsum.h"
#include "kernels/cuda/chunk_o.h"
#include "kernels/cuda/chunk_scaled_dot_kkt.h"
#include "kernels/cuda/fused_conv_gating.h"
#include "kernels/cuda/fused_gdn_decode.h"
#include "kernels/cuda/fused_gdn_gating.h"
#include "kernels/cuda/fused_recurrent_gated_delta_rule.h"
#include "kernels/cuda/l2norm.h"
#include "kernels/cuda/recompute_w_u.h"
#include "kernels/cuda/rmsnorm_gated.h"
#include "kernels/cuda/solve_tril.h"
