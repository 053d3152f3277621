// A step or call from its arrival to its answer, as the engine keeps it.
#pragma once

#include <cstddef>
#include <map>
#include <memory>
#include <string_view>
#include <vector>

#include "kernels/batch.h"
#include "server/engine/call.h"
#include "server/engine/queue_item.h"
#include "server/engine/row_plan.h"
#include "server/engine/step_piece.h"
#include "server/wire/step.h"
#include "state/answer_store.h"
#include "state/slot_table.h"
#include "state/state_lease.h"

namespace gdn {

struct Task {
  std::shared_ptr<Step> step;     // null for a call
  std::shared_ptr<Call> call;     // null for a step
  std::vector<SequenceKey> keys;  // of the sequences it concerns
  QueueItem item;                 // what the policy sees of it

  // Of a step that has begun.
  StateLease lease;
  std::vector<RowPlan> plan;
  std::map<size_t, std::shared_ptr<const KeptAnswer>> kept;  // by row, where the store has it
  std::vector<RowFault> faults;                              // of each row, so far
  OutputBuffer output;

  StepCursor next;       // the end of its pieces that have begun, and where the next one begins
  size_t in_flight = 0;  // how many of these have not ended

  explicit Task(SlotTable* table) : lease(table) {}

  // Whether the backend is to fold (more of) the row.
  bool Folds(size_t row) const {
    return plan[row].action == RowPlan::Action::kFold && faults[row] == RowFault::kNone;
  }
  bool HasMore() const { return next.row < plan.size(); }
};

// What of a step is in a batch: the tokens from `begin` to `end`, all of it unless it is cut.
struct TaskPiece {
  std::shared_ptr<Task> task;
  StepCursor begin;
  StepCursor end;
  size_t first_row = 0;                 // in the batch, of row begin.row
  std::vector<std::string_view> input;  // of a step that is cut

  // The rows of which tokens are in the batch end before this one.
  size_t end_row() const { return end.row + (end.token > 0 ? 1 : 0); }
  // Whether tokens of the row are in another piece, too.
  bool Splits(size_t row) const {
    return (row == begin.row && begin.token > 0) || (row == end.row && end.token > 0);
  }
};

}  // namespace gdn
