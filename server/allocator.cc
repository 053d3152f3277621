#include "server/allocator.h"

#ifdef GDN_HAVE_TCMALLOC
#include <gperftools/malloc_extension.h>
#endif

namespace gdn {

void TuneAllocator() {
#ifdef GDN_HAVE_TCMALLOC
  constexpr size_t kThreadCaches = 4 << 20;
  MallocExtension::instance()->SetNumericProperty("tcmalloc.max_total_thread_cache_bytes",
                                                  kThreadCaches);
#endif
}

}  // namespace gdn
