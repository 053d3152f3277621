// The chunked form, one step at a time. Loops run over chunk and value head; a Tile says where the
// tokens of a chunk lie.
#include <algorithm>
#include <cmath>
#include <utility>
#include <vector>

#include "kernels/cpu/oracle/access.h"
#include "kernels/cpu/oracle/ops.h"

namespace gdn::oracle {
namespace {

struct Tile {
  int64_t begin;   // first token
  int64_t length;  // tokens, at most kChunk
};

Tile TileOf(const Rows& rows, const Chunks& chunks, int64_t chunk) {
  const int64_t row = chunks.chunk_indices[2 * chunk];
  const int64_t begin = rows.offsets[row] + chunks.chunk_indices[2 * chunk + 1] * kChunk;
  return {begin, std::min<int64_t>(kChunk, rows.offsets[row + 1] - begin)};
}

double Dot(const std::vector<double>& a, const std::vector<double>& b) {
  double sum = 0;
  for (size_t i = 0; i < a.size(); ++i) sum += a[i] * b[i];
  return sum;
}

using Matrix = std::vector<std::vector<double>>;  // [rows][columns]

// Rows of head `head` of a [T, heads, dim] tensor for the tokens of a tile.
Matrix LoadTile(const void* data, DType type, int64_t stride, int64_t head, int64_t dim,
                const Tile& tile) {
  Matrix m;
  for (int64_t i = 0; i < tile.length; ++i) {
    m.push_back(LoadVector(data, type, (tile.begin + i) * stride + head * dim, dim));
  }
  return m;
}

// Column `head` of a [T, heads] fp32 tensor for the tokens of a tile.
std::vector<double> LoadColumn(const float* data, int heads, int head, const Tile& tile) {
  std::vector<double> x(tile.length);
  for (int64_t i = 0; i < tile.length; ++i) x[i] = data[(tile.begin + i) * heads + head];
  return x;
}

int KeyHead(const Heads& h, int value_head) { return value_head / (h.value_heads / h.key_heads); }

}  // namespace

void ChunkLocalCumsum(const ChunkLocalCumsumParams& p) {
  const int64_t columns = int64_t{p.heads} * p.dim;
  for (int64_t chunk = 0; chunk < p.chunks.count; ++chunk) {
    const Tile tile = TileOf(p.rows, p.chunks, chunk);
    for (int64_t c = 0; c < columns; ++c) {
      double sum = 0;
      for (int64_t t = tile.begin; t < tile.begin + tile.length; ++t) {
        sum += p.g[t * columns + c];
        p.gamma[t * columns + c] = static_cast<float>(sum);
      }
    }
  }
}

// A_ij = beta_i * (k_i · k_j) * exp(gamma_i - gamma_j) for i > j
void ChunkScaledDotKkt(const ChunkScaledDotKktParams& p) {
  const int heads = p.heads.value_heads;
  for (int64_t chunk = 0; chunk < p.chunks.count; ++chunk) {
    const Tile tile = TileOf(p.rows, p.chunks, chunk);
    for (int head = 0; head < heads; ++head) {
      const Matrix k =
          LoadTile(p.k, p.io, p.k_stride, KeyHead(p.heads, head), p.heads.key_dim, tile);
      const std::vector<double> gamma = LoadColumn(p.gamma, heads, head, tile);
      for (int64_t i = 0; i < tile.length; ++i) {
        const int64_t token_head = (tile.begin + i) * heads + head;
        float* row = p.a + token_head * kChunk;
        std::fill(row, row + kChunk, 0.0f);
        for (int64_t j = 0; j < i; ++j) {
          row[j] = static_cast<float>(p.beta[token_head] * Dot(k[i], k[j]) *
                                      std::exp(gamma[i] - gamma[j]));
        }
      }
    }
  }
}

// Row by row: M_ij = [i = j] - sum over l < i of A_il * M_lj
void SolveTril(const SolveTrilParams& p) {
  for (int64_t chunk = 0; chunk < p.chunks.count; ++chunk) {
    const Tile tile = TileOf(p.rows, p.chunks, chunk);
    for (int head = 0; head < p.value_heads; ++head) {
      Matrix m;
      for (int64_t i = 0; i < tile.length; ++i) {
        const int64_t begin = ((tile.begin + i) * p.value_heads + head) * kChunk;
        const std::vector<double> a = LoadVector(p.a, DType::kFp32, begin, kChunk);
        std::vector<double> row(kChunk, 0.0);
        row[i] = 1.0;
        for (int64_t l = 0; l < i; ++l) {
          for (int64_t j = 0; j <= l; ++j) row[j] -= a[l] * m[l][j];
        }
        StoreVector(row, p.inverse, DType::kFp32, begin);
        m.push_back(std::move(row));
      }
    }
  }
}

// w_i = sum_j M_ij * beta_j * exp(gamma_j) * k_j;  u_i = sum_j M_ij * beta_j * v_j
void RecomputeWU(const RecomputeWUParams& p) {
  const auto [_, heads, key_dim, value_dim] = p.heads;
  for (int64_t chunk = 0; chunk < p.chunks.count; ++chunk) {
    const Tile tile = TileOf(p.rows, p.chunks, chunk);
    for (int head = 0; head < heads; ++head) {
      const Matrix k = LoadTile(p.k, p.io, p.k_stride, KeyHead(p.heads, head), key_dim, tile);
      const Matrix v = LoadTile(p.v, p.io, p.v_stride, head, value_dim, tile);
      const std::vector<double> gamma = LoadColumn(p.gamma, heads, head, tile);
      const std::vector<double> beta = LoadColumn(p.beta, heads, head, tile);
      for (int64_t i = 0; i < tile.length; ++i) {
        const int64_t token_head = (tile.begin + i) * heads + head;
        std::vector<double> w(key_dim, 0.0);
        std::vector<double> u(value_dim, 0.0);
        for (int64_t j = 0; j <= i; ++j) {
          const double for_u = p.inverse[token_head * kChunk + j] * beta[j];
          const double for_w = for_u * std::exp(gamma[j]);
          for (int c = 0; c < key_dim; ++c) w[c] += for_w * k[j][c];
          for (int c = 0; c < value_dim; ++c) u[c] += for_u * v[j][c];
        }
        StoreVector(w, p.w, p.mid, token_head * key_dim);
        StoreVector(u, p.u, p.mid, token_head * value_dim);
      }
    }
  }
}

namespace {

// One chunk of one head. s [V][K] is the state before it and, afterwards, the one behind it:
//   v_new_i = u_i - S w_i;  S = exp(gamma_last) * S + sum_i v_new_i * exp(gamma_last - gamma_i) ⊗
//   k_i
void AdvanceChunk(const ChunkDeltaHParams& p, int64_t chunk, int head, std::vector<double>& s) {
  const auto [_, heads, key_dim, value_dim] = p.heads;
  const Tile tile = TileOf(p.rows, p.chunks, chunk);
  StoreVector(s, p.h, p.mid, (chunk * heads + head) * s.size());
  const Matrix k = LoadTile(p.k, p.io, p.k_stride, KeyHead(p.heads, head), key_dim, tile);
  const Matrix w = LoadTile(p.w, p.mid, int64_t{heads} * key_dim, head, key_dim, tile);
  const Matrix u = LoadTile(p.u, p.mid, int64_t{heads} * value_dim, head, value_dim, tile);
  const std::vector<double> gamma = LoadColumn(p.gamma, heads, head, tile);
  const std::vector<double> before = s;
  const double decay = std::exp(gamma.back());
  for (double& e : s) e *= decay;
  for (int64_t i = 0; i < tile.length; ++i) {
    const double decay_behind = std::exp(gamma.back() - gamma[i]);
    std::vector<double> v_new = u[i];
    for (int r = 0; r < value_dim; ++r) {
      for (int c = 0; c < key_dim; ++c) v_new[r] -= before[r * key_dim + c] * w[i][c];
      const double d = v_new[r] * decay_behind;
      for (int c = 0; c < key_dim; ++c) s[r * key_dim + c] += d * k[i][c];
    }
    StoreVector(v_new, p.v_new, p.mid, ((tile.begin + i) * heads + head) * value_dim);
  }
}

}  // namespace

void ChunkDeltaH(const ChunkDeltaHParams& p) {
  const int64_t elements = int64_t{p.heads.value_dim} * p.heads.key_dim;
  for (int64_t row = 0; row < p.rows.count; ++row) {
    if (p.rows.slot(row) < 0 || p.rows.offsets[row] == p.rows.offsets[row + 1]) continue;
    for (int head = 0; head < p.heads.value_heads; ++head) {
      const int64_t state = p.rows.slot(row) * p.ssm.slot_stride + head * elements;
      std::vector<double> s(elements, 0.0);
      if (p.ssm.data != nullptr && p.rows.has_state(row)) {
        s = LoadVector(p.ssm.data, p.ssm.type, state, elements);
      }
      for (int64_t c = p.chunks.chunk_offsets[row]; c < p.chunks.chunk_offsets[row + 1]; ++c) {
        AdvanceChunk(p, c, head, s);
      }
      if (p.ssm.data != nullptr) StoreVector(s, p.ssm.data, p.ssm.type, state);
    }
  }
}

namespace {

// o_i = scale * (exp(gamma_i) * S q_i + sum over j <= i of exp(gamma_i - gamma_j) (q_i · k_j)
// v_new_j)
void OutputOfTile(const ChunkOParams& p, int64_t chunk, int head) {
  const auto [_, heads, key_dim, value_dim] = p.heads;
  const Tile tile = TileOf(p.rows, p.chunks, chunk);
  const int64_t elements = int64_t{value_dim} * key_dim;
  const int key_head = KeyHead(p.heads, head);
  const std::vector<double> h = LoadVector(p.h, p.mid, (chunk * heads + head) * elements, elements);
  const Matrix q = LoadTile(p.q, p.io, p.q_stride, key_head, key_dim, tile);
  const Matrix k = LoadTile(p.k, p.io, p.k_stride, key_head, key_dim, tile);
  const Matrix v = LoadTile(p.v_new, p.mid, int64_t{heads} * value_dim, head, value_dim, tile);
  const std::vector<double> gamma = LoadColumn(p.gamma, heads, head, tile);
  for (int64_t i = 0; i < tile.length; ++i) {
    std::vector<double> o(value_dim, 0.0);
    for (int r = 0; r < value_dim; ++r) {
      for (int c = 0; c < key_dim; ++c) o[r] += h[r * key_dim + c] * q[i][c];
      o[r] *= std::exp(gamma[i]);
    }
    for (int64_t j = 0; j <= i; ++j) {
      const double score = std::exp(gamma[i] - gamma[j]) * Dot(q[i], k[j]);
      for (int r = 0; r < value_dim; ++r) o[r] += score * v[j][r];
    }
    for (double& e : o) e *= p.scale;
    StoreVector(o, p.o, p.o_type, (tile.begin + i) * p.o_stride + int64_t{head} * value_dim);
  }
}

}  // namespace

void ChunkO(const ChunkOParams& p) {
  const int64_t width = int64_t{p.heads.value_heads} * p.heads.value_dim;
  for (int64_t chunk = 0; chunk < p.chunks.count; ++chunk) {
    if (p.rows.slot(p.chunks.chunk_indices[2 * chunk]) < 0) {
      const Tile tile = TileOf(p.rows, p.chunks, chunk);
      for (int64_t i = 0; i < tile.length; ++i) {
        StoreZeros(p.o, p.o_type, (tile.begin + i) * p.o_stride, width);
      }
      continue;
    }
    for (int head = 0; head < p.heads.value_heads; ++head) OutputOfTile(p, chunk, head);
  }
}

}  // namespace gdn::oracle
