// Elementary functions on vectors, good to about 1e-7 relative.
#pragma once

#include "kernels/cpu/isa/vec.h"

namespace gdn::cpu {
namespace {

// exp(x) = 2^n * exp(r) with n = round(x / ln 2) and |r| <= ln 2 / 2. The ends of the range are
// such that 2^n comes out as zero below the normal numbers and the product as infinity above them.
inline VecF Exp(VecF x) {
  constexpr float kRound = 12582912.0f;  // 1.5 * 2^23: what is added loses its fraction
  constexpr float kHighest = 89.0f, kLowest = -87.33f;
  const VecF low = Select(x < kLowest, Broadcast(kLowest), x);
  const VecF clamped = Select(low > kHighest, Broadcast(kHighest), low);
  const VecF shifted = clamped * 1.44269504f + kRound;
  const VecF n = shifted - kRound;
  const VecF r = (clamped - n * 0.693359375f) - n * -2.12194440e-4f;
  VecF p = r * 1.9875691500e-4f + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  p = p * (r * r) + r + 1.0f;
  // 2^n as 2 * 2^(n - 1), because n may be 128.
  const VecU power = (AsU(shifted) - 0x4b400000 + 126) << 23;
  return p * 2.0f * AsF(power);
}

inline VecF Sigmoid(VecF x) { return 1.0f / (1.0f + Exp(-x)); }
inline VecF Silu(VecF x) { return x / (1.0f + Exp(-x)); }

inline float Exp(float x) { return Exp(Broadcast(x))[0]; }

}  // namespace
}  // namespace gdn::cpu
