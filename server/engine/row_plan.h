// What is to be done with each row of a step, decided against the slot table when its turn comes.
#pragma once

#include <cstdint>
#include <vector>

#include "absl/time/time.h"
#include "kernels/batch.h"
#include "server/wire/fault.h"
#include "server/wire/step.h"
#include "state/answer_store.h"
#include "state/slot_table.h"
#include "state/state_lease.h"

namespace gdn {

struct RowPlan {
  enum class Action : uint8_t {
    kPad,     // no sequence is touched
    kFold,    // its tokens are folded into the slot
    kReplay,  // answered from the store
    kTouch,   // 0 tokens: created, checked, its lease renewed
  } action = Action::kPad;
  int32_t slot = kPadSlotId;
};

struct RowRules {
  int layer = 0;                   // index into the layers hosted
  uint32_t max_decode_tokens = 0;  // rows up to this length have their answers in the answer pool
  bool draining = false;           // no new sequences
  absl::Time now;
  absl::Time expires;  // of the sequences that begin
};

// Resolves, checks and plans every row of a validated step (gdn.v1.Batch says in which order).
// Either all rows pass, new sequences are allocated through `lease` and `plan` is filled, or the
// fault names every row that does not and nothing has changed.
Fault PlanRows(const StepRequest& request, const RowRules& rules, const AnswerStore& answers,
               SlotTable* table, StateLease* lease, std::vector<RowPlan>* plan);

}  // namespace gdn
