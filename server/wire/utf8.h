#pragma once

#include <string_view>

namespace gdn {

// Whether `text` is UTF-8 as RFC 3629 has it: no overlong forms, no surrogates, nothing beyond
// U+10FFFF. The rule that protobuf holds its strings to.
bool IsUtf8(std::string_view text);

// The longest beginning of `text` of at most `size` bytes that splits no character.
std::string_view Utf8Prefix(std::string_view text, size_t size);

}  // namespace gdn
