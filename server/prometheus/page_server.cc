#include "server/prometheus/page_server.h"

#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/beast/core/flat_static_buffer.hpp>
#include <boost/beast/core/tcp_stream.hpp>
#include <boost/beast/http.hpp>
#include <exception>
#include <list>
#include <optional>
#include <string_view>
#include <thread>
#include <utility>

namespace gdn {
namespace {

namespace asio = boost::asio;
namespace beast = boost::beast;
namespace http = boost::beast::http;
using asio::ip::tcp;
using boost::system::error_code;
using Request = http::request<http::empty_body>;
using Response = http::response<http::string_body>;

constexpr size_t kLongestHeader = 8 << 10;
constexpr std::chrono::milliseconds kPauseWithoutFiles{100};

Response Respond(http::status status, const std::string& type, std::string text) {
  Response response(status, /*version=*/11, std::move(text));
  response.set(http::field::content_type, type);
  response.keep_alive(false);
  response.prepare_payload();
  return response;
}

Response Answer(const Request& request, const Page& page) try {
  const std::string_view target(request.target().data(), request.target().size());
  if (target.substr(0, target.find('?')) != page.path) {
    return Respond(http::status::not_found, "text/plain", "only " + page.path + " is here\n");
  }
  if (request.method() != http::verb::get) {
    Response response = Respond(http::status::method_not_allowed, "text/plain", "only GET\n");
    response.set(http::field::allow, "GET");
    return response;
  }
  return Respond(http::status::ok, page.content_type, page.text());
} catch (const std::exception& error) {
  return Respond(http::status::internal_server_error, "text/plain", error.what());
}

// Accepts, reads, answers and closes, one connection after the other.
class Lane {
 public:
  Lane(tcp::acceptor* acceptor, const Page* page, std::chrono::milliseconds patience)
      : acceptor_(*acceptor), page_(*page), patience_(patience), pause_(acceptor->get_executor()) {
    Accept();
  }

 private:
  void Accept() {
    stream_.reset();
    acceptor_.async_accept([this](error_code error, tcp::socket socket) {
      if (error) return Pause();
      stream_.emplace(std::move(socket));
      Read();
    });
  }

  // There was no file descriptor, most likely: accepting again at once would spin.
  void Pause() {
    pause_.expires_after(kPauseWithoutFiles);
    pause_.async_wait([this](error_code) { Accept(); });
  }

  // A body is not read.
  void Read() {
    parser_.emplace();
    buffer_.clear();
    stream_->expires_after(patience_);  // for the answer as well
    http::async_read_header(*stream_, buffer_, *parser_,
                            [this](error_code error, size_t) { error ? Accept() : Write(); });
  }

  void Write() {
    response_ = Answer(parser_->get(), page_);
    http::async_write(*stream_, response_, [this](error_code, size_t) { Accept(); });
  }

  tcp::acceptor& acceptor_;
  const Page& page_;
  const std::chrono::milliseconds patience_;
  asio::steady_timer pause_;
  std::optional<beast::tcp_stream> stream_;
  beast::flat_static_buffer<kLongestHeader> buffer_;
  std::optional<http::request_parser<http::empty_body>> parser_;
  Response response_;
};

}  // namespace

class PageServer::Impl {
 public:
  Impl(Listener listener, Page page, std::chrono::milliseconds patience) : page_(std::move(page)) {
    for (FileDescriptor& socket : listener.sockets) {
      // A socket that exists is not asked for its protocol: v4 stands for both.
      tcp::acceptor& acceptor = acceptors_.emplace_back(io_, tcp::v4(), socket.release());
      for (int i = 0; i < kConnections; ++i) lanes_.emplace_back(&acceptor, &page_, patience);
    }
    thread_ = std::thread([this] { io_.run(); });
  }
  ~Impl() {
    io_.stop();
    thread_.join();
  }

 private:
  const Page page_;
  asio::io_context io_;
  std::list<tcp::acceptor> acceptors_;
  std::list<Lane> lanes_;
  std::thread thread_;
};

PageServer::PageServer(Listener listener, Page page, std::chrono::milliseconds patience)
    : impl_(std::make_unique<Impl>(std::move(listener), std::move(page), patience)) {}

PageServer::~PageServer() = default;

}  // namespace gdn
