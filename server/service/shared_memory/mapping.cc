#include "server/service/shared_memory/mapping.h"

#include <signal.h>
#include <sys/mman.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <mutex>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"

namespace gdn {
namespace {

// A mapping that the handler looks after; end is null where the place is free.
struct Guarded {
  std::atomic<std::byte*> begin = nullptr;
  std::atomic<std::byte*> end = nullptr;
  std::atomic<bool> lost = false;
};

constexpr size_t kMostMappings = 512;
std::array<Guarded, kMostMappings> guarded;
std::mutex guarded_mutex;  // of whoever takes a place or gives it back
struct sigaction before;   // what SIGBUS did without us

// Runs on the thread that touched what is not there, between two of its instructions: atomics and
// system calls only. The access is then made again.
void OnBusError(int, siginfo_t* info, void*) {
  const int error = errno;
  const auto* at = static_cast<const std::byte*>(info->si_addr);
  for (Guarded& place : guarded) {
    const std::byte* end = place.end.load(std::memory_order_acquire);
    std::byte* begin = place.begin.load(std::memory_order_relaxed);
    if (at < begin || at >= end || place.end.load(std::memory_order_acquire) != end) continue;
    place.lost = true;
    void* zeros = mmap(begin, static_cast<size_t>(end - begin), PROT_READ | PROT_WRITE,
                       MAP_FIXED | MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (zeros == MAP_FAILED) break;
    errno = error;
    return;
  }
  sigaction(SIGBUS, &before, nullptr);
}

void CatchBusErrors() {
  struct sigaction action = {};
  action.sa_sigaction = OnBusError;
  action.sa_flags = SA_SIGINFO;
  sigemptyset(&action.sa_mask);
  sigaction(SIGBUS, &action, &before);
}

size_t WholePages(size_t size) {
  const auto page = static_cast<size_t>(sysconf(_SC_PAGESIZE));
  return (size + page - 1) / page * page;
}

// Null where all places are taken.
Guarded* TakePlace(void* data, size_t size) {
  static std::once_flag once;
  std::call_once(once, CatchBusErrors);
  const std::lock_guard lock(guarded_mutex);
  for (Guarded& place : guarded) {
    if (place.end != nullptr) continue;
    place.lost = false;
    place.begin = static_cast<std::byte*>(data);
    place.end.store(place.begin + size, std::memory_order_release);
    return &place;
  }
  return nullptr;
}

void GivePlaceBack(void* data) {
  const std::lock_guard lock(guarded_mutex);
  for (Guarded& place : guarded) {
    if (place.end != nullptr && place.begin == data) place.end = nullptr;
  }
}

}  // namespace

absl::StatusOr<std::unique_ptr<SharedMapping>> SharedMapping::Map(int fd, size_t size) {
  const size_t pages = WholePages(size);
  void* data = pages < size ? MAP_FAILED
                            : mmap(nullptr, pages, PROT_READ | PROT_WRITE,
                                   MAP_SHARED | MAP_NORESERVE, fd, 0);
  if (data == MAP_FAILED) {
    return absl::ResourceExhaustedError(absl::StrCat("no room to map ", size, " bytes"));
  }
  const Guarded* place = TakePlace(data, pages);
  if (place == nullptr) {
    munmap(data, pages);
    return absl::ResourceExhaustedError(absl::StrCat(kMostMappings, " regions are mapped"));
  }
  return std::unique_ptr<SharedMapping>(
      new SharedMapping(static_cast<std::byte*>(data), size, place->lost));
}

SharedMapping::~SharedMapping() {
  GivePlaceBack(data_);
  munmap(data_, WholePages(size_));
}

}  // namespace gdn
