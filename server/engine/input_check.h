// The check for NaN and infinity of a step that will run in pieces: a row's whole input is looked
// at before the first of its pieces writes state. (A step in one piece is checked by the backend,
// at copy-in.)
#pragma once

#include <cstdint>
#include <vector>

#include "kernels/layout.h"
#include "server/wire/step.h"

namespace gdn {

// The rows, padding apart, with NaN or infinity anywhere in their input, ascending.
std::vector<uint32_t> NonFiniteRows(const StepRequest& request,
                                    const std::vector<InputTensor>& tensors);

}  // namespace gdn
