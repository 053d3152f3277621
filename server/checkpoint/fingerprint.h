// A digest of a model's GDN weights, to tell servers apart whose states must not be exchanged.
#pragma once

#include <span>
#include <string>

#include "absl/status/statusor.h"
#include "kernels/geometry.h"
#include "server/checkpoint/gdn_tensors.h"

namespace gdn {

// 16 hexadecimal digits from the geometry, layer numbers and every tensor's type, shape and
// content. Of tensors over 64 KiB only 16 blocks of 4 KiB are read, evenly spaced from the first
// byte to the last. Names and places of files do not count. numbers and layers have the same size.
absl::StatusOr<std::string> Fingerprint(const Geometry& g, std::span<const int> numbers,
                                        std::span<const LayerTensors> layers);

}  // namespace gdn
