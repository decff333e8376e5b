// One completion request of a client, from submission to the last byte: all its choices, streamed
// or whole.
#pragma once

#include "api/responses.h"
#include "base/clock.h"
#include "engine/engine.h"
#include "http/responder.h"
#include "kv/kv_transfer.h"
#include "server/choice.h"
#include "server/engine_request.h"
#include "server/event_mailbox.h"
#include "server/queue_estimate.h"
#include "server/server_metrics.h"

#include <chrono>
#include <memory>
#include <optional>
#include <string>
#include <vector>

namespace wideep::server {

// What calls borrow from their server, which outlives them.
struct CallContext {
  engine::Engine& engine;
  ServerMetrics& metrics;
  QueueEstimate& queue;
  const Clock& clock;
  std::shared_ptr<EventMailbox> mailbox;  // shared with the engine's sinks
  const kv::KvTransfer* kv = nullptr;
  std::chrono::milliseconds ping_interval{};
};

// A request that is ready to run.
struct PlannedChoice {
  engine::Request request;
  ChoiceOptions options;
  bool counts_prompt = true;  // the first choice of each prompt
};

struct CallPlan {
  Endpoint endpoint = Endpoint::kChat;
  api::AnswerHead head;
  http::Headers headers;  // of every answer: x-request-id
  bool stream = false;
  bool include_usage = false;
  bool continuous_usage = false;
  bool count_reasoning = false;
  int64_t n = 1;
  TimePoint arrival{};
  std::vector<PlannedChoice> choices;
};

// An error as HTTP answers it.
http::Response error_response(const api::ApiError& error, http::Headers headers = {});

// Thread: the loop's.
class GenerationCall : public EventReceiver, public std::enable_shared_from_this<GenerationCall> {
 public:
  GenerationCall(CallContext& context,
                 const tokenizer::Tokenizer& tokenizer,
                 CallPlan plan,
                 http::Responder responder);

  // Submits every choice; what the engine refuses is answered at once.
  void start();
  void on_event(size_t choice_index, const engine::RequestEvent& event) override;

 private:
  struct Running {
    std::optional<SequenceId> sequence;
    Choice choice;
    TokenTimes times;
    int64_t max_tokens = 0;
    bool opened = false;
    bool counts_prompt = true;
    api::ChoicePart whole;  // while not streaming
  };

  void stream_part(Running& running, const api::ChoicePart& part);
  void record(Running& running, const engine::RequestEvent& event);
  void answer_whole();
  void finish_stream();
  // What a client hears whom the engine refuses.
  api::ApiError refusal(const Error& reason) const;
  void fail(const api::ApiError& error);
  // Cancels what still runs; events that come later are ignored.
  void end();
  // Of the KV that a choice has left here nobody will hear.
  void let_kv_go();
  // Writes to the stream; a client that is too slow ends the call.
  void write(std::string_view bytes);

  api::AnswerTail tail() const;
  api::Usage usage() const;
  static api::Usage usage_of(const Running& running);

  CallContext& context_;
  CallPlan plan_;
  http::Responder responder_;
  const api::ChunkEncoder encoder_;
  std::vector<Running> running_;
  size_t num_unfinished_ = 0;
  std::shared_ptr<const api::KvTicket> kv_ticket_;  // to pull the prompt's KV with
  bool ended_ = false;
};

}  // namespace wideep::server
