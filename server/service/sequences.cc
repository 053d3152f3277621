#include "server/service/sequences.h"

#include <algorithm>
#include <optional>
#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "google/protobuf/duration.pb.h"
#include "google/protobuf/timestamp.pb.h"
#include "server/wire/validate_step.h"

namespace gdn {
namespace {

constexpr int32_t kLargestPage = 1000;

template <typename Ids>
Fault ValidateIds(const Ids& ids) {
  for (const std::string& id : ids) {
    if (IsWellFormedId(id)) continue;
    return FaultOf(v1::ERROR_REASON_MALFORMED_ID,
                   "an id is not 1 to 128 characters of [A-Za-z0-9._:/-]");
  }
  return {};
}

absl::Duration FromProto(const google::protobuf::Duration& d) {
  return absl::Seconds(d.seconds()) + absl::Nanoseconds(d.nanos());
}

void ToProto(absl::Time time, google::protobuf::Timestamp* proto) {
  const int64_t seconds = absl::ToUnixSeconds(time);
  proto->set_seconds(seconds);
  proto->set_nanos(
      static_cast<int32_t>(absl::ToInt64Nanoseconds(time - absl::FromUnixSeconds(seconds))));
}

void Show(const SequenceRecord& record, int32_t slot, v1::Sequence* sequence) {
  sequence->set_request_id(record.request_id);
  sequence->set_slot(slot);
  sequence->set_epoch(record.epoch);
  sequence->set_state(record.poisoned ? v1::SEQUENCE_STATE_POISONED : v1::SEQUENCE_STATE_LIVE);
  for (const LayerCursor& layer : record.layers) sequence->add_positions(layer.position);
  ToProto(record.created, sequence->mutable_create_time());
  ToProto(record.expires, sequence->mutable_expire_time());
}

// A page token is the slot where the page begins, bound to this process.
std::string PageToken(int32_t slot, const SequenceRules& rules) {
  return absl::StrCat(rules.instance_id, ".", slot);
}

std::optional<int32_t> PageStart(absl::string_view token, const SequenceRules& rules) {
  int32_t slot = 0;
  if (token.empty()) return 0;
  if (!absl::ConsumePrefix(&token, rules.instance_id) || !absl::ConsumePrefix(&token, ".") ||
      !absl::SimpleAtoi(token, &slot) || slot < 0) {
    return std::nullopt;
  }
  return slot;
}

}  // namespace

Fault Validate(const v1::GetSequenceRequest& /*request*/, const SequenceRules& /*rules*/) {
  return {};
}

Fault Validate(const v1::ReleaseSequencesRequest& request, const SequenceRules& /*rules*/) {
  if (request.epochs_size() != 0 && request.epochs_size() != request.request_ids_size()) {
    return FaultOf(v1::ERROR_REASON_MALFORMED_ID,
                   absl::StrCat("epochs has ", request.epochs_size(), " entries for ",
                                request.request_ids_size(), " request_ids"));
  }
  Fault fault = ValidateIds(request.request_ids());
  return fault.ok() ? ValidateIds(request.checkpoint_ids()) : fault;
}

Fault Validate(const v1::RenewSequencesRequest& request, const SequenceRules& rules) {
  const absl::Duration ttl = FromProto(request.ttl());
  if (ttl < absl::ZeroDuration() || ttl > rules.max_ttl) {
    return FaultOf(v1::ERROR_REASON_UNSUPPORTED,
                   absl::StrCat("ttl ", absl::FormatDuration(ttl), " is not within 0 and max_ttl ",
                                absl::FormatDuration(rules.max_ttl)));
  }
  return ValidateIds(request.request_ids());
}

Fault Validate(const v1::ListSequencesRequest& request, const SequenceRules& rules) {
  if (PageStart(request.page_token(), rules)) return {};
  return FaultOf(v1::ERROR_REASON_MALFORMED_ID, "page_token is not one of this server's");
}

CallPlace PlaceOf(const v1::GetSequenceRequest& request) {
  CallPlace place;
  place.request_ids = {request.request_id()};
  return place;
}

CallPlace PlaceOf(const v1::ListSequencesRequest& /*request*/) {
  CallPlace place;
  place.waits_for_all = true;
  return place;
}

CallPlace PlaceOf(const v1::ReleaseSequencesRequest& request) {
  CallPlace place;
  place.request_ids = {request.request_ids().begin(), request.request_ids().end()};
  place.holds_up = true;
  return place;
}

CallPlace PlaceOf(const v1::RenewSequencesRequest& request) {
  CallPlace place;
  place.request_ids = {request.request_ids().begin(), request.request_ids().end()};
  return place;
}

Fault Execute(const v1::GetSequenceRequest& request, const SequenceRules& /*rules*/, Engine* engine,
              absl::Time /*now*/, v1::GetSequenceResponse* response) {
  const SlotTable& table = engine->table();
  const std::optional<int32_t> slot = table.Find(request.request_id());
  if (!slot) {
    return FaultOf(table.Expired(request.request_id()) ? v1::ERROR_REASON_SEQUENCE_EXPIRED
                                                       : v1::ERROR_REASON_SEQUENCE_NOT_FOUND,
                   "no such sequence");
  }
  Show(table.At(*slot), *slot, response->mutable_sequence());
  return {};
}

Fault Execute(const v1::ListSequencesRequest& request, const SequenceRules& rules, Engine* engine,
              absl::Time /*now*/, v1::ListSequencesResponse* response) {
  const SlotTable& table = engine->table();
  const bool sized = request.page_size() > 0 && request.page_size() <= kLargestPage;
  const int32_t size = sized ? request.page_size() : kLargestPage;
  for (int32_t slot = *PageStart(request.page_token(), rules); slot < table.slots(); ++slot) {
    if (!table.InUse(slot)) continue;
    if (response->sequences_size() == size) {
      response->set_next_page_token(PageToken(slot, rules));
      break;
    }
    Show(table.At(slot), slot, response->add_sequences());
  }
  return {};
}

Fault Execute(const v1::ReleaseSequencesRequest& request, const SequenceRules& /*rules*/,
              Engine* engine, absl::Time /*now*/, v1::ReleaseSequencesResponse* /*response*/) {
  for (int i = 0; i < request.request_ids_size(); ++i) {
    const std::optional<int32_t> slot = engine->table().Find(request.request_ids(i));
    const uint64_t epoch = request.epochs_size() == 0 ? 0 : request.epochs(i);
    if (slot && (epoch == 0 || epoch == engine->table().At(*slot).epoch)) engine->Release(*slot);
  }
  return {};
}

Fault Execute(const v1::RenewSequencesRequest& request, const SequenceRules& rules, Engine* engine,
              absl::Time now, v1::RenewSequencesResponse* response) {
  SlotTable& table = engine->table();
  const absl::Duration ttl = request.has_ttl() ? FromProto(request.ttl()) : rules.step_ttl;
  response->set_instance_id(rules.instance_id);
  for (const std::string& id : request.request_ids()) {
    const std::optional<int32_t> slot = table.Find(id);
    if (slot && !table.At(*slot).poisoned) {
      table.Renew(*slot, now + ttl);
    } else {
      response->add_missing_request_ids(id);
    }
  }
  return {};
}

}  // namespace gdn
