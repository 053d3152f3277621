// gdn-ctl: looks at a GDN layer server and ends its sequences.
#include <iostream>

#include "client/cpp/ctl.h"

int main(int argc, char** argv) {
  return gdn::client::RunCtl({argv + 1, argv + argc}, std::cout, std::cerr);
}
