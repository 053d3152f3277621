#include "server/checkpoint/json.h"

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "nlohmann/json.hpp"

namespace gdn {

std::string Printable(absl::string_view text) {
  constexpr size_t kMost = 200;
  return absl::StrCat(absl::CHexEscape(text.substr(0, kMost)), text.size() > kMost ? "..." : "");
}

std::string Describe(const nlohmann::json* value) {
  if (value == nullptr) return "nothing";
  // dump() recurses: never into what a file can nest as deeply as it likes.
  if (value->is_structured()) return absl::StrCat("an ", value->type_name());
  if (value->is_string()) return absl::StrCat("\"", Printable(value->get<std::string>()), "\"");
  return value->dump();
}

}  // namespace gdn
