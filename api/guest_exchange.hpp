// The way to a guest's agent, on the API server's thread.
#pragma once

#include <boost/asio/io_context.hpp>
#include <memory>

#include "api/routes.hpp"

namespace coppice {

class reply_gate;

// Callable from any thread. `context` is used by way of `gate` only; exchanges end with the context.
guest_exchange make_guest_exchange(boost::asio::io_context& context, std::shared_ptr<reply_gate> gate);

}  // namespace coppice
