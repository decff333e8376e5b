// KV pulls: over shared memory as a share of memcpy, over TCP (plain and TLS) as a share of a raw
// TCP stream of the same bytes. Everything runs once per round, one after the other, in one
// process; producer and consumer are threads. Checksums are part of the pull. Prints one JSON
// object (bench/rounds.h).
//
//   kv_bench [--rounds N] [--tokens N]     tokens of the prompt, R1's cache: 70,272 bytes each
#include "base/memory.h"
#include "command_line.h"
#include "fabric/stream.h"
#include "kv/kv_transfer.h"
#include "kv/test_port.h"
#include "rounds.h"

#include <fmt/format.h>

#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <thread>

namespace wideep::kv {
namespace {

constexpr int64_t kBlockTokens = 64;
constexpr std::chrono::seconds kPatience{60};

KvLayout r1_layout() {
  return {
      .groups = {
          {.name = "mla", .num_layers = 61, .token_bytes = 576 * 2, .block_tokens = kBlockTokens}}};
}

// A producer and a connection to it.
class Way {
 public:
  Way(Transport transport, bool with_key, int64_t num_blocks)
      : prefill_(r1_layout(), num_blocks), decode_(r1_layout(), num_blocks) {
    KvTransferOptions options{.produces = true,
                              .listen = {.host = "127.0.0.1", .port = 0, .path = {}}};
    if (with_key) options.key = *fabric::PresharedKey::from_secret("only for this benchmark");
    prefill_kv_ = *KvTransfer::create(prefill_, options);
    const auto blocks = prefill_.take(num_blocks);
    prefill_.fill({blocks.front()}, 1);
    for (const BlockId block : blocks) {
      std::memcpy(prefill_.pool().memory(0, block).data(),
                  prefill_.pool().memory(0, blocks.front()).data(),
                  prefill_.pool().memory(0, block).size());
    }
    const Json params = prefill_kv_->params(prefill_.lease(blocks));
    const TransferKeys keys(options.key);
    auto ticket = std::make_shared<SealedTicket>();
    ticket->text = *params.find("ticket")->as_string();
    ticket->ticket = *api::open_ticket(ticket->text, std::span(&keys.ticket(), 1));
    link_ = *KvLink::open(ticket->ticket,
                          {.engine_id = "bench",
                           .identity = decode_.kv_identity(),
                           .layout = r1_layout(),
                           .keys = keys},
                          {.use_shared_memory = transport == Transport::kSharedMemory,
                           .use_tcp = transport == Transport::kTcp});
    job_ = {.sequence = SequenceId{1},
            .ticket = std::move(ticket),
            .first_block = 0,
            .targets = decode_.take(num_blocks)};
  }

  void pull() {
    const std::atomic<bool> cancelled = false;
    const PullOutcome outcome = link_->pull(job_, decode_.pool(), cancelled);
    if (outcome.status) return;
    fmt::print(stderr, "{}\n", outcome.status.error().message);
    std::exit(1);
  }

 private:
  TestPort prefill_;
  TestPort decode_;
  std::unique_ptr<KvTransfer> prefill_kv_;
  std::unique_ptr<KvLink> link_;
  PullJob job_;
};

// The yardstick of TCP: a thread that sends the same bytes whenever it is asked with one byte.
class RawStream {
 public:
  explicit RawStream(size_t bytes) : from_(bytes), to_(bytes) {
    from_.prefault();
    to_.prefault();
    const auto listener = *fabric::listen_at({.host = "127.0.0.1", .port = 0, .path = {}});
    const auto address = *fabric::local_address(listener.get(), {.host = "127.0.0.1"});
    const TimePoint deadline = real_clock().now() + kPatience;
    auto near = *fabric::connect_to(address, deadline);
    auto far = *fabric::accept_call(listener.get(), deadline);
    static_cast<void>(fabric::prepare_socket(near.get(), {}));
    static_cast<void>(fabric::prepare_socket(far.get(), {}));
    near_ = fabric::plain_stream(std::move(near));
    far_ = fabric::plain_stream(std::move(far));
    sender_ = std::thread([this] { send(); });
  }

  ~RawStream() {
    near_.reset();
    sender_.join();
  }

  void receive() {
    const std::byte ask{1};
    const TimePoint deadline = real_clock().now() + kPatience;
    if (!fabric::write_all(*near_, std::span(&ask, 1), deadline) ||
        !fabric::read_all(*near_, to_.bytes(), deadline))
      std::exit(1);
  }

  void copy() { std::memcpy(to_.data(), from_.data(), from_.size()); }

 private:
  void send() {
    std::byte asked{};
    while (fabric::read_all(*far_, std::span(&asked, 1), real_clock().now() + kPatience))
      if (!fabric::write_all(*far_, from_.bytes(), real_clock().now() + kPatience)) return;
  }

  AlignedBuffer from_;
  AlignedBuffer to_;
  std::unique_ptr<fabric::Stream> near_;
  std::unique_ptr<fabric::Stream> far_;
  std::thread sender_;
};

void run(int rounds, int64_t tokens) {
  const int64_t num_blocks = (tokens + kBlockTokens - 1) / kBlockTokens;
  const auto bytes = static_cast<size_t>(num_blocks * kBlockTokens * r1_layout().token_bytes());
  RawStream raw(bytes);
  Way shm(Transport::kSharedMemory, false, num_blocks);
  Way tcp(Transport::kTcp, false, num_blocks);
  Way tls(Transport::kTcp, true, num_blocks);
  const auto work = static_cast<double>(bytes);
  std::vector<bench::Case> cases{
      {.name = "memcpy", .work = work, .unit = "GB/s", .run = [&] { raw.copy(); }},
      {.name = "pull_shm",
       .work = work,
       .unit = "GB/s",
       .yardstick = "memcpy",
       .run = [&] { shm.pull(); }},
      {.name = "raw_tcp", .work = work, .unit = "GB/s", .run = [&] { raw.receive(); }},
      {.name = "pull_tcp",
       .work = work,
       .unit = "GB/s",
       .yardstick = "raw_tcp",
       .run = [&] { tcp.pull(); }},
      {.name = "pull_tls", .work = work, .unit = "GB/s", .yardstick = "raw_tcp", .run = [&] {
         tls.pull();
       }}};
  bench::run_rounds(cases, rounds);
  fmt::print("{}\n", bench::to_json(cases, fmt::format("{} tokens, {} bytes", tokens, bytes)));
}

}  // namespace
}  // namespace wideep::kv

int main(int argc, char** argv) {
  int32_t rounds = 9;
  int64_t tokens = 2048;
  wideep::bench::CommandLine command("kv_bench", "How fast KV moves from rank to rank.");
  command.add_rounds(&rounds);
  command.add("--tokens", &tokens, {.group = "Shape", .help = "Tokens of the prompt."});
  if (const auto status = command.parse(argc, argv)) return *status;
  wideep::kv::run(rounds, tokens);
  return 0;
}
