#include "client/cpp/http_get.h"

#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/beast/core/flat_buffer.hpp>
#include <boost/beast/core/tcp_stream.hpp>
#include <boost/beast/http.hpp>
#include <utility>

namespace gdn::client {
namespace {

namespace asio = boost::asio;
namespace beast = boost::beast;
namespace http = boost::beast::http;
using asio::ip::tcp;
using boost::system::error_code;
using Request = http::request<http::empty_body>;
using Response = http::response<http::string_body>;

struct HostAndPort {
  std::string host;  // without brackets
  std::string port;
};

// Empty ones where there is no colon.
HostAndPort Split(const std::string& address) {
  const size_t colon = address.rfind(':');
  if (colon == address.npos) return {};
  HostAndPort split = {address.substr(0, colon), address.substr(colon + 1)};
  if (split.host.starts_with('[') && split.host.ends_with(']')) {
    split.host = split.host.substr(1, split.host.size() - 2);
  }
  return split;
}

// A connection on which each step has ended when its function returns.
class Connection {
 public:
  // Of all steps together.
  explicit Connection(std::chrono::milliseconds patience) { stream_.expires_after(patience); }

  error_code Connect(const HostAndPort& to) {
    error_code error;
    const auto found = tcp::resolver(io_).resolve(to.host, to.port, error);
    if (error) return error;
    stream_.async_connect(found, [&](error_code e, const tcp::endpoint&) { error = e; });
    io_.run();
    return error;
  }

  error_code Exchange(const Request& request, Response* response) {
    error_code error;
    beast::flat_buffer buffer;
    http::async_write(stream_, request, [&](error_code e, size_t) {
      if (e) return void(error = e);
      http::async_read(stream_, buffer, *response, [&](error_code got, size_t) { error = got; });
    });
    io_.restart();
    io_.run();
    return error;
  }

 private:
  asio::io_context io_;
  beast::tcp_stream stream_{io_};
};

}  // namespace

bool HttpGet(const std::string& address, const std::string& path,
             std::chrono::milliseconds patience, std::string* body, std::string* why) {
  const auto fail = [&](const std::string& what) { return *why = address + ": " + what, false; };
  const HostAndPort to = Split(address);
  if (to.host.empty() || to.port.empty()) return fail("expected host:port");
  Connection connection(patience);
  if (error_code error = connection.Connect(to)) return fail(error.message());

  Request request(http::verb::get, path, /*version=*/11);
  request.set(http::field::host, address);
  request.keep_alive(false);
  Response response;
  if (error_code error = connection.Exchange(request, &response)) return fail(error.message());
  if (response.result() != http::status::ok) {
    return fail("HTTP " + std::to_string(response.result_int()));
  }
  *body = std::move(response.body());
  return true;
}

}  // namespace gdn::client
