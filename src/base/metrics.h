// Prometheus metrics: counters, gauges and histograms with labels fixed at creation.
//
// Ownership: the registry owns every metric until it dies; references stay valid. Thread: updates
// are lock-free and may come from anywhere; creation and render() take the registry's lock.
// render() costs little (names, labels and help are formatted once, at creation), so that a picker
// may scrape every 50 ms.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <mutex>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace wideep {

// Only ever grows.
class Counter {
 public:
  void add(uint64_t amount = 1) { value_.fetch_add(amount, std::memory_order_relaxed); }

  uint64_t value() const { return value_.load(std::memory_order_relaxed); }

 private:
  std::atomic<uint64_t> value_{0};
};

class Gauge {
 public:
  void set(double value) { value_.store(value, std::memory_order_relaxed); }

  void add(double amount) { value_.fetch_add(amount, std::memory_order_relaxed); }

  double value() const { return value_.load(std::memory_order_relaxed); }

 private:
  std::atomic<double> value_{0.0};
};

// Counts observations in fixed buckets. Bounds are inclusive upper ends, ascending; +Inf is
// implied. Example, bounds {1, 5}: observing 1, 3 and 9 renders le="1" 1, le="5" 2, le="+Inf" 3.
class Histogram {
 public:
  explicit Histogram(std::span<const double> bounds);

  // NaN counts nowhere and is dropped.
  void observe(double value);

  std::span<const double> bounds() const { return bounds_; }

  // Not cumulative; the last is what is above every bound.
  uint64_t bucket(size_t bucket_index) const {
    return counts_[bucket_index].load(std::memory_order_relaxed);
  }

  uint64_t count() const;

  double sum() const { return sum_.load(std::memory_order_relaxed); }

 private:
  std::vector<double> bounds_;
  std::vector<std::atomic<uint64_t>> counts_;  // [bounds + 1]
  std::atomic<double> sum_{0.0};
};

// One label set: {{"model_name", "r1"}, {"engine", "0"}}.
using MetricLabels = std::vector<std::pair<std::string, std::string>>;

class MetricsRegistry {
 public:
  MetricsRegistry();
  ~MetricsRegistry();
  MetricsRegistry(const MetricsRegistry&) = delete;
  MetricsRegistry& operator=(const MetricsRegistry&) = delete;

  // The metric of that name and those labels, created on first use. `name` is the name on the wire:
  // counters end in _total. The same name with another type, help or buckets is a bug (CHECK).
  Counter& counter(std::string_view name, std::string_view help, const MetricLabels& labels = {});
  Gauge& gauge(std::string_view name, std::string_view help, const MetricLabels& labels = {});
  Histogram& histogram(std::string_view name,
                       std::string_view help,
                       std::span<const double> bounds,
                       const MetricLabels& labels = {});

  // Appends everything in the text format 0.0.4.
  void render(std::string& out) const;
  static constexpr std::string_view kContentType = "text/plain; version=0.0.4; charset=utf-8";

 private:
  enum class Type { kCounter, kGauge, kHistogram };
  struct Series;
  struct Family;
  Series& series(Type type,
                 std::string_view name,
                 std::string_view help,
                 const MetricLabels& labels,
                 std::span<const double> bounds);
  static void render_histogram(const Series& series, std::string& out);

  mutable std::mutex mutex_;
  std::vector<std::unique_ptr<Family>> families_;  // in order of creation
};

}  // namespace wideep
