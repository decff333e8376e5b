#include "fabric/ucx.h"

#include "base/log.h"

#include <sched.h>
#include <ucp/api/ucp.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <cstddef>
#include <cstring>
#include <filesystem>
#include <map>
#include <mutex>
#include <set>
#include <utility>

namespace wideep::fabric {
namespace {

constexpr unsigned kBellMessage = 1;
// Where the parts of a SignalLine lie.
constexpr uint64_t kLineSeq = 8;
constexpr uint64_t kLineCount = 16;
constexpr std::chrono::seconds kCloseTimeout{1};
constexpr int kTurnsMax = 1000;  // of one progress()

std::unexpected<Error> failed(std::string_view what, ucs_status_t status) {
  return error(ErrorCode::kUnavailable, "ucx: {}: {}", what, ucs_status_string(status));
}

Status checked(std::string_view what, ucs_status_t status) {
  if (status == UCS_OK) return {};
  return failed(what, status);
}

// Transports that know no errors of peers, so that an endpoint must not ask for them.
bool is_shared_memory_only(std::string_view transports) {
  if (transports.empty()) return false;
  constexpr std::array<std::string_view, 7> kShared = {"posix", "sysv", "self",  "cma",
                                                       "sm",    "shm",  "memory"};
  while (!transports.empty()) {
    const size_t comma = std::min(transports.find(','), transports.size());
    if (std::ranges::count(kShared, transports.substr(0, comma)) == 0) return false;
    transports.remove_prefix(std::min(comma + 1, transports.size()));
  }
  return true;
}

struct FreeConfig {
  void operator()(ucp_config_t* config) const { ucp_config_release(config); }
};

// UCX without an RDMA device emulates puts, slowly, and says nothing: that must be asked for.
Status check_device(const UcxOptions& options) {
  std::error_code failure;
  const std::filesystem::directory_iterator devices("/sys/class/infiniband", failure);
  if (!options.transports.empty() || (!failure && devices != std::filesystem::end(devices)))
    return {};
  return error(ErrorCode::kUnavailable,
               "ucx: this host has no RDMA device; tcp is faster here than what UCX would do "
               "(its transports can be named, for tests)");
}

Result<ucp_context_h> open_context(const UcxOptions& options) {
  WD_TRY(check_device(options));
  ucp_config_t* read = nullptr;
  WD_TRY(checked("configuration", ucp_config_read(nullptr, nullptr, &read)));
  const std::unique_ptr<ucp_config_t, FreeConfig> config(read);
  if (!options.transports.empty())
    WD_TRY(checked("transports", ucp_config_modify(read, "TLS", options.transports.c_str())));
  if (!options.devices.empty())
    WD_TRY(checked("devices", ucp_config_modify(read, "NET_DEVICES", options.devices.c_str())));
  ucp_params_t params{};
  params.field_mask = UCP_PARAM_FIELD_FEATURES;
  params.features = UCP_FEATURE_RMA | UCP_FEATURE_AM | UCP_FEATURE_WAKEUP;
  ucp_context_h context = nullptr;
  WD_TRY(checked(fmt::format("open (transports '{}')", options.transports),
                 ucp_init(&params, read, &context)));
  return context;
}

}  // namespace

// ---- The worker.

struct UcxWorker::State {
  std::mutex mutex;  // of everything that UCX does
  ucp_context_h context = nullptr;
  ucp_worker_h worker = nullptr;
  std::vector<ucp_mem_h> registered;
  Shape shape;
  RankId rank{};
  bool has_peer_errors = true;
  std::vector<Arena> arenas;  // [num_ranks], of this node
  UcxIntroduction introduction;
  int event_fd = -1;

  ~State() {
    for (const ucp_mem_h memory : registered)
      ucp_mem_unmap(context, memory);
    if (worker != nullptr) ucp_worker_destroy(worker);
    if (context != nullptr) ucp_cleanup(context);
  }

  Status open_worker();
  Status register_arena(RankId owner, std::span<std::byte> memory);

