// What a benchmark prints: one line a case.
#pragma once

#include <cstdio>
#include <string>
#include <utility>

namespace gdn::bench {

struct Result {
  static constexpr double kUnchecked = -1;

  double micros = 0;
  double bytes = 0;                  // read and written, where memory bounds the case; else 0
  double output_error = kUnchecked;  // relative RMS against the reference
  double state_error = kUnchecked;
  double ratio = 0;  // to the rows that the name's own follow, where there are such
};

class Report {
 public:
  // Cases whose name contains `filter` run. `copy` is the bandwidth that ratios refer to, in GB/s.
  Report(std::string filter, bool quick, double copy)
      : filter_(std::move(filter)), quick_(quick), copy_(copy) {
    std::printf("device copy %.0f GB/s\n%-40s %10s %7s %8s %9s %9s\n", copy_, "case", "us", "GB/s",
                "of copy", "error o", "state");
  }

  bool quick() const { return quick_; }

  bool Wants(const std::string& name) const { return name.find(filter_) != std::string::npos; }

  void Line(const std::string& name, const Result& r) const {
    std::printf("%-40s %10.2f ", name.c_str(), r.micros);
    if (r.bytes > 0) {
      const double rate = r.bytes / r.micros / 1e3;
      std::printf("%7.0f %8.3f ", rate, rate / copy_);
    } else {
      std::printf("%7s %8s ", "", "");
    }
    PrintError(r.output_error);
    PrintError(r.state_error);
    if (r.ratio > 0) std::printf("%7.2f x", r.ratio);
    std::printf("\n");
    std::fflush(stdout);
  }

 private:
  static void PrintError(double error) {
    if (error == Result::kUnchecked) {
      std::printf("%9s ", "");
    } else {
      std::printf("%9.1e ", error);
    }
  }

  std::string filter_;
  bool quick_;
  double copy_;
};

}  // namespace gdn::bench
