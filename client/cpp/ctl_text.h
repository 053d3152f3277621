// How gdn-ctl writes: tables, numbers, JSON.
#pragma once

#include <google/protobuf/message.h>

#include <ostream>
#include <string>
#include <vector>

namespace gdn::client {

using Table = std::vector<std::vector<std::string>>;

// Columns as wide as their widest cell, two spaces between them.
void Print(const Table& table, std::ostream& out);

// Field names as in the proto, every field, integers of 64 bits as strings.
std::string ToJson(const google::protobuf::Message& message);

// "45s", "3m12s", "2h05m"; "0s" where it is negative.
std::string ShortDuration(double seconds);
// With `digits` behind the point.
std::string Fixed(double value, int digits);

}  // namespace gdn::client
