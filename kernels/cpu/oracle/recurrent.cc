#include <vector>

#include "kernels/cpu/oracle/access.h"
#include "kernels/cpu/oracle/math.h"
#include "kernels/cpu/oracle/ops.h"

namespace gdn::oracle {
namespace {

// One value head of one row, token by token.
void RunHead(const GatedDeltaRuleParams& p, int64_t row, int head) {
  const Heads& h = p.heads;
  const int64_t elements = int64_t{h.value_dim} * h.key_dim;
  const int64_t state = p.rows.slot(row) * p.ssm.slot_stride + head * elements;
  std::vector<double> s(elements, 0.0);
  if (p.ssm.data != nullptr && p.rows.has_state(row)) {
    s = LoadVector(p.ssm.data, p.ssm.type, state, elements);
  }
  const int64_t key_begin = int64_t{head / (h.value_heads / h.key_heads)} * h.key_dim;
  const int64_t value_begin = int64_t{head} * h.value_dim;
  std::vector<double> o(h.value_dim);
  for (int64_t t = p.rows.offsets[row]; t < p.rows.offsets[row + 1]; ++t) {
    std::vector<double> q = LoadVector(p.q, p.io, t * p.q_stride + key_begin, h.key_dim);
    std::vector<double> k = LoadVector(p.k, p.io, t * p.k_stride + key_begin, h.key_dim);
    if (p.qk_l2norm) {
      L2Normalise(q, kL2NormEps);
      L2Normalise(k, kL2NormEps);
    }
    const double g = p.g == nullptr ? 0.0 : p.g[t * h.value_heads + head];
    const double beta = p.beta == nullptr ? 1.0 : p.beta[t * h.value_heads + head];
    DeltaStep(s, q, k, LoadVector(p.v, p.io, t * p.v_stride + value_begin, h.value_dim), g, beta,
              p.scale, o);
    StoreVector(o, p.o, p.o_type, t * p.o_stride + value_begin);
  }
  if (p.ssm.data != nullptr) StoreVector(s, p.ssm.data, p.ssm.type, state);
}

void ZeroRow(const GatedDeltaRuleParams& p, int64_t row) {
  const int64_t width = int64_t{p.heads.value_heads} * p.heads.value_dim;
  for (int64_t t = p.rows.offsets[row]; t < p.rows.offsets[row + 1]; ++t) {
    StoreZeros(p.o, p.o_type, t * p.o_stride, width);
  }
}

}  // namespace

void FusedRecurrentGatedDeltaRule(const FusedRecurrentGatedDeltaRuleParams& p) {
  for (int64_t row = 0; row < p.rows.count; ++row) {
    if (p.rows.offsets[row] == p.rows.offsets[row + 1]) continue;
    if (p.rows.slot(row) < 0) {
      ZeroRow(p, row);
      continue;
    }
    for (int head = 0; head < p.heads.value_heads; ++head) RunHead(p, row, head);
  }
}

}  // namespace gdn::oracle
