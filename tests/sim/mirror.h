// What the contract says an engine answers: written from the contract alone and row by row, as an
// independent judge of the engine. Of batches it knows only which steps the engine has in flight.
#pragma once

#include <cstdint>
#include <functional>
#include <list>
#include <map>
#include <numeric>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "absl/time/time.h"
#include "gdn/v1/sequence_service.pb.h"
#include "server/wire/step.h"
#include "tests/testing/fake_backend.h"

namespace gdn::test {

// A step as its caller knows it. `request` lacks the input, which `tokens` are.
struct StepSpec {
  StepKind kind = StepKind::kDecode;
  int layer = 0;  // index into the layers hosted
  StepRequest request;
  std::vector<std::vector<float>> tokens;  // of each row; a token's other numbers are 0
  absl::Time deadline = absl::InfiniteFuture();

  std::string Input() const;
};

// A call of SequenceService.
struct CallSpec {
  enum class Kind : uint8_t { kGet, kList, kRelease, kRenew } kind = Kind::kGet;
  std::vector<std::string> ids;
  std::vector<uint64_t> epochs;  // kRelease: empty or one for each id
  absl::Duration ttl;            // kRenew
  absl::Time deadline = absl::InfiniteFuture();
};

// What came back for one of them.
struct Reply {
  uint64_t serial = 0;  // in order of arrival
  Fault fault;
  StepAnswer answer;
  std::vector<float> output;
  std::vector<v1::Sequence> shown;   // kGet, kList
  std::vector<std::string> missing;  // kRenew
};

struct MirrorRules {
  int layers = 0;
  int slots = 0;
  int64_t max_rows = 0;
  uint32_t max_decode_tokens = 0;
  size_t max_queue_steps = 0;  // and calls
  size_t depth = 1;            // of the backend
  uint32_t prefill_chunk = 0;
  size_t replay_bytes = 0;
  absl::Duration ttl;
  absl::Duration prefill_max_wait;
};

// What one Step of the engine did, beside the replies.
struct Round {
  bool ran = false;                 // what it returned
  std::vector<uint64_t> in_flight;  // after it, in the order in which they began
  uint64_t between = 0;             // likewise the prefill of which some pieces wait, or 0
  int64_t batch_tokens = -1;        // of the batch that it began; -1: none
};

class Mirror {
 public:
  struct Cursor {
    uint64_t position = 0;
    uint64_t step_id = 0;
    uint64_t step_position = 0;
    std::vector<float> answer;  // of that step, whether kept or not
    uint32_t step_tokens = 0;
    FakeState state;
  };
  struct Sequence {
    int32_t slot = -1;
    uint64_t epoch = 0;
    bool poisoned = false;
    bool touched = false;  // a step of the last round renews its lease
    absl::Time expires;
    std::vector<Cursor> layers;
  };
  // Where a sequence that began without an answer is: its slot and epoch.
  using Locate = std::function<std::pair<int32_t, uint64_t>(const std::string& id)>;

  Mirror(const MirrorRules& rules, Locate locate) : rules_(rules), locate_(std::move(locate)) {}

  // False where the queue has no room for it.
  bool StepArrives(uint64_t serial, const StepSpec& spec, absl::Time now);
  bool CallArrives(uint64_t serial, const CallSpec& spec, absl::Time now);
  void Cancel(uint64_t serial);
  void Drain() { draining_ = true; }

  // Judges what one Step of the engine at `now` did and answered.
  void CheckRound(absl::Time now, const Round& round, const std::vector<Reply>& replies);

  const std::map<std::string, Sequence>& live() const { return live_; }
  std::vector<uint64_t> Waiting() const;  // serials
  size_t waiting_steps() const;
  // Of sequences that live, and of those that steps in flight begin.
  int slots_used() const;

