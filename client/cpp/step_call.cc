#include "client/cpp/step_call.h"

#include <google/protobuf/io/coded_stream.h>
#include <google/protobuf/io/zero_copy_stream_impl_lite.h>

#include <algorithm>
#include <array>
#include <cstring>

#include "grpcpp/support/proto_buffer_reader.h"

namespace gdn::client {
namespace {

using google::protobuf::io::CodedInputStream;
using google::protobuf::io::CodedOutputStream;
using google::protobuf::io::LimitingInputStream;

constexpr uint32_t kTensorTag = 15 << 3 | 2;  // `input` and `output`: field 15, bytes

// Where the tensor lies in an answer. Serialisers write fields in order, so it comes last.
struct Place {
  int header_bytes = 0;  // of the fields before it
  int begin = 0;
  uint32_t size = 0;
};

bool SkipField(uint32_t tag, CodedInputStream* in) {
  uint64_t varint;
  uint32_t size;
  switch (tag & 7) {
    case 0:
      return in->ReadVarint64(&varint);
    case 1:
      return in->Skip(8);
    case 2:
      return in->ReadVarint32(&size) && in->Skip(static_cast<int>(size));
    case 5:
      return in->Skip(4);
    default:
      return false;
  }
}

// False where a field comes after the tensor or something does not parse.
bool FindTensor(CodedInputStream* in, Place* place) {
  for (;;) {
    place->header_bytes = in->CurrentPosition();
    const uint32_t tag = in->ReadTag();
    if (tag == 0) return in->ConsumedEntireMessage();
    if (tag == kTensorTag) break;
    if (!SkipField(tag, in)) return false;
  }
  if (!in->ReadVarint32(&place->size)) return false;
  place->begin = in->CurrentPosition();
  return in->Skip(static_cast<int>(place->size)) && in->ExpectAtEnd();
}

// Bytes [begin, begin + size) of `message`, which share its memory.
bool Cut(const grpc::ByteBuffer& message, size_t begin, size_t size,
         std::vector<grpc::Slice>* pieces) {
  std::vector<grpc::Slice> slices;
  if (!message.Dump(&slices).ok()) return false;
  for (const grpc::Slice& slice : slices) {
    const size_t skip = std::min(begin, slice.size());
    const size_t take = std::min(size, slice.size() - skip);
    if (take > 0) pieces->push_back(slice.sub(skip, skip + take));
    begin -= skip;
    size -= take;
  }
  return size == 0;
}

}  // namespace

size_t StepAnswer::output_bytes() const {
  size_t bytes = 0;
  for (const grpc::Slice& piece : output) bytes += piece.size();
  return bytes;
}

void StepAnswer::CopyOutput(void* to) const {
  auto* at = static_cast<std::byte*>(to);
  for (const grpc::Slice& piece : output) {
    std::memcpy(at, piece.begin(), piece.size());
    at += piece.size();
  }
}

grpc::ByteBuffer EncodeStep(const std::string& header, const grpc::Slice& input) {
  std::string before = header;
  if (input.size() != 0) {
    std::array<uint8_t, 15> tag;
    uint8_t* end = CodedOutputStream::WriteTagToArray(kTensorTag, tag.data());
    end = CodedOutputStream::WriteVarint64ToArray(input.size(), end);
    before.append(tag.data(), end);
  }
  const grpc::Slice slices[] = {grpc::Slice(before), input};
  return grpc::ByteBuffer(slices, std::size(slices));
}

bool DecodeAnswer(grpc::ByteBuffer* message, StepAnswer* answer) {
  *answer = {};
  Place place;
  bool found;
  {
    grpc::ProtoBufferReader reader(message);
    CodedInputStream in(&reader);
    found = FindTensor(&in, &place);
  }
  grpc::ProtoBufferReader reader(message);
  if (!found) {  // in another order: as any protobuf message
    if (!answer->header.ParseFromZeroCopyStream(&reader)) return false;
    answer->output.emplace_back(answer->header.output());
    answer->header.clear_output();
    return true;
  }
  LimitingInputStream header(&reader, place.header_bytes);
  return answer->header.ParseFromZeroCopyStream(&header) &&
         Cut(*message, place.begin, place.size, &answer->output);
}

}  // namespace gdn::client
