// What the server counts about itself. Kept whether or not anybody looks: recording takes no lock
// and allocates nothing. metric_families.cc says what each number is called.
#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>

#include "gdn/v1/errors.pb.h"
#include "server/metrics/histogram.h"

namespace gdn {

// The RPCs that are answered; the others are gRPC's own UNIMPLEMENTED.
enum class Method : uint8_t {
  kGetServerInfo,
  kPrefill,
  kDecode,
  kStream,
  kGetSequence,
  kListSequences,
  kReleaseSequences,
  kRenewSequences,
  kRegisterSharedMemory,
  kUnregisterSharedMemory,
  kServeRing,
};
inline constexpr size_t kMethods = 11;
inline constexpr std::array<const char*, kMethods> kMethodNames = {"GetServerInfo",
                                                                   "Prefill",
                                                                   "Decode",
                                                                   "Stream",
                                                                   "GetSequence",
                                                                   "ListSequences",
                                                                   "ReleaseSequences",
                                                                   "RenewSequences",
                                                                   "RegisterSharedMemory",
                                                                   "UnregisterSharedMemory",
                                                                   "ServeRing"};
constexpr const char* NameOf(Method method) { return kMethodNames[static_cast<size_t>(method)]; }
inline constexpr size_t kStatusCodes = 17;  // of gRPC, OK to UNAUTHENTICATED

// In nanoseconds, from what a small decode takes on a GPU to what nobody waits for.
inline constexpr std::array<uint64_t, 20> kDurationBounds = {
    10'000,        25'000,        50'000,        100'000,        250'000,
    500'000,       1'000'000,     2'500'000,     5'000'000,      10'000'000,
    25'000'000,    50'000'000,    100'000'000,   250'000'000,    500'000'000,
    1'000'000'000, 2'500'000'000, 5'000'000'000, 10'000'000'000, 25'000'000'000};
inline constexpr std::array<uint64_t, 10> kRowBounds = {1, 2, 4, 8, 16, 32, 64, 128, 256, 512};
inline constexpr std::array<uint64_t, 17> kTokenBounds = {
    1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384, 32768, 65536};

// The calls of one method.
struct CallNumbers {
  std::array<Counter, kStatusCodes> ended;  // by the code they ended with
  Counter received_bytes;
  Counter sent_bytes;
  Histogram duration{kDurationBounds};  // unary methods only
};

// The steps and batches of one kind.
struct StepNumbers {
  Histogram queued{kDurationBounds};
  Histogram duration{kDurationBounds};
  Histogram batch_rows{kRowBounds};
  Histogram batch_tokens{kTokenBounds};
  Histogram device{kDurationBounds};
};

struct Metrics {
  std::array<CallNumbers, kMethods> calls;  // by Method
  std::array<StepNumbers, 2> steps;         // by StepKind
  std::array<Counter, v1::ErrorReason_ARRAYSIZE> errors;
  Counter open_streams;
  Counter replayed_rows;
  Counter leases_expired;
  std::atomic<bool> serving = false;

  CallNumbers& of(Method method) { return calls[static_cast<size_t>(method)]; }
};

}  // namespace gdn
