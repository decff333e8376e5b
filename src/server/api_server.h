// The OpenAI API in front of one engine.
//
//   POST /v1/chat/completions   POST /v1/completions   GET /v1/models   GET /v1/models/{id}
//   POST /tokenize   POST /detokenize
//   GET /health /ready /live /ping /version /load /metrics /expert_load
//
// A request is parsed, rendered and tokenised on a worker thread, submitted to the engine, and
// answered on the event loop as the engine's events come. Keys guard every path but /health,
// /ready, /live, /ping and /version.
//
// Ownership: borrows everything it is given; the engine may outlive it, and is told to cancel what
// runs. Thread: any.
#pragma once

#include "engine/engine.h"
#include "http/server.h"
#include "kv/kv_transfer.h"
#include "net/event_loop.h"
#include "server/server_options.h"
#include "tokenizer/tokenizer.h"

#include <memory>

namespace wideep::server {

struct ApiServerParts {
  net::EventLoop& loop;
  engine::Engine& engine;
  const tokenizer::Tokenizer& tokenizer;
  ChatRenderer renderer;  // empty: the model has no chat template
  const Clock& clock;
  kv::KvTransfer* kv = nullptr;  // null: requests with kv_transfer_params are refused
};

class ApiServer {
 public:
  ApiServer(ApiServerParts parts, ApiServerOptions options);
  ~ApiServer();
  ApiServer(const ApiServer&) = delete;
  ApiServer& operator=(const ApiServer&) = delete;

  Result<net::Address> listen(const net::Address& address, const net::ListenOptions& options = {});
  // An address for /metrics and the health routes alone, without keys.
  Result<net::Address> listen_metrics(const net::Address& address);

  // For EngineLoopOptions::on_step.
  void on_step(const engine::EngineStats& stats);

  // Takes no new requests (503, /ready says so) and lets those under way end; then closes its
  // address, and cuts what is not done after `timeout`. Not from the loop's thread.
  void drain_and_wait(Duration timeout);

 private:
  class Core;
  std::shared_ptr<Core> core_;  // shared with tasks under way
};

}  // namespace wideep::server
