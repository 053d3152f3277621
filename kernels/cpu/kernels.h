// The inner loops of the CPU backend, compiled once for each instruction set and reached through
// one table that is chosen at run time. Plain structs and function pointers: the code behind them
// is compiled with other flags than its callers, so they must share no inline function.
#pragma once

#include <cstdint>

#include "kernels/geometry.h"

namespace gdn::cpu {

// Columns of a matrix that a task of the matrix product computes, and the depth that it takes at a
// time: a panel of that depth stays in the first-level cache.
inline constexpr int kGroupColumns = 64;
inline constexpr int kDepth = 256;
// Tokens of a matrix product at most; longer ones are cut.
inline constexpr int kMaxProductRows = 512;
// Channels that a task of the convolution computes at most.
inline constexpr int kConvBlock = 512;
// Of the head dimensions.
inline constexpr int kMaxHeadDim = 256;

// y [rows, columns of the group] = x · wᵀ for one group of columns.
struct ProductTask {
  int64_t rows = 0;  // <= kMaxProductRows
  int64_t depth = 0;
  int columns = 0;           // <= kGroupColumns
  const float* x = nullptr;  // packed by pack_rows
  const void* w = nullptr;   // packed by pack_columns
  DType w_type = DType::kFp32;
  void* y = nullptr;
  DType y_type = DType::kFp32;
  int64_t y_stride = 0;
  float* sums = nullptr;  // scratch [rows, kGroupColumns]
};

// Tokens of one row, channels [0, channels) of a block; see CausalConv1dParams.
struct ConvTask {
  int64_t tokens = 0;
  int channels = 0;  // <= kConvBlock
  int width = 0;
  DType io = DType::kFp32;
  Activation activation = Activation::kNone;
  const void* x = nullptr;
  int64_t x_stride = 0;
  const float* weight = nullptr;  // [channels, W]
  const float* bias = nullptr;
  void* state = nullptr;  // [W - 1] rows of `channels`, or null: neither read nor written
  int64_t state_stride = 0;
  bool load_state = false;
  void* y = nullptr;
  int64_t y_stride = 0;
};

// Tokens of one row through one value head, or some of its value columns: V, state, v and o begin
// at the first of them. See GatedDeltaRuleParams.
struct HeadTask {
  int64_t tokens = 0;
  int key_dim = 0;
  int value_dim = 0;
  DType io = DType::kFp32;
  DType o_type = DType::kFp32;
  const void* q = nullptr;
  int64_t q_stride = 0;
  const void* k = nullptr;
  int64_t k_stride = 0;
  const void* v = nullptr;
  int64_t v_stride = 0;
  const float* g = nullptr;     // null: 0
  const float* beta = nullptr;  // null: 1
  int64_t gate_stride = 0;
  float scale = 1.0f;
  bool qk_l2norm = false;
  void* state = nullptr;  // [V, K], or null: starts from zero, final state dropped
  DType state_type = DType::kFp32;
  bool load_state = false;
  void* o = nullptr;
  int64_t o_stride = 0;
};

struct NormTask {
  int dim = 0;
  float eps = 0.0f;
  const void* x = nullptr;
  DType x_type = DType::kFp32;
  void* y = nullptr;
  DType y_type = DType::kFp32;
  const void* z = nullptr;  // gate's input, of y_type
  Gate gate = Gate::kSilu;
  const float* weight = nullptr;
};

// One chunk of one head in fp32, as the steps of the chunked form hand it on. Arrays "by panels"
// have [columns / panel][rows][panel]; the others are dense [rows, columns]. n <= kChunk tokens.
struct ChunkTile {
  int n = 0;
  int key_dim = 0;
  int value_dim = 0;
  float* k = nullptr;          // [n, K]
  float* q = nullptr;          // [n, K], times scale
  float* v = nullptr;          // [n, V]
  float* k_columns = nullptr;  // [K, kChunk] by panels: the transpose of k
  float* gamma = nullptr;      // [n]
  float* beta = nullptr;       // [n]
  float* decay = nullptr;      // [n, kChunk]: exp(gamma_i - gamma_j), lower triangle
  float* a = nullptr;          // [n, kChunk]
  float* inverse = nullptr;    // [n, kChunk]
  float* w = nullptr;          // [n, K], negated
  float* u = nullptr;          // [n, V] by panels; after delta_h v_new
  float* state = nullptr;      // [K, V] by panels
  float* o = nullptr;          // [n, V]
  float* work = nullptr;       // [kChunk, max(K, V)]
};

struct Kernels {
  const char* name;
  int panel;  // columns of a panel

  void (*to_float)(float* y, const void* x, DType type, int64_t n);
  void (*from_float)(void* y, DType type, const float* x, int64_t n);
  bool (*all_finite)(const void* x, DType type, int64_t n);

  // Rows [begin, end) of x [rows, depth], as `ProductTask::x` takes them: `packed` holds all rows.
  void (*pack_rows)(float* packed, const void* x, DType type, int64_t x_stride, int64_t rows,
                    int64_t depth, int64_t begin, int64_t end);
  // One group of a matrix: rows [0, columns) of w [columns, depth], to
  // depth * ceil(columns / panel) * panel elements of the same type.
  void (*pack_columns)(void* packed, const void* w, DType type, int64_t depth, int columns);
  void (*product)(const ProductTask& t);

  void (*conv)(const ConvTask& t);
  void (*l2norm)(const NormTask& t);
  void (*rmsnorm_gated)(const NormTask& t);

  void (*recurrent)(const HeadTask& t, float* scratch);
  void (*chunked)(const HeadTask& t, ChunkTile tile);

  // The steps of `chunked`: prepare (k_columns, decay), then each takes what those before it gave.
  void (*chunk_prepare)(const ChunkTile& t);
  void (*chunk_kkt)(const ChunkTile& t);
  void (*chunk_solve)(const ChunkTile& t);
  void (*chunk_w_u)(const ChunkTile& t);
  void (*chunk_v_new)(const ChunkTile& t);  // u becomes v_new
  void (*chunk_o)(const ChunkTile& t);      // overwrites q and a
  void (*chunk_state)(const ChunkTile& t);
};

// The table for the instruction set of this machine.
const Kernels& BestKernels();

}  // namespace gdn::cpu
