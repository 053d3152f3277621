#include "tests/bench/planes_host.h"

#include <unistd.h>

#include <memory>
#include <string>
#include <utility>

#include "server/allocator.h"
#include "tests/bench/planes_device.h"
#include "tests/bench/planes_echo.h"
#include "tests/testing/null_backend.h"

namespace gdn {
namespace {

void Serve(const BackendShape& shape, PlanesBackend made, Board* board, int line) {
  const std::string prefix = "unix:/tmp/gdn_planes_bench_" + std::to_string(getpid());
  const PlanesServer server({prefix + "_service", "127.0.0.1:0"}, shape, std::move(made),
                            &board->backend_us);
  const Echo echo(prefix + "_echo", &board->echo_late_ns);
  Write(prefix + "_echo", &board->echo);
  Write(echo.tcp_address(), &board->echo_tcp);
  Write(server.addresses().front(), &board->service);
  Write(server.addresses().back(), &board->service_tcp);
  char byte = 0;
  if (write(line, &byte, 1) == 1) static_cast<void>(read(line, &byte, 1));
}

}  // namespace

int RunHost(const BackendShape& shape, bool device, Board* board, int line) {
  TuneAllocator();
  TuneProcess();
  if (!device) {
    PlanesBackend made;
    made.backend = std::make_unique<NullBackend>(shape);
    Serve(shape, std::move(made), board, line);
  } else if (HaveDevice()) {
    const PlanesDevice measured(shape);
    board->one = measured.TimeStep(1, 1);
    board->some = measured.TimeStep(kSomeRows, kSomeRows);
    board->most = measured.TimeStep(kMostRows, kMostRows);
    board->prompt = measured.TimeStep(1, kPrompt);
    Serve(shape, measured.MakeBackend(), board, line);
  }
  return 0;
}

}  // namespace gdn
