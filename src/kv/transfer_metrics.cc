#include "kv/transfer_metrics.h"

#include <chrono>
#include <utility>

namespace wideep::kv {
namespace {

constexpr std::array kSecondsBounds = {.0005, .001, .0025, .005, .01, .025, .05,
                                       .1,    .25,  .5,    1.,   2.5, 5.,   10.};
constexpr std::array kBytesBounds = {1e5, 1e6, 1e7, 2.5e7, 5e7, 1e8, 2.5e8, 5e8, 1e9, 5e9, 1e10};
constexpr std::array kBlocksBounds = {1., 4., 16., 64., 256., 1024., 4096., 16384.};

MetricLabels with(MetricLabels labels, std::string_view name, std::string_view value) {
  labels.emplace_back(name, value);
  return labels;
}

void grow(Counter& counter, int64_t before, int64_t now) {
  if (now > before) counter.add(static_cast<uint64_t>(now - before));
}

}  // namespace

TransferMetrics::TransferMetrics(MetricLabels labels)
    : labels_(std::move(labels)),
      seconds_(registry_.histogram(
          "vllm:nixl_xfer_time_seconds", "Time of a successful KV pull.", kSecondsBounds, labels_)),
      bytes_(registry_.histogram(
          "vllm:nixl_bytes_transferred", "Bytes of a successful KV pull.", kBytesBounds, labels_)),
      descriptors_(registry_.histogram(
          "vllm:nixl_num_descriptors", "KV blocks of a successful pull.", kBlocksBounds, labels_)),
      failed_transfers_(registry_.counter(
          "vllm:nixl_num_failed_transfers_total", "KV pulls that failed.", labels_)),
      failed_notifications_(
          registry_.counter("vllm:nixl_num_failed_notifications_total",
                            "Releases and heartbeats that did not reach the prefill rank.",
                            labels_)),
      expired_(registry_.counter(
          "vllm:nixl_num_kv_expired_reqs_total", "Leases that nobody pulled in time.", labels_)),
      leases_(registry_.gauge("wideep:kv_leases", "Leases that wait to be pulled.", labels_)),
      blocks_(registry_.gauge("wideep:kv_blocks_leased", "KV blocks of all leases.", labels_)),
      granted_(registry_.counter("wideep:kv_leases_granted_total", "Leases ever.", labels_)),
      refused_(registry_.counter("wideep:kv_leases_refused_total",
                                 "Requests whose KV was not kept: too many leases.",
                                 labels_)) {
  for (const Transport transport : {Transport::kSharedMemory, Transport::kTcp}) {
    transport_bytes_[static_cast<size_t>(transport)] =
        &registry_.counter("wideep:kv_pulled_bytes_total", "Bytes of KV pulled.",
                           with(labels_, "transport", name(transport)));
  }
  // All from the start: the first failure of a kind is an increase too.
  for (int code = 0; code < kNumErrorCodes; ++code) {
    failures_[static_cast<size_t>(code)] =
        &registry_.counter("wideep:kv_pull_failures_total", "KV pulls that failed, by reason.",
                           with(labels_, "reason", name(static_cast<ErrorCode>(code))));
  }
}

void TransferMetrics::on_pull(const PullOutcome& outcome) {
  transport_bytes_[static_cast<size_t>(outcome.transport)]->add(
      static_cast<uint64_t>(outcome.num_bytes));
  if (!outcome.status) {
    const ErrorCode code = outcome.status.error().code;
    failures_[static_cast<size_t>(code)]->add();
    if (code != ErrorCode::kCancelled) failed_transfers_.add();  // its client left
    return;
  }
  seconds_.observe(std::chrono::duration<double>(outcome.duration).count());
  bytes_.observe(static_cast<double>(outcome.num_bytes));
  descriptors_.observe(static_cast<double>(outcome.num_blocks));
}

void TransferMetrics::on_failed_notice(int64_t count) {
  failed_notifications_.add(static_cast<uint64_t>(count));
}

void TransferMetrics::render(const LeaseStats& leases, std::string& out) {
  const std::scoped_lock lock(mutex_);
  leases_.set(static_cast<double>(leases.num_live));
  blocks_.set(static_cast<double>(leases.num_blocks));
  grow(expired_, last_.num_expired, leases.num_expired);
  grow(granted_, last_.num_granted, leases.num_granted);
  grow(refused_, last_.num_refused, leases.num_refused);
  last_ = leases;
  registry_.render(out);
}

}  // namespace wideep::kv
