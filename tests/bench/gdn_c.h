/* The CUDA kernels behind a C interface of plain pointers and integers, so that a script can call
 * them on another framework's tensors and stream. Shapes and meanings are those of
 * kernels/ops/{chunk_gated_delta_rule,fused_gdn_decode}.h; K = V, io is bf16, tensors are dense but
 * for a token's distance where one is named, in elements. Pointers are device pointers; calls
 * enqueue on `stream` (a cudaStream_t) and return a cudaError_t. */
#pragma once

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct GdnPrefill {
  int64_t rows;
  int64_t tokens;
  int64_t chunks;
  int64_t longest;              /* chunks of a row at most */
  const int64_t* offsets;       /* [rows + 1] */
  const int64_t* chunk_offsets; /* [rows + 1] */
  const int64_t* chunk_indices; /* [chunks, 2] */
  int32_t key_heads;
  int32_t value_heads;
  int32_t dim; /* K and V */
  int32_t bf16_state;
  const void* q;     /* [tokens, H, K], normalised by the call */
  const void* k;     /* [tokens, H, K] */
  const void* v;     /* [tokens, HV, V] */
  const float* g;    /* [tokens, HV] */
  const float* beta; /* [tokens, HV] */
  void* state;       /* [rows, HV, V, K], in place */
  void* o;           /* [tokens, HV, V] */
} GdnPrefill;

size_t GdnPrefillWorkspaceBytes(const GdnPrefill* p);
int GdnRunPrefill(const GdnPrefill* p, void* workspace, void* stream);

typedef struct GdnDecode {
  int64_t rows;
  const int32_t* slots; /* [rows] */
  int32_t key_heads;
  int32_t value_heads;
  int32_t dim; /* K and V */
  int32_t bf16_state;
  const void* mixed; /* [rows, conv_dim], before the convolution of width 4 */
  const void* z;     /* [rows, HV, V], or null: no gated norm */
  const void* b;     /* [rows, HV] */
  const void* a;     /* [rows, HV] */
  int64_t mixed_stride;
  int64_t z_stride;
  int64_t ba_stride;
  const float* conv_weight; /* [conv_dim, 4] */
  const float* a_log;       /* [HV] */
  const float* dt_bias;     /* [HV] */
  const float* norm_weight; /* [V] */
  void* conv;               /* [slots, 3, conv_dim] */
  void* ssm;                /* [slots, HV, V, K] */
  void* o;                  /* [rows, HV, V] */
  uint32_t* faults;         /* [rows] */
} GdnDecode;

int GdnRunDecode(const GdnDecode* p, void* stream);

#ifdef __cplusplus
}
#endif