  static ucs_status_t on_bell(void* self,
                              const void* header,
                              size_t header_bytes,
                              void* data,
                              size_t bytes,
                              const ucp_am_recv_param_t* param);
};

Status UcxWorker::State::open_worker() {
  ucp_worker_params_t params{};
  params.field_mask = UCP_WORKER_PARAM_FIELD_THREAD_MODE;
  params.thread_mode = UCS_THREAD_MODE_SERIALIZED;
  WD_TRY(checked("worker", ucp_worker_create(context, &params, &worker)));
  ucp_am_handler_param_t handler{};
  handler.field_mask = UCP_AM_HANDLER_PARAM_FIELD_ID | UCP_AM_HANDLER_PARAM_FIELD_CB |
                       UCP_AM_HANDLER_PARAM_FIELD_ARG;
  handler.id = kBellMessage;
  handler.cb = on_bell;
  handler.arg = this;
  WD_TRY(checked("bell", ucp_worker_set_am_recv_handler(worker, &handler)));
  WD_TRY(checked("events", ucp_worker_get_efd(worker, &event_fd)));
  ucp_address_t* address = nullptr;
  size_t bytes = 0;
  WD_TRY(checked("address", ucp_worker_get_address(worker, &address, &bytes)));
  const auto* begin = reinterpret_cast<const std::byte*>(address);
  introduction.address.assign(begin, begin + bytes);
  ucp_worker_release_address(worker, address);
  return {};
}

Status UcxWorker::State::register_arena(RankId owner, std::span<std::byte> memory) {
  ucp_mem_map_params_t params{};
  params.field_mask = UCP_MEM_MAP_PARAM_FIELD_ADDRESS | UCP_MEM_MAP_PARAM_FIELD_LENGTH;
  params.address = memory.data();
  params.length = memory.size();
  ucp_mem_h handle = nullptr;
  WD_TRY(checked("register an arena", ucp_mem_map(context, &params, &handle)));
  registered.push_back(handle);
  void* key = nullptr;
  size_t bytes = 0;
  WD_TRY(checked("key of an arena", ucp_rkey_pack(context, handle, &key, &bytes)));
  const auto* begin = static_cast<const std::byte*>(key);
  introduction.windows.push_back({.rank = owner,
                                  .base = reinterpret_cast<uint64_t>(memory.data()),
                                  .key = {begin, begin + bytes}});
  ucp_rkey_buffer_release(key);
  return {};
}

// Comes from outside: a bell for a rank that is not here rings for nobody.
ucs_status_t UcxWorker::State::on_bell(void* self,
                                       const void* header,
                                       size_t header_bytes,
                                       void* /*data*/,
                                       size_t /*bytes*/,
                                       const ucp_am_recv_param_t* /*param*/) {
  const auto& state = *static_cast<State*>(self);
  uint32_t to = 0;
  if (header_bytes != sizeof to) return UCS_OK;
  std::memcpy(&to, header, sizeof to);
  if (to < state.arenas.size() && state.arenas[to]) state.arenas[to].bell().ring_if_asleep();
  return UCS_OK;
}

UcxWorker::UcxWorker(Checked) : state_(std::make_unique<State>()) {}

UcxWorker::~UcxWorker() = default;

Result<std::unique_ptr<UcxWorker>> UcxWorker::create(const Shape& shape,
                                                     RankId rank,
                                                     LocalPeers& local,
                                                     const UcxOptions& options) {
  auto worker = std::make_unique<UcxWorker>(Checked{});
  State& state = *worker->state_;
  state.shape = shape;
  state.rank = rank;
  state.has_peer_errors = !is_shared_memory_only(options.transports);
  state.arenas.resize(local.peers.size());
  WD_ASSIGN_OR_RETURN(state.context, open_context(options));
  WD_TRY(state.open_worker());
  for (size_t r = 0; r < local.peers.size(); ++r) {
    LocalPeer& peer = local.peers[r];
    if (!peer.arena) continue;
    state.arenas[r] = peer.arena;
    WD_TRY(state.register_arena(RankId{static_cast<int32_t>(r)}, peer.memory->bytes()));
  }
  log_info("rank {}: ucx with transports '{}'", index(rank),
           options.transports.empty() ? "all" : options.transports);
  return worker;
}

const UcxIntroduction& UcxWorker::introduction() const {
  return state_->introduction;
}

int UcxWorker::event_fd() const {
  return state_->event_fd;
}

bool UcxWorker::progress() {
  const std::scoped_lock lock(state_->mutex);
  for (int turn = 0; turn < kTurnsMax; ++turn) {
    if (ucp_worker_progress(state_->worker) != 0) continue;
    if (ucp_worker_arm(state_->worker) != UCS_ERR_BUSY) return true;
  }
  return false;
}

void UcxWorker::try_progress() {
  const std::unique_lock lock(state_->mutex, std::try_to_lock);
  if (lock) ucp_worker_progress(state_->worker);
}

// ---- The endpoint.

struct UcxEndpoint::State {
  struct Window {
    uint64_t base = 0;
    ucp_rkey_h key = nullptr;
  };

