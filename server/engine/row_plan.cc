#include "server/engine/row_plan.h"

#include <optional>

namespace gdn {
namespace {

constexpr int32_t kFresh = -2;  // a row whose sequence is yet to be allocated

bool StatesPosition(const StepRequest& request, size_t row) {
  return !request.positions.empty() && request.positions[row] != 0;
}

bool StatesEpoch(const StepRequest& request, size_t row) {
  return !request.epochs.empty() && request.epochs[row] != 0;
}

// The slot of the row's sequence, kFresh where it is to begin, or nothing.
std::optional<int32_t> Resolve(const StepRequest& request, size_t row, const SlotTable& table) {
  if (!request.by_id()) {
    const int32_t slot = request.slots[row];
    if (!table.InUse(slot) || table.At(slot).epoch != request.epochs[row]) return std::nullopt;
    return slot;
  }
  const std::optional<int32_t> slot = table.Find(request.request_ids[row]);
  if (!slot) {
    const bool begins =
        request.create && !StatesPosition(request, row) && !StatesEpoch(request, row);
    return begins ? std::optional<int32_t>(kFresh) : std::nullopt;
  }
  if (StatesEpoch(request, row) && table.At(*slot).epoch != request.epochs[row]) {
    return std::nullopt;
  }
  return slot;
}

v1::ErrorReason Missing(const StepRequest& request, size_t row, const SlotTable& table) {
  const bool live = request.by_id() && table.Find(request.request_ids[row]).has_value();
  const bool expired = request.by_id() ? !live && table.Expired(request.request_ids[row])
                                       : table.Expired(request.epochs[row]);
  return expired ? v1::ERROR_REASON_SEQUENCE_EXPIRED : v1::ERROR_REASON_SEQUENCE_NOT_FOUND;
}

// Whether the row's last step at this layer is this one, sent again.
bool IsReplay(const StepRequest& request, size_t row, const LayerCursor& cursor) {
  return request.step_id != 0 && cursor.step_id == request.step_id && request.tokens(row) > 0;
}

v1::ErrorReason CheckReplay(const StepRequest& request, size_t row, const SequenceRecord& record,
                            const RowRules& rules, const AnswerStore& answers) {
  const LayerCursor& cursor = record.layers[rules.layer];
  const bool same_step =
      cursor.step_tokens == request.tokens(row) && cursor.step_layout == request.input_layout &&
      (request.positions.empty() || request.positions[row] == cursor.step_position);
  if (!same_step) return v1::ERROR_REASON_STEP_ID_REUSED;
  const bool kept = cursor.step_tokens <= rules.max_decode_tokens ||
                    answers.Find(record.epoch, rules.layer) != nullptr;
  return kept ? v1::ERROR_REASON_UNSPECIFIED : v1::ERROR_REASON_ANSWER_NOT_KEPT;
}

// Plans one row that names a live sequence.
v1::ErrorReason PlanLive(const StepRequest& request, size_t row, const SequenceRecord& record,
                         const RowRules& rules, const AnswerStore& answers, RowPlan* plan) {
  if (record.poisoned) return v1::ERROR_REASON_STATE_POISONED;
  const LayerCursor& cursor = record.layers[rules.layer];
  if (IsReplay(request, row, cursor)) {
    plan->action = RowPlan::Action::kReplay;
    return CheckReplay(request, row, record, rules, answers);
  }
  if (!request.positions.empty() && request.positions[row] != cursor.position) {
    return v1::ERROR_REASON_POSITION_MISMATCH;
  }
  plan->action = request.tokens(row) == 0 ? RowPlan::Action::kTouch : RowPlan::Action::kFold;
  return v1::ERROR_REASON_UNSPECIFIED;
}

}  // namespace

Fault PlanRows(const StepRequest& request, const RowRules& rules, const AnswerStore& answers,
               SlotTable* table, StateLease* lease, std::vector<RowPlan>* plan) {
  Fault fault;
  int fresh = 0;
  plan->assign(request.rows(), RowPlan{});
  for (size_t row = 0; row < request.rows(); ++row) {
    if (request.padding(row)) continue;
    RowPlan& row_plan = (*plan)[row];
    const auto index = static_cast<uint32_t>(row);
    const std::optional<int32_t> slot = Resolve(request, row, *table);
    if (!slot) {
      fault.AddRow(Missing(request, row, *table), index);
    } else if (*slot == kFresh) {
      ++fresh;
      row_plan = {request.tokens(row) == 0 ? RowPlan::Action::kTouch : RowPlan::Action::kFold,
                  kFresh};
      if (rules.draining) {
        fault.AddRow(v1::ERROR_REASON_DRAINING, index);
      } else if (fresh > table->free()) {
        fault.AddRow(v1::ERROR_REASON_SLOTS_EXHAUSTED, index);
      }
    } else {
      const SequenceRecord& record = table->At(*slot);
      row_plan.slot = *slot;
      const v1::ErrorReason why = PlanLive(request, row, record, rules, answers, &row_plan);
      if (why != v1::ERROR_REASON_UNSPECIFIED) {
        fault.AddRow(why, index, record.layers[rules.layer].position);
      }
    }
  }
  if (!fault.ok()) return fault;
  for (size_t row = 0; row < request.rows() && fresh > 0; ++row) {
    if ((*plan)[row].slot != kFresh) continue;
    (*plan)[row].slot = lease->Allocate(request.request_ids[row], rules.now, rules.expires);
    --fresh;
  }
  return fault;
}

}  // namespace gdn