 private:
  enum class Action : uint8_t { kPad, kFresh, kFold, kReplay, kTouch };
  struct Item {
    bool is_call = false;
    StepSpec step;
    CallSpec call;
    absl::Time arrival;
    bool cancelled = false;
    // Of each row, or each id of a call: the sequence, "" for none.
    std::vector<std::string> names;
    std::vector<Action> actions;  // of each row, once it has begun
    size_t in_flight = 0;         // batches that have it, or a piece of it
    std::vector<int64_t> pieces;  // their tokens, of those that were begun

    bool Names(const std::string& id) const;
    bool Shares(const Item& other) const;
    bool HasBegun() const { return !actions.empty(); }
    absl::Time deadline() const { return is_call ? call.deadline : step.deadline; }
    bool IsPrefill() const { return !is_call && step.kind == StepKind::kPrefill; }
    int64_t tokens() const { return static_cast<int64_t>(step.request.total_tokens()); }
    int64_t tokens_begun() const { return std::accumulate(pieces.begin(), pieces.end(), 0L); }
  };
  using Items = std::map<uint64_t, Item>;  // by serial
  using Replies = std::map<uint64_t, const Reply*>;

  // The parts of a round, in their order.
  void EndLeases(absl::Time now);
  Replies CheckDropped(absl::Time now, const std::vector<Reply>& replies);
  void CheckOrder(absl::Time now, const std::vector<uint64_t>& begun) const;
  void CheckCall(absl::Time now, const Item& call, const Reply& reply);
  void CheckBegun(const std::vector<uint64_t>& begun, const Replies& replies);
  void GoOn();
  void CheckBatch(int64_t tokens);
  bool CheckEnded(absl::Time now, const Replies& replies, const Round& round);
  std::vector<uint64_t> InFlight() const;

  // Whether `later` has to wait for `earlier`.
  static bool WaitsFor(const Item& later, const Item& earlier);
  bool Waits(uint64_t serial) const;  // it, or a piece of it that has not begun
  bool IsFree(uint64_t serial) const;
  bool WaitsForBegun(const Item& item, const Item& begun) const;
  bool IsCut(const Item& item) const;

  Fault Plan(const Item& item, int free, std::vector<Action>* actions) const;
  v1::ErrorReason PlanRow(const Item& item, size_t row, Action* action, uint64_t* position) const;
  const Sequence* Resolve(const Item& item, size_t row) const;
  bool IsExpired(const std::string& id) const;
  bool IsExpired(uint64_t epoch) const;

  void RunStep(absl::Time now, const Item& item, const Reply& reply);
  v1::ErrorReason RunRow(absl::Time now, const Item& item, size_t row, Action action,
                         const Reply& reply, std::vector<float>* output);
  v1::ErrorReason FaultOfRow(const Item& item, size_t row) const;
  void Begin(absl::Time now, const std::string& id, size_t row, const Reply& reply);
  void End(const std::string& id, bool expired);
  void Keep(uint64_t epoch, int layer, size_t bytes);
  void Forget(uint64_t epoch, int layer);
  bool IsKept(uint64_t epoch, int layer) const;
  void CheckShown(const v1::Sequence& shown) const;

  const MirrorRules rules_;
  const Locate locate_;
  bool draining_ = false;
  bool last_was_prefill_ = false;
  std::set<uint64_t> epochs_;  // of all sequences that ever were
  std::map<std::string, Sequence> live_;
  Items waiting_;                               // unanswered, those that have begun too
  uint64_t between_ = 0;                        // the prefill of which some pieces wait, or 0
  std::list<std::vector<uint64_t>> in_flight_;  // batch by batch, oldest first
  std::vector<std::string> ending_;             // by release_after, at the end of the round

  // The ends of leases so far, and which of them was the last of an id and of an epoch.
  uint64_t expiries_ = 0;
  std::map<std::string, uint64_t> expired_ids_;
  std::map<uint64_t, uint64_t> expired_epochs_;

  struct Kept {
    uint64_t epoch;
    int layer;
    size_t bytes;
  };
  std::list<Kept> kept_;  // oldest first
};

}  // namespace gdn::test
