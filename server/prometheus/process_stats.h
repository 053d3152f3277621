// What the operating system says of this process.
#pragma once

namespace gdn {

struct ProcessStats {
  double resident_bytes = 0;
  double cpu_seconds = 0;  // of all threads, since the start
  double open_files = 0;
};

ProcessStats ReadProcessStats();

}  // namespace gdn
