// A cursor over a protobuf message that lies in pieces, as gRPC received it. It refuses what the
// generated parser refuses and copies nothing that is not asked for.
#pragma once

#include <cstdint>
#include <cstring>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace gdn {

enum class WireType : uint32_t {
  kVarint = 0,
  kFixed64 = 1,
  kBytes = 2,
  kStartGroup = 3,
  kEndGroup = 4,
  kFixed32 = 5,
};

// A field number and a wire type as they stand before a field's value.
constexpr uint32_t Tag(uint32_t field, WireType type) {
  return field << 3 | static_cast<uint32_t>(type);
}

// Every Read and Skip is false where the message does not parse; the reader is of no use after
// that.
class WireReader {
 public:
  // `pieces`, which must outlive the reader, are together the message. Larger than 2 GiB: it is at
  // its end at once, and ok() is false.
  explicit WireReader(std::span<const std::string_view> pieces);

  bool ok() const { return ok_; }
  // Bytes up to the end of the (sub-)message.
  size_t remaining() const { return static_cast<size_t>(end_ - next_) + beyond_; }
  bool AtEnd() const { return next_ == end_ && beyond_ == 0; }

  // A tag takes at most 5 bytes; field number 0 is refused.
  bool ReadTag(uint32_t* tag);
  // At most 10 bytes; bits beyond the 64th are dropped.
  bool ReadVarint(uint64_t* value);
  bool ReadFixed64(uint64_t* value) { return ReadBytes(value, sizeof *value); }
  bool ReadFixed32(uint32_t* value) { return ReadBytes(value, sizeof *value); }
  // The length of what follows, which lies within the (sub-)message.
  bool ReadLength(size_t* length);
  // Copies `size` bytes.
  bool ReadBytes(void* to, size_t size);
  // A string with its length; refused where it is not UTF-8.
  bool ReadString(std::string* to);
  // A byte string with its length, as pieces of the message.
  bool ReadPieces(std::vector<std::string_view>* to);

  // Skips the value of a field that nobody knows, groups included.
  bool SkipValue(uint32_t tag);

  // Reads a sub-message with its length: `read` consumes it to AtEnd(). Messages and groups lie at
  // most 100 deep in one another.
  template <typename Read>
  bool ReadMessage(Read read) {
    size_t length;
    if (!ReadLength(&length) || depth_ == 0) return false;
    const size_t outside = Narrow(length);
    --depth_;
    if (!read() || !AtEnd()) return false;
    ++depth_;
    Widen(outside);
    return true;
  }

 private:
  // Makes [next_, end_) the next piece that has bytes; false at the end of the (sub-)message.
  bool NextPiece();
  bool ReadByte(uint8_t* byte) {
    if (next_ == end_ && !NextPiece()) return false;
    *byte = static_cast<uint8_t>(*next_++);
    return true;
  }
  bool Skip(size_t size);
  bool SkipGroup(uint32_t field);
  // Ends the view `length` bytes from here; gives what lies after it, for Widen at its end.
  size_t Narrow(size_t length);
  void Widen(size_t outside);
  // Calls use(data, size) for each run of the next `size` bytes, which must be there.
  template <typename Use>
  void ForRuns(size_t size, Use use);

  const char* next_ = nullptr;
  const char* end_ = nullptr;        // of the bytes that can be read from next_ on
  const char* piece_end_ = nullptr;  // end_ is before it where the (sub-)message ends in this piece
  size_t beyond_ = 0;                // bytes of the (sub-)message in later pieces
  std::span<const std::string_view> later_;
  int depth_ = 100;
  bool ok_ = true;
};

inline bool WireReader::ReadVarint(uint64_t* value) {
  uint64_t result = 0;
  for (int shift = 0; shift < 70; shift += 7) {
    uint8_t byte;
    if (!ReadByte(&byte)) return false;
    result |= uint64_t{byte & 0x7fu} << shift;
    if (byte < 0x80) {
      *value = result;
      return true;
    }
  }
  return false;
}

inline bool WireReader::ReadBytes(void* to, size_t size) {
  if (size > remaining()) return false;
  char* at = static_cast<char*>(to);
  ForRuns(size, [&](const char* data, size_t n) {
    std::memcpy(at, data, n);
    at += n;
  });
  return true;
}

template <typename Use>
void WireReader::ForRuns(size_t size, Use use) {
  while (size > 0) {
    if (next_ == end_) NextPiece();
    const size_t n = std::min(size, static_cast<size_t>(end_ - next_));
    use(next_, n);
    next_ += n;
    size -= n;
  }
}

}  // namespace gdn
