#include "server/log.h"

#include "spdlog/sinks/stdout_sinks.h"
#include "spdlog/spdlog.h"

namespace gdn {
namespace {

spdlog::logger& Logger() {
  static spdlog::logger* logger = [] {
    auto made = spdlog::stderr_logger_mt("gdn");
    made->set_pattern(R"({"time":"%Y-%m-%dT%H:%M:%S.%e%z","level":"%l",%v})");
    return made.get();
  }();
  return *logger;
}

spdlog::level::level_enum ToSpdlog(LogLevel level) {
  switch (level) {
    case LogLevel::kDebug:
      return spdlog::level::debug;
    case LogLevel::kInfo:
      return spdlog::level::info;
    case LogLevel::kWarn:
      return spdlog::level::warn;
    case LogLevel::kError:
      return spdlog::level::err;
  }
  return spdlog::level::info;
}

// Bytes that are not UTF-8 are replaced: a log line never throws.
std::string Dump(const nlohmann::json& value) {
  return value.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
}

}  // namespace

void SetLogLevel(const std::string& level) { Logger().set_level(spdlog::level::from_str(level)); }

void Log(LogLevel level, std::string_view event,
         std::initializer_list<std::pair<std::string_view, nlohmann::json>> fields) {
  std::string text = "\"event\":" + Dump(event);
  for (const auto& [name, value] : fields) text += "," + Dump(name) + ":" + Dump(value);
  Logger().log(ToSpdlog(level), text);
}

}  // namespace gdn
