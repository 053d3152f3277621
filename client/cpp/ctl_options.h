// The command line of gdn-ctl.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "client/cpp/client.h"

namespace gdn::client {

extern const std::string_view kCtlUsage;

struct CtlOptions {
  std::string target = "127.0.0.1:50051";
  std::string token_file;
  std::optional<Tls> tls;
  bool json = false;
  std::string command;
  std::vector<std::string> words;  // after the command

  std::string sort = "slot";  // ls: slot, age, lease

  std::string metrics = "127.0.0.1:9464";  // top
  double interval = 1;                     // seconds
  int iterations = 0;                      // 0: until it is ended

  double seconds = 5;  // bench, of each load
  int concurrency = 4;
  int rows = 1;
  int tokens = 256;  // of a prefill's row
};

// Flags may stand anywhere. Nothing where the command line is wrong.
std::optional<CtlOptions> ParseCtl(const std::vector<std::string>& arguments);

}  // namespace gdn::client
