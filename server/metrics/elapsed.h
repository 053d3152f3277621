// The time that has passed, as the metrics count it.
#pragma once

#include <algorithm>
#include <cstdint>

#include "absl/time/time.h"

namespace gdn {

// 0 where the system's clock was set back meanwhile.
inline uint64_t NanosecondsBetween(absl::Time begin, absl::Time end) {
  return static_cast<uint64_t>(std::max<int64_t>(0, absl::ToInt64Nanoseconds(end - begin)));
}

}  // namespace gdn
