#include "tests/sim/traffic.h"

#include <algorithm>
#include <limits>
#include <utility>

#include "absl/strings/str_cat.h"

namespace gdn::test {
namespace {

constexpr size_t kIds = 9;
constexpr size_t kMostRows = 4;
constexpr size_t kMostTokens = 8;  // of a row of a prefill
constexpr size_t kHistory = 30;

}  // namespace

std::vector<std::string> Traffic::DistinctIds(size_t count) {
  std::vector<std::string> ids;
  for (size_t i = 0; i < kIds; ++i) ids.push_back(absl::StrCat("s", i));
  for (size_t i = 0; i < count; ++i) std::swap(ids[i], ids[i + Below(kIds - i)]);
  ids.resize(count);
  return ids;
}

StepSpec Traffic::Step(const Mirror& mirror, const std::vector<int>& layers, absl::Time now) {
  if (!history_.empty() && Percent(20)) {
    StepSpec again = history_[Below(history_.size())];
    again.deadline = absl::InfiniteFuture();
    return again;
  }
  StepSpec spec = NewStep(mirror, layers, now);
  history_.push_back(spec);
  if (history_.size() > kHistory) history_.pop_front();
  return spec;
}

StepSpec Traffic::NewStep(const Mirror& mirror, const std::vector<int>& layers, absl::Time now) {
  StepSpec spec;
  spec.kind = Percent(60) ? StepKind::kDecode : StepKind::kPrefill;
  spec.layer = static_cast<int>(Below(layers.size()));
  StepRequest& request = spec.request;
  request.layer = static_cast<uint32_t>(layers[spec.layer]);
  request.input_layout = v1::INPUT_LAYOUT_HIDDEN;
  request.data_type = v1::DATA_TYPE_FP32;
  request.step_id = Percent(20) ? 0 : Percent(25) ? 1 + Below(3) : next_step_id_++;
  request.discard_output = Percent(10);
  request.release_after = Percent(5);
  Percent(60) ? NameById(mirror, &spec) : NameBySlot(mirror, &spec);
  if (Percent(50)) StatePositions(mirror, &spec);
  FillTokens(&spec);
  if (Percent(10)) spec.deadline = now + absl::Milliseconds(Below(400));
  return spec;
}

void Traffic::NameById(const Mirror& mirror, StepSpec* spec) {
  StepRequest& request = spec->request;
  request.create = Percent(60);
  request.request_ids = DistinctIds(1 + Below(kMostRows));
  const bool fenced = Percent(20);
  for (std::string& id : request.request_ids) {
    const auto it = mirror.live().find(id);
    if (fenced) {
      const uint64_t epoch = it == mirror.live().end() ? Below(3) : it->second.epoch;
      request.epochs.push_back(Percent(80) ? epoch : Percent(50) ? 0 : epoch + Below(3));
    }
    if (Percent(15)) id.clear();
  }
}

void Traffic::NameBySlot(const Mirror& mirror, StepSpec* spec) {
  StepRequest& request = spec->request;
  uint64_t newest = 0;
  for (const auto& [id, sequence] : mirror.live()) newest = std::max(newest, sequence.epoch);
  for (const auto& [id, sequence] : mirror.live()) {
    if (request.slots.size() == kMostRows || Percent(40)) continue;
    request.slots.push_back(Percent(10) ? -1 - static_cast<int32_t>(Below(5)) : sequence.slot);
    const uint64_t wrong = Percent(50) ? newest + 1 + Below(3) : sequence.epoch - 1;
    request.epochs.push_back(Percent(92) ? sequence.epoch : Percent(20) ? 0 : wrong);
  }
  if (!request.slots.empty()) return;
  request.slots.push_back(static_cast<int32_t>(Below(3)));
  request.epochs.push_back(newest + Below(3));
}

void Traffic::StatePositions(const Mirror& mirror, StepSpec* spec) {
  StepRequest& request = spec->request;
  for (size_t row = 0; row < request.rows(); ++row) {
    uint64_t position = 0;
    for (const auto& [id, sequence] : mirror.live()) {
      const bool named =
          request.by_id() ? request.request_ids[row] == id : request.slots[row] == sequence.slot;
      if (named) position = sequence.layers[spec->layer].position;
    }
    request.positions.push_back(Percent(92) ? position : position + Below(3));
  }
}

void Traffic::FillTokens(StepSpec* spec) {
  StepRequest& request = spec->request;
  const size_t rows = request.rows();
  const bool decode = spec->kind == StepKind::kDecode;
  const bool counted = !decode || Percent(20);
  for (size_t row = 0; row < rows; ++row) {
    const size_t count = !counted ? 1 : Below(decode ? 3 : kMostTokens + 1);
    if (counted) request.token_counts.push_back(static_cast<uint32_t>(count));
    std::vector<float> tokens;
    while (tokens.size() < count) tokens.push_back(Token());
    spec->tokens.push_back(std::move(tokens));
  }
}

float Traffic::Token() {
  const uint64_t kind = Below(1000);
  if (kind < 4) return std::numeric_limits<float>::quiet_NaN();
  if (kind < 8) return -std::numeric_limits<float>::infinity();
  if (kind < 11) return kOverflowing;
  if (kind < 13) return kDeviceFailing;
  return static_cast<float>(Below(1 << 20));
}

CallSpec Traffic::Call(const Mirror& mirror, absl::Time now) {
  CallSpec call;
  call.kind = static_cast<CallSpec::Kind>(Below(4));
  call.ids = DistinctIds(1 + Below(3));
  call.ttl = absl::Seconds(Below(30));
  if (Percent(10)) call.deadline = now + absl::Milliseconds(Below(400));
  if (call.kind == CallSpec::Kind::kGet) call.ids.resize(1);
  if (call.kind == CallSpec::Kind::kList) call.ids.clear();
  if (call.kind == CallSpec::Kind::kRelease && Percent(50)) {
    for (const std::string& id : call.ids) {
      const auto it = mirror.live().find(id);
      call.epochs.push_back(it == mirror.live().end() ? Below(2) : it->second.epoch - Below(2));
    }
  }
  return call;
}

}  // namespace gdn::test
