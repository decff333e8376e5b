#include "server/api_server.h"

#include "server/api_core.h"

#include <utility>

namespace wideep::server {

ApiServer::ApiServer(ApiServerParts parts, ApiServerOptions options)
    : core_(std::make_shared<Core>(std::move(parts), std::move(options))) {
  core_->add_routes();
}

ApiServer::~ApiServer() {
  core_->close();
}

Result<net::Address> ApiServer::listen(const net::Address& address,
                                       const net::ListenOptions& options) {
  return core_->http().listen(address, options);
}

Result<net::Address> ApiServer::listen_metrics(const net::Address& address) {
  return core_->metrics_http().listen(address);
}

void ApiServer::on_step(const engine::EngineStats& stats) {
  core_->on_step(stats);
}

void ApiServer::drain_and_wait(Duration timeout) {
  core_->drain_and_wait(timeout);
}

}  // namespace wideep::server
