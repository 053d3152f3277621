#include "server/wire/wire_reader.h"

#include <algorithm>
#include <climits>

#include "server/wire/utf8.h"

namespace gdn {
namespace {

// The generated parser takes no length closer to INT_MAX than this.
constexpr size_t kLongest = INT_MAX - 16;

}  // namespace

WireReader::WireReader(std::span<const std::string_view> pieces) : later_(pieces) {
  for (std::string_view piece : pieces) beyond_ += piece.size();
  ok_ = beyond_ <= INT_MAX;
  if (!ok_) beyond_ = 0;
}

bool WireReader::NextPiece() {
  if (beyond_ == 0) return false;
  while (later_.front().empty()) later_ = later_.subspan(1);
  const std::string_view piece = later_.front();
  later_ = later_.subspan(1);
  next_ = piece.data();
  piece_end_ = next_ + piece.size();
  end_ = next_ + std::min(piece.size(), beyond_);
  beyond_ -= static_cast<size_t>(end_ - next_);
  return true;
}

bool WireReader::ReadTag(uint32_t* tag) {
  uint32_t result = 0;
  for (int shift = 0; shift < 35; shift += 7) {
    uint8_t byte;
    if (!ReadByte(&byte)) return false;
    result |= uint32_t{byte & 0x7fu} << shift;
    if (byte < 0x80) {
      *tag = result;
      return result >> 3 != 0;
    }
  }
  return false;
}

bool WireReader::ReadLength(size_t* length) {
  uint64_t value = 0;
  for (int shift = 0; shift < 35; shift += 7) {
    uint8_t byte;
    if (!ReadByte(&byte)) return false;
    value |= uint64_t{byte & 0x7fu} << shift;
    if (byte < 0x80) {
      *length = value;
      return value <= kLongest && value <= remaining();
    }
  }
  return false;
}

bool WireReader::ReadString(std::string* to) {
  size_t length;
  if (!ReadLength(&length)) return false;
  to->clear();
  to->reserve(length);
  ForRuns(length, [&](const char* data, size_t n) { to->append(data, n); });
  return IsUtf8(*to);
}

bool WireReader::ReadPieces(std::vector<std::string_view>* to) {
  size_t length;
  if (!ReadLength(&length)) return false;
  to->clear();
  ForRuns(length, [&](const char* data, size_t n) { to->emplace_back(data, n); });
  return true;
}

bool WireReader::Skip(size_t size) {
  if (size > remaining()) return false;
  ForRuns(size, [](const char*, size_t) {});
  return true;
}

bool WireReader::SkipValue(uint32_t tag) {
  uint64_t varint;
  size_t length;
  switch (static_cast<WireType>(tag & 7)) {
    case WireType::kVarint:
      return ReadVarint(&varint);
    case WireType::kFixed64:
      return Skip(8);
    case WireType::kBytes:
      return ReadLength(&length) && Skip(length);
    case WireType::kStartGroup:
      return SkipGroup(tag >> 3);
    case WireType::kFixed32:
      return Skip(4);
    default:  // an end without its start, or a type that there is not
      return false;
  }
}

bool WireReader::SkipGroup(uint32_t field) {
  if (depth_ == 0) return false;
  --depth_;
  uint32_t tag;
  while (ReadTag(&tag)) {
    if ((tag & 7) == static_cast<uint32_t>(WireType::kEndGroup)) {
      ++depth_;
      return tag >> 3 == field;
    }
    if (!SkipValue(tag)) return false;
  }
  return false;
}

size_t WireReader::Narrow(size_t length) {
  const size_t outside = remaining() - length;
  const size_t here = std::min(length, static_cast<size_t>(end_ - next_));
  end_ = next_ + here;
  beyond_ = length - here;
  return outside;
}

void WireReader::Widen(size_t outside) {
  const size_t here = std::min(outside, static_cast<size_t>(piece_end_ - next_));
  end_ = next_ + here;
  beyond_ = outside - here;
}

}  // namespace gdn
