// What is fuzzed. Each target takes any bytes and fails, as a GoogleTest expectation does, where
// something does not hold that must. Files that once found something, or reach something rare, are
// in corpus/<target>/.
#pragma once

#include <string_view>

namespace gdn::test {

// The first byte chooses the message and how it is cut, the rest is the message: our parser and the
// generated one take the same messages and read the same from them.
void FuzzCodec(std::string_view bytes);

// The bytes decide what steps, calls, cancels and turns an engine sees, and what time it is: every
// answer is the contract's, and at the end everything is answered.
void FuzzCalls(std::string_view bytes);

}  // namespace gdn::test