  explicit State(UcxWorker::State& worker_in) : worker(worker_in) {}

  ~State();

  UcxWorker::State& worker;
  ucp_ep_h endpoint = nullptr;
  std::map<RankId, Window> windows;
  std::set<std::pair<RankId, ChannelId>> open_lines;  // whose epoch is written
  std::atomic<bool> has_failed{false};
  std::atomic<uint64_t> bytes_sent{0};
  std::atomic<uint64_t> puts_sent{0};

  Status open(const UcxIntroduction& introduction);

  // For the first time.
  bool opens(RankId to, ChannelId channel) {
    const std::scoped_lock lock(worker.mutex);
    return open_lines.insert({to, channel}).second;
  }

  // Drops what is on its way: UCX reads none of its memory any more. With the worker's lock.
  void close();
  // Blocks until UCX has done with the request's memory; past the deadline, or when the peer is
  // gone, by close().
  Status finish(ucs_status_ptr_t request, TimePoint deadline, std::string_view what);
  Status write(RankId to, uint64_t offset, std::span<const std::byte> bytes, TimePoint deadline);
  Status fence();
  Status ring(RankId to, TimePoint deadline);

  static void on_error(void* self, ucp_ep_h /*endpoint*/, ucs_status_t status) {
    auto& state = *static_cast<State*>(self);
    if (!state.has_failed.exchange(true))
      log_warning("ucx: an endpoint failed: {}", ucs_status_string(status));
  }
};

Status UcxEndpoint::State::open(const UcxIntroduction& introduction) {
  ucp_ep_params_t params{};
  params.field_mask = UCP_EP_PARAM_FIELD_REMOTE_ADDRESS | UCP_EP_PARAM_FIELD_ERR_HANDLING_MODE |
                      UCP_EP_PARAM_FIELD_ERR_HANDLER;
  params.address = reinterpret_cast<const ucp_address_t*>(introduction.address.data());
  params.err_mode =
      worker.has_peer_errors ? UCP_ERR_HANDLING_MODE_PEER : UCP_ERR_HANDLING_MODE_NONE;
  params.err_handler = {.cb = on_error, .arg = this};
  WD_TRY(checked("endpoint", ucp_ep_create(worker.worker, &params, &endpoint)));
  for (const UcxIntroduction::Window& window : introduction.windows) {
    Window& opened = windows[window.rank];
    opened.base = window.base;
    WD_TRY(checked("key of another node's arena",
                   ucp_ep_rkey_unpack(endpoint, window.key.data(), &opened.key)));
  }
  return {};
}

UcxEndpoint::State::~State() {
  const std::scoped_lock lock(worker.mutex);
  close();
}

void UcxEndpoint::State::close() {
  for (const auto& [rank, window] : windows)
    if (window.key != nullptr) ucp_rkey_destroy(window.key);
  windows.clear();
  if (endpoint == nullptr) return;
  ucp_request_param_t params{};
  params.op_attr_mask = UCP_OP_ATTR_FIELD_FLAGS;
  params.flags = UCP_EP_CLOSE_FLAG_FORCE;
  const ucs_status_ptr_t request = ucp_ep_close_nbx(std::exchange(endpoint, nullptr), &params);
  if (!UCS_PTR_IS_PTR(request)) return;
  const TimePoint deadline = real_clock().now() + kCloseTimeout;
  while (ucp_request_check_status(request) == UCS_INPROGRESS && real_clock().now() < deadline)
    ucp_worker_progress(worker.worker);
  ucp_request_free(request);
}

Status UcxEndpoint::State::finish(ucs_status_ptr_t request,
                                  TimePoint deadline,
                                  std::string_view what) {
  if (request == nullptr) return {};
  if (UCS_PTR_IS_ERR(request)) {
    has_failed.store(true);
    return {};
  }
  for (;;) {
    {
      const std::scoped_lock lock(worker.mutex);
      ucp_worker_progress(worker.worker);
      const ucs_status_t status = ucp_request_check_status(request);
      const bool is_late = real_clock().now() > deadline;
      if (status != UCS_INPROGRESS || is_late || has_failed.load()) {
        const bool has_timed_out = status == UCS_INPROGRESS && !has_failed.load();
        if (status != UCS_OK) has_failed.store(true);
        if (status == UCS_INPROGRESS) close();
        ucp_request_free(request);
        if (!has_timed_out) return {};
        return error(ErrorCode::kTimeout, "ucx: {}: deadline passed", what);
      }
    }
    sched_yield();  // the control thread may want the lock
  }
}

Status UcxEndpoint::State::write(RankId to,
                                 uint64_t offset,
                                 std::span<const std::byte> bytes,
                                 TimePoint deadline) {
  if (has_failed.load(std::memory_order_relaxed)) return {};
  ucs_status_ptr_t request = nullptr;
  {
    const std::scoped_lock lock(worker.mutex);
    if (endpoint == nullptr) return {};
    const Window& window = windows.at(to);
    const ucp_request_param_t params{};
    request = ucp_put_nbx(endpoint, bytes.data(), bytes.size(), window.base + offset, window.key,
                          &params);
  }
  return finish(request, deadline, "put");
}

Status UcxEndpoint::State::fence() {
  const std::scoped_lock lock(worker.mutex);
  return checked("fence", ucp_worker_fence(worker.worker));
}

Status UcxEndpoint::State::ring(RankId to, TimePoint deadline) {
  if (has_failed.load(std::memory_order_relaxed)) return {};
  const auto number = static_cast<uint32_t>(index(to));
  ucs_status_ptr_t request = nullptr;
  {
    const std::scoped_lock lock(worker.mutex);
    if (endpoint == nullptr) return {};
    const ucp_request_param_t params{};
    request = ucp_am_send_nbx(endpoint, kBellMessage, &number, sizeof number, nullptr, 0, &params);
  }
  return finish(request, deadline, "bell");
}

Result<std::unique_ptr<UcxEndpoint>> UcxWorker::connect(const UcxIntroduction& introduction) {
  auto state = std::make_unique<UcxEndpoint::State>(*state_);
  {
    const std::scoped_lock lock(state_->mutex);
    WD_TRY(state->open(introduction));
  }
  return std::make_unique<UcxEndpoint>(std::move(state));
}

UcxEndpoint::UcxEndpoint(std::unique_ptr<State> state) : state_(std::move(state)) {}

UcxEndpoint::~UcxEndpoint() = default;

Status UcxEndpoint::put(RankId to,
                        int64_t offset,
                        std::span<const std::byte> bytes,
                        TimePoint deadline) {
  state_->bytes_sent.fetch_add(bytes.size(), std::memory_order_relaxed);
  state_->puts_sent.fetch_add(1, std::memory_order_relaxed);
  const int64_t begin = Arena::bytes_offset(state_->worker.shape);
  return state_->write(to, static_cast<uint64_t>(begin + offset), bytes, deadline);
}

// The line's sequence number last, behind all rows and its own words; its epoch, which makes it
// exist, only once and behind that.
Status UcxEndpoint::signal(RankId to, ChannelId channel, const Signal& signal, TimePoint deadline) {
  state_->bytes_sent.fetch_add(sizeof signal, std::memory_order_relaxed);
  state_->puts_sent.fetch_add(1, std::memory_order_relaxed);
  const uint64_t line =
      static_cast<uint64_t>(Arena::line_offset(state_->worker.shape, channel, state_->worker.rank));
  const auto bytes = std::as_bytes(std::span(&signal, 1));
  WD_TRY(state_->fence());
  WD_TRY(state_->write(to, line + kLineCount, bytes.subspan<sizeof signal.seq>(), deadline));
  WD_TRY(state_->fence());
  WD_TRY(state_->write(to, line + kLineSeq, bytes.first<sizeof signal.seq>(), deadline));
  if (state_->opens(to, channel)) {
    const uint64_t epoch = state_->worker.shape.epoch;
    WD_TRY(state_->fence());
    WD_TRY(state_->write(to, line, std::as_bytes(std::span(&epoch, 1)), deadline));
  }
  WD_TRY(state_->fence());
  return state_->ring(to, deadline);
}

Status UcxEndpoint::flush(TimePoint deadline) {
  if (state_->has_failed.load()) return {};
  ucs_status_ptr_t request = nullptr;
  {
    const std::scoped_lock lock(state_->worker.mutex);
    if (state_->endpoint == nullptr) return {};
    const ucp_request_param_t params{};
    request = ucp_ep_flush_nbx(state_->endpoint, &params);
  }
  return state_->finish(request, deadline, "flush");
}

void UcxEndpoint::fail() {
  state_->has_failed.store(true);
}

WireCounters UcxEndpoint::counters() const {
  return {.bytes_sent = state_->bytes_sent.load(std::memory_order_relaxed),
          .frames_sent = state_->puts_sent.load(std::memory_order_relaxed)};
}

}  // namespace wideep::fabric
