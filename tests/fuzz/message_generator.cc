#include "tests/fuzz/message_generator.h"

#include <algorithm>
#include <string_view>

#include "gdn/v1/gdn_service.pb.h"

namespace gdn {
namespace {

// `padding` more bytes than the shortest form.
std::string Varint(uint64_t value, size_t padding = 0) {
  std::string bytes;
  for (; value >= 0x80; value >>= 7) bytes.push_back(static_cast<char>(value | 0x80));
  bytes.push_back(static_cast<char>(value));
  for (; padding > 0; --padding) {
    bytes.back() = static_cast<char>(bytes.back() | 0x80);
    bytes.push_back(0);
  }
  return bytes;
}

std::string WithLength(uint32_t field, std::string_view value) {
  return Varint(field << 3 | 2) + Varint(value.size()) + std::string(value);
}

}  // namespace

uint64_t MessageGenerator::Value() { return random_() >> Below(64); }

std::string MessageGenerator::Text() {
  static constexpr std::string_view kTexts[] = {
      "",
      "r",
      "request-1",
      "a/b:c.d_e",
      "\xc3\xa9",
      "\xe2\x82\xac",
      "\xf0\x9f\x98\x80",
      "long enough to be beyond the small strings \xf4\x8f\xbf\xbf and their eight bytes"};
  std::string text(kTexts[Below(std::size(kTexts))]);
  if (Chance(2)) {
    static constexpr std::string_view kWrong[] = {
        "\xff", "\xc0\x80",        "\xed\xa0\x80", "\xe2\x82", "\xf4\x90\x80\x80",
        "\x80", "\xf0\x82\x82\xac"};
    text.insert(Below(text.size() + 1), kWrong[Below(std::size(kWrong))]);
  }
  return text;
}

std::string MessageGenerator::Batch() {
  v1::Batch batch;
  if (Chance(70)) batch.set_data_type(static_cast<v1::DataType>(Value()));
  if (Chance(70)) batch.set_input_layout(static_cast<v1::InputLayout>(Value()));
  if (Chance(70)) batch.set_step_id(Value());
  batch.set_create(Chance(30));
  batch.set_release_after(Chance(30));
  batch.set_speculative(Chance(30));
  batch.set_discard_output(Chance(30));
  const size_t rows = Below(Chance(10) ? 200 : 6);
  const bool by_id = Chance(50);
  for (size_t row = 0; row < rows; ++row) {
    if (by_id) batch.add_request_ids(Text());
    if (!by_id) batch.add_slots(static_cast<int32_t>(Value()));
    batch.add_epochs(Value());
    batch.add_positions(Value());
    batch.add_token_counts(static_cast<uint32_t>(Value()));
  }
  return batch.SerializeAsString();
}

std::string MessageGenerator::SerializedStep() {
  v1::DecodeRequest step;
  if (Chance(80)) step.set_layer(static_cast<uint32_t>(Value()));
  if (Chance(10)) step.mutable_shared_memory()->set_region(Text());
  if (Chance(10)) step.mutable_shared_memory()->set_input_offset(Value());
  if (Chance(10)) step.mutable_shared_memory()->set_output_offset(Value());
  if (Chance(20)) step.set_synthetic_seed(Value());
  if (Chance(80)) step.set_input(std::string(Below(300), static_cast<char>(Value())));
  std::string message = step.SerializeAsString();
  return Chance(80) ? WithLength(2, Batch()) + message : message;
}

std::string MessageGenerator::StepMessage() {
  std::string message;
  for (size_t parts = 1 + Below(3); parts > 0; --parts) {
    message += SerializedStep();
    if (Chance(20)) message += WithLength(2, RandomFields(2));
    if (Chance(20)) message += RandomFields(2);
  }
  return message;
}

std::string MessageGenerator::StreamMessage() {
  std::string message;
  for (size_t parts = 1 + Below(3); parts > 0; --parts) {
    if (Chance(60)) message += Varint(1 << 3) + Varint(Value());
    if (Chance(90)) message += WithLength(14 + Below(2), StepMessage());
    if (Chance(10)) message += RandomFields(2);
  }
  return message;
}

std::string MessageGenerator::RandomFields(int depth) {
  std::string fields;
  for (size_t n = Below(4); n > 0; --n) fields += RandomField(depth);
  return fields;
}

std::string MessageGenerator::RandomField(int depth) {
  const uint64_t field = Chance(95) ? 1 + Below(17) : Value() & 0x3fffffff;
  const size_t type = Chance(99) ? Below(6) : Below(8);
  const size_t padding = Chance(95) ? 0 : Below(10);
  const std::string tag = Varint(field << 3 | type, Chance(95) ? 0 : Below(5));
  switch (type) {
    case 0:
      return tag + Varint(Value(), padding);
    case 1:
      return tag + std::string(8, static_cast<char>(Value()));
    case 2: {
      const std::string value = depth > 0 && Chance(50)
                                    ? RandomFields(depth - 1)
                                    : std::string(4 * Below(9), static_cast<char>(Below(128)));
      return tag + Varint(value.size(), Chance(95) ? 0 : Below(5)) + value;
    }
    case 3: {
      const int levels = Chance(90) ? 1 : 95 + static_cast<int>(Below(10));
      std::string group = depth > 0 ? RandomFields(depth - 1) : "";
      for (int i = 0; i < levels; ++i) group.insert(0, tag).append(Varint(field << 3 | 4));
      return group;
    }
    case 5:
      return tag + std::string(4, static_cast<char>(Value()));
    default:  // 4: an end without its start, mostly left out; 6 and 7: no types
      return type == 4 && Chance(95) ? "" : tag;
  }
}

void MessageGenerator::Mutate(std::string* message) {
  for (size_t times = 1 + Below(3); times > 0 && !message->empty(); --times) {
    const size_t at = Below(message->size());
    const size_t size = std::min(1 + Below(8), message->size() - at);
    switch (Below(6)) {
      case 0:
        (*message)[at] = static_cast<char>(Value());
        break;
      case 1:
        (*message)[at] = static_cast<char>((*message)[at] ^ (1 << Below(8)));
        break;
      case 2:
        message->resize(at);
        break;
      case 3:
        message->erase(at, size);
        break;
      case 4:
        message->insert(at, message->substr(at, size));
        break;
      default:
        message->insert(at, RandomFields(1));
    }
  }
}

}  // namespace gdn
