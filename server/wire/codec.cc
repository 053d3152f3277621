#include "server/wire/codec.h"

#include <bit>

#include "gdn/v1/gdn_service.pb.h"
#include "server/wire/wire_reader.h"

namespace gdn {
namespace {

static_assert(std::endian::native == std::endian::little,
              "arrays are copied as they lie on the wire");

// Ids come one by one: where there are several, so many grow no vector.
constexpr size_t kUsualRows = 128;

template <typename T>
bool ReadScalar(WireReader& in, T* to) {
  uint64_t value;
  if (!in.ReadVarint(&value)) return false;
  *to = static_cast<T>(value);
  return true;
}

// A repeated field of fixed width: packed, or one element of it.
template <typename T>
bool ReadArray(WireReader& in, uint32_t tag, std::vector<T>* to) {
  size_t size = sizeof(T);
  const bool packed = (tag & 7) == static_cast<uint32_t>(WireType::kBytes);
  if (packed && (!in.ReadLength(&size) || size % sizeof(T) != 0)) return false;
  if (size > in.remaining()) return false;
  const size_t before = to->size();
  to->resize(before + size / sizeof(T));
  return in.ReadBytes(to->data() + before, size);
}

bool ReadRequestId(WireReader& in, std::vector<std::string>* to) {
  if (to->size() == 1) to->reserve(kUsualRows);
  if (to->size() < kMaxRequestIds) return in.ReadString(&to->emplace_back());
  std::string dropped;
  return in.ReadString(&dropped);
}

// The fields of gdn.v1.Batch. Numbers here and below are those of the .proto files.
bool ReadBatchField(WireReader& in, uint32_t tag, StepRequest* to) {
  switch (tag) {
    case Tag(1, WireType::kVarint):
      return ReadScalar(in, &to->data_type);
    case Tag(2, WireType::kVarint):
      return ReadScalar(in, &to->input_layout);
    case Tag(3, WireType::kFixed64):
      return in.ReadFixed64(&to->step_id);
    case Tag(4, WireType::kVarint):
      return ReadScalar(in, &to->create);
    case Tag(5, WireType::kVarint):
      return ReadScalar(in, &to->release_after);
    case Tag(6, WireType::kVarint):
      return ReadScalar(in, &to->speculative);
    case Tag(7, WireType::kVarint):
      return ReadScalar(in, &to->discard_output);
    case Tag(8, WireType::kBytes):
      return ReadRequestId(in, &to->request_ids);
    case Tag(9, WireType::kBytes):
    case Tag(9, WireType::kFixed32):
      return ReadArray(in, tag, &to->slots);
    case Tag(10, WireType::kBytes):
    case Tag(10, WireType::kFixed64):
      return ReadArray(in, tag, &to->epochs);
    case Tag(11, WireType::kBytes):
    case Tag(11, WireType::kFixed64):
      return ReadArray(in, tag, &to->positions);
    case Tag(12, WireType::kBytes):
    case Tag(12, WireType::kFixed32):
      return ReadArray(in, tag, &to->token_counts);
    default:
      return in.SkipValue(tag);
  }
}

// The fields of gdn.v1.SharedMemory.
bool ReadSharedMemoryField(WireReader& in, uint32_t tag, SharedPlace* to) {
  switch (tag) {
    case Tag(1, WireType::kBytes):
      return in.ReadString(&to->region);
    case Tag(2, WireType::kVarint):
      return ReadScalar(in, &to->input_offset);
    case Tag(3, WireType::kVarint):
      return ReadScalar(in, &to->output_offset);
    default:
      return in.SkipValue(tag);
  }
}

// Calls read(tag) for each field up to the end of the (sub-)message.
template <typename ReadField>
bool ReadFields(WireReader& in, ReadField read) {
  while (!in.AtEnd()) {
    uint32_t tag;
    if (!in.ReadTag(&tag) || !read(tag)) return false;
  }
  return true;
}

// The fields of gdn.v1.PrefillRequest and DecodeRequest.
bool ReadStepField(WireReader& in, uint32_t tag, StepRequest* to) {
  switch (tag) {
    case Tag(1, WireType::kVarint):
      return ReadScalar(in, &to->layer);
    case Tag(2, WireType::kBytes):
      return in.ReadMessage(
          [&] { return ReadFields(in, [&](uint32_t t) { return ReadBatchField(in, t, to); }); });
    case Tag(3, WireType::kBytes):
      if (!to->shared_memory) to->shared_memory.emplace();
      return in.ReadMessage([&] {
        return ReadFields(
            in, [&](uint32_t t) { return ReadSharedMemoryField(in, t, &*to->shared_memory); });
      });
    case Tag(4, WireType::kFixed64):
      return in.ReadFixed64(&to->synthetic_seed);
    case Tag(15, WireType::kBytes):
      return in.ReadPieces(&to->input);
    default:
      return in.SkipValue(tag);
  }
}

bool ReadStep(WireReader& in, StepRequest* to) {
  return ReadFields(in, [&](uint32_t tag) { return ReadStepField(in, tag, to); });
}

// A member of StreamRequest.step: it replaces another one and merges into itself.
bool ReadStreamMember(WireReader& in, StepKind kind, StreamStep* to) {
  if (to->kind != kind) to->request = {};
  to->has_step = true;
  to->kind = kind;
  return in.ReadMessage([&] { return ReadStep(in, &to->request); });
}

bool ReadStreamField(WireReader& in, uint32_t tag, StreamStep* to) {
  switch (tag) {
    case Tag(1, WireType::kVarint):
      return ReadScalar(in, &to->tag);
    case Tag(14, WireType::kBytes):
      return ReadStreamMember(in, StepKind::kPrefill, to);
    case Tag(15, WireType::kBytes):
      return ReadStreamMember(in, StepKind::kDecode, to);
    default:
      return in.SkipValue(tag);
  }
}

void AppendVarint(uint64_t value, std::string* to) {
  for (; value >= 0x80; value >>= 7) to->push_back(static_cast<char>(value | 0x80));
  to->push_back(static_cast<char>(value));
}

// A packed field of fixed width: on the wire it is the array's own bytes.
template <typename T>
void AppendArray(uint32_t field, const std::vector<T>& values, std::string* to) {
  if (values.empty()) return;
  AppendVarint(Tag(field, WireType::kBytes), to);
  AppendVarint(values.size() * sizeof(T), to);
  to->append(reinterpret_cast<const char*>(values.data()), values.size() * sizeof(T));
}

}  // namespace

bool ParseStepRequest(std::span<const std::string_view> pieces, StepRequest* request) {
  *request = {};
  WireReader in(pieces);
  return in.ok() && ReadStep(in, request);
}

bool ParseStreamRequest(std::span<const std::string_view> pieces, StreamStep* step) {
  *step = {};
  WireReader in(pieces);
  return in.ok() && ReadFields(in, [&](uint32_t tag) { return ReadStreamField(in, tag, step); });
}

std::string EncodeAnswerHeader(const StepAnswer& answer) {
  std::string header;
  AppendArray(1, answer.slots, &header);
  AppendArray(2, answer.epochs, &header);
  if (answer.replayed_rows != 0) {
    AppendVarint(Tag(3, WireType::kVarint), &header);
    AppendVarint(answer.replayed_rows, &header);
  }
  if (answer.output.size != 0) {
    AppendVarint(Tag(15, WireType::kBytes), &header);
    AppendVarint(answer.output.size, &header);
  }
  return header;
}

std::string EncodeStreamAnswerHeader(uint64_t tag, StepKind kind, const StepAnswer& answer) {
  const std::string header = EncodeAnswerHeader(answer);
  std::string message;
  if (tag != 0) {
    AppendVarint(Tag(1, WireType::kVarint), &message);
    AppendVarint(tag, &message);
  }
  AppendVarint(Tag(kind == StepKind::kPrefill ? 14 : 15, WireType::kBytes), &message);
  AppendVarint(header.size() + answer.output.size, &message);
  return message + header;
}

std::string EncodeStreamStatus(uint64_t tag, const google::rpc::Status& status) {
  v1::StreamResponse response;
  response.set_tag(tag);
  *response.mutable_status() = status;
  return response.SerializeAsString();
}

}  // namespace gdn
