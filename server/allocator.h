// What the programs that serve allocate with: tcmalloc, but under a sanitizer, since a call's
// memory is taken by one thread and given back by another, and large blocks come and go with each
// message.
#pragma once

namespace gdn {

// Bounds what the threads' caches keep together: left alone they grow for hours, and the process
// would seem to leak. Call it first in main.
void TuneAllocator();

}  // namespace gdn
