#include "epp/scraper.h"

#include "base/log.h"
#include "epp/metrics_text.h"

#include <atomic>
#include <unordered_set>
#include <vector>

namespace wideep::epp {

class Scraper::Core : public std::enable_shared_from_this<Core> {
 public:
  Core(net::EventLoop& loop,
       http::Client& client,
       EndpointPicker& picker,
       ScraperOptions options,
       const Clock& clock)
      : loop_(loop),
        client_(client),
        picker_(picker),
        options_(std::move(options)),
        clock_(clock) {}

  void tick() {
    if (stopped_) return;
    picker_.set_metrics(fresh_);
    fresh_.clear();
    for (const Endpoint& endpoint : picker_.snapshot()->endpoints) {
      if (under_way_.insert(endpoint.id).second) scrape(endpoint);
    }
    loop_.post_after(options_.interval, [self = shared_from_this()] { self->tick(); });
  }

  void stop() { stopped_ = true; }

  int64_t num_errors() const { return num_errors_.load(std::memory_order_relaxed); }

 private:
  struct Answer {
    int status = 0;
    std::string body;
  };

  void scrape(const Endpoint& endpoint) {
    http::Call call;
    call.address = endpoint.address;
    call.target = options_.path;
    call.connect_timeout = options_.timeout;
    call.head_timeout = options_.timeout;
    call.idle_timeout = options_.timeout;
    call.total_timeout = options_.timeout;
    auto answer = std::make_shared<Answer>();  // shared by the callbacks of one call
    const std::string* engine = endpoint.label(kEngineLabel);
    client_.start(
        std::move(call),
        {.on_head = [answer](const http::ResponseHead& head) { answer->status = head.status; },
         .on_body =
             [answer,
              limit = static_cast<size_t>(options_.body_bytes_max)](std::string_view bytes) {
               if (answer->body.size() + bytes.size() <= limit) answer->body += bytes;
             },
         .on_done =
             [self = shared_from_this(), answer, id = endpoint.id, name = endpoint.name,
              engine = engine != nullptr ? *engine : ""](const http::CallResult& result) {
               self->take(id, name, engine, result.has_value(), *answer);
             }});
  }

  void take(int32_t id,
            const std::string& name,
            const std::string& engine,
            bool complete,
            const Answer& answer) {
    under_way_.erase(id);
    if (stopped_) return;
    EndpointMetrics metrics;
    metrics.updated = clock_.now();
    if (complete && answer.status == 200 && parse_metrics_text(answer.body, engine, &metrics)) {
      failing_.erase(id);
      fresh_.emplace_back(id, metrics);
      return;
    }
    num_errors_.fetch_add(1, std::memory_order_relaxed);
    if (failing_.insert(id).second) log_warning("{}: no metrics from {}", name, options_.path);
  }

  net::EventLoop& loop_;
  http::Client& client_;
  EndpointPicker& picker_;
  const ScraperOptions options_;
  const Clock& clock_;
  std::vector<std::pair<int32_t, EndpointMetrics>> fresh_;
  std::unordered_set<int32_t> under_way_;
  std::unordered_set<int32_t> failing_;  // logged once, until they answer again
  std::atomic<int64_t> num_errors_{0};
  bool stopped_ = false;
};

Scraper::Scraper(net::EventLoop& loop,
                 http::Client& client,
                 EndpointPicker& picker,
                 ScraperOptions options,
                 const Clock& clock)
    : core_(std::make_shared<Core>(loop, client, picker, std::move(options), clock)) {
  loop.post([core = core_] { core->tick(); });
}

Scraper::~Scraper() {
  core_->stop();
}

int64_t Scraper::num_errors() const {
  return core_->num_errors();
}

}  // namespace wideep::epp
