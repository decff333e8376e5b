#include "cmd/local_server.h"

#include "cmd/listen_options.h"
#include "cmd/rank_server.h"

namespace wideep::cmd {
namespace {

class Local final : public LocalServer {
 public:
  ~Local() override {
    if (rank_ != nullptr) rank_->api().drain_and_wait(std::chrono::seconds(5));
  }

  Status load(const std::string& model_path) {
    RankServerOptions options;
    options.engine.model_path = model_path;
    WD_ASSIGN_OR_RETURN(rank_, RankServer::create(thread_.loop(), std::move(options), nullptr));
    WD_ASSIGN_OR_RETURN(const net::Address address,
                        rank_->api().listen({.host = "127.0.0.1", .port = 0, .path = {}}));
    url_ = url_of(address);
    return {};
  }

  std::string url() const override { return url_; }

 private:
  net::LoopThread thread_;
  std::unique_ptr<RankServer> rank_;
  std::string url_;
};

}  // namespace

Result<std::unique_ptr<LocalServer>> LocalServer::start(const std::string& model_path) {
  auto local = std::make_unique<Local>();
  WD_TRY(local->load(model_path));
  return local;
}

}  // namespace wideep::cmd
