// What the parsers of JSON files share.
#pragma once

#include <string>

#include "absl/strings/string_view.h"
#include "nlohmann/json_fwd.hpp"

namespace gdn {

// For messages: short, printable and on one line, whatever the text holds.
std::string Printable(absl::string_view text);

// A value for messages: itself where it is plain, else what it is. "nothing" for null pointers.
std::string Describe(const nlohmann::json* value);

}  // namespace gdn
