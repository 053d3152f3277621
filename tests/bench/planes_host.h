// The process that is called: the service over a backend and the echo beside it.
#pragma once

#include "kernels/backend.h"
#include "tests/bench/planes_board.h"
#include "tests/bench/planes_server.h"

namespace gdn {

// Serves, with addresses on the board, from when it has written a byte to `line` until its other
// end is closed. The backend of the service is the CUDA one with `device`, or copies alone; without
// a GPU the first returns at once.
int RunHost(const BackendShape& shape, bool device, Board* board, int line);

}  // namespace gdn
