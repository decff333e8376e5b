// An engine rank with the OpenAI API in front of it: what `wideep serve` runs, and chat and bench
// quality in process.
#pragma once

#include "base/result.h"
#include "cmd/engine_host.h"
#include "kv/kv_transfer.h"
#include "net/event_loop.h"
#include "server/api_server.h"

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

namespace wideep::cmd {

struct RankServerOptions {
  EngineHostOptions engine;
  server::ApiServerOptions api;
  std::string chat_template_file;     // "": the model's own
  bool use_generation_config = true;  // of the model, as defaults of requests
  std::optional<kv::KvTransferOptions> kv;
};

class RankServer {
 public:
  // Loads the model and the tokenizer, then starts the engine; nothing listens before listen().
  // `on_failure` is called once, on the engine's thread, if the engine cannot go on.
  static Result<std::unique_ptr<RankServer>> create(net::EventLoop& loop,
                                                    RankServerOptions options,
                                                    std::function<void(const Error&)> on_failure);
  // Private to create().
  struct Parts;
  explicit RankServer(std::unique_ptr<Parts> parts);
  ~RankServer();

  server::ApiServer& api();
  EngineHost& host();

 private:
  std::unique_ptr<Parts> parts_;
};

}  // namespace wideep::cmd
