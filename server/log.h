// Structured logs: one JSON object a line on standard error.
#pragma once

#include <initializer_list>
#include <string>
#include <string_view>
#include <utility>

#include "nlohmann/json.hpp"

namespace gdn {

enum class LogLevel { kDebug, kInfo, kWarn, kError };

// "debug", "info", "warn" or "error"; what is below is not written.
void SetLogLevel(const std::string& level);

// {"time": …, "level": …, "event": event, and the fields}. From any thread.
void Log(LogLevel level, std::string_view event,
         std::initializer_list<std::pair<std::string_view, nlohmann::json>> fields = {});

}  // namespace gdn
