// What a step takes on the device, by events on its stream.
#pragma once

#include <cstdint>

#include "kernels/backend.h"

namespace gdn::bench {

// A step of hidden states from pinned memory to pinned memory, as the backend enqueues it, its
// weights and states not in cache; µs, the median of many. It is enqueued whole before it begins:
// the host's time is no part of it.
struct DeviceTime {
  double step = 0;     // from the start of its first copy-in to the end of its last copy-out
  double kernels = 0;  // between the copies; those of a small step copy by themselves
};

// `rows` rows of `tokens` together, the first slots of the shape, on a stream of its own.
DeviceTime TimeOnDevice(const BackendShape& shape, const LayerWeights& weights, int64_t rows,
                        int64_t tokens, int runs);

}  // namespace gdn::bench
