// TLS of the server.
#pragma once

#include <boost/asio/generic/stream_protocol.hpp>
#include <boost/asio/ssl.hpp>
#include <boost/beast/core.hpp>
#include <memory>
#include <string>

#include "base/result.hpp"
#include "base/tls_files.hpp"

namespace coppice {

// TCP or unix sockets, with deadlines.
using plain_stream = boost::beast::basic_stream<boost::asio::generic::stream_protocol>;
using tls_stream = boost::asio::ssl::stream<plain_stream&>;
using tls_context = boost::asio::ssl::context;

// TLS 1.2 or later. With a CA, clients without a certificate of it are refused. Errors: invalid_argument (which file).
result<std::shared_ptr<tls_context>> server_tls(const tls_files& files);

// Common name of the peer's certificate; empty if it showed none.
std::string peer_common_name(tls_stream& stream);

}  // namespace coppice
