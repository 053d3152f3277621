// Times the CUDA kernels alone: decode, prefill, what surrounds it, whole layers. Every figure is
// the time of one call inside a CUDA graph of many calls, the median of 15 replays; the calls
// rotate over inputs and state slots that exceed the L2 cache by far. What is timed is checked
// before, against plain device code in double; the check for NaN and infinity is inside what is
// timed.
//
//   cuda_bench [--filter=SUBSTRING] [--quick]
//
// --filter runs the cases whose name contains it, --quick only the main ones.
#include <cstdio>
#include <string>
#include <string_view>

#include "tests/bench/cuda/cases.h"
#include "tests/bench/cuda/device.h"

int main(int argc, char** argv) {
  constexpr std::string_view kFilter = "--filter=";
  std::string filter;
  bool quick = false;
  for (int i = 1; i < argc; ++i) {
    const std::string_view argument = argv[i];
    if (argument == "--quick") {
      quick = true;
    } else if (argument.substr(0, kFilter.size()) == kFilter) {
      filter = argument.substr(kFilter.size());
    } else {
      std::fprintf(stderr, "usage: %s [--filter=SUBSTRING] [--quick]\n", argv[0]);
      return 2;
    }
  }
  int devices = 0;
  if (cudaGetDeviceCount(&devices) != cudaSuccess || devices == 0) {
    std::printf("no CUDA device: nothing to measure\n");
    return 0;
  }
  cudaDeviceProp device;
  gdn::bench::Check(cudaGetDeviceProperties(&device, 0), "device");
  std::printf("%s, ", device.name);
  const gdn::bench::Report report(filter, quick, gdn::bench::CopyBandwidth());
  gdn::bench::DecodeCases(report);
  gdn::bench::PrefillCases(report);
  gdn::bench::CoreToNormedCases(report);
  gdn::bench::PointwiseCases(report);
  gdn::bench::LayerCases(report);
  return 0;
}
