#include "base/metrics.h"

#include "base/check.h"
#include "base/utf8.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <cstddef>

namespace wideep {
namespace {

void append_value(std::string& out, uint64_t value) {
  std::array<char, 24> digits;
  const auto result = std::to_chars(digits.data(), digits.data() + digits.size(), value);
  out.append(digits.data(), result.ptr);
}

void append_value(std::string& out, double value) {
  if (std::isnan(value)) {
    out += "NaN";
  } else if (std::isinf(value)) {
    out += value > 0 ? "+Inf" : "-Inf";
  } else {
    std::array<char, 32> digits;
    const auto result = std::to_chars(digits.data(), digits.data() + digits.size(), value);
    out.append(digits.data(), result.ptr);
  }
}

std::string escape(std::string_view text, bool escape_quotes) {
  std::string out;
  for (const char c : sanitize_utf8(text)) {
    if (c == '\\') {
      out += "\\\\";
    } else if (c == '\n') {
      out += "\\n";
    } else if (c == '"' && escape_quotes) {
      out += "\\\"";
    } else {
      out += c;
    }
  }
  return out;
}

bool is_name(std::string_view name, bool colon_allowed) {
  const auto is_letter = [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_';
  };
  if (name.empty() || (name[0] >= '0' && name[0] <= '9')) return false;
  return std::ranges::all_of(name, [&](char c) {
    return is_letter(c) || (c >= '0' && c <= '9') || (c == ':' && colon_allowed);
  });
}

// 'model_name="r1",engine="0"'
std::string format_labels(const MetricLabels& labels) {
  std::string out;
  for (const auto& [name, value] : labels) {
    WD_CHECK(is_name(name, false));
    WD_CHECK(name != "le");
    if (!out.empty()) out += ',';
    out += name + "=\"" + escape(value, true) + '"';
  }
  return out;
}

// 'name{labels} ', or 'name ' without labels.
std::string line_start(std::string_view name, std::string_view labels) {
  std::string out(name);
  if (!labels.empty()) out.append("{").append(labels).append("}");
  return out + ' ';
}

}  // namespace

Histogram::Histogram(std::span<const double> bounds)
    : bounds_(bounds.begin(), bounds.end()), counts_(bounds.size() + 1) {
  WD_CHECK(std::ranges::is_sorted(bounds_, std::less_equal<>()));
  WD_CHECK(std::ranges::all_of(bounds_, [](double bound) { return std::isfinite(bound); }));
}

void Histogram::observe(double value) {
  if (std::isnan(value)) return;
  const auto bucket = std::ranges::lower_bound(bounds_, value) - bounds_.begin();
  counts_[static_cast<size_t>(bucket)].fetch_add(1, std::memory_order_relaxed);
  sum_.fetch_add(value, std::memory_order_relaxed);
}

uint64_t Histogram::count() const {
  uint64_t total = 0;
  for (const auto& count : counts_)
    total += count.load(std::memory_order_relaxed);
  return total;
}

// One label set of a family. Exactly one of the three metrics is used.
struct MetricsRegistry::Series {
  std::string labels;
  // What stands before each value: one for counters and gauges; for histograms one per bucket,
  // then _sum, then _count.
  std::vector<std::string> line_starts;
  Counter counter;
  Gauge gauge;
  std::unique_ptr<Histogram> histogram;
};

struct MetricsRegistry::Family {
  Type type;
  std::string name;
  std::string help;
  std::string head;  // the HELP and TYPE lines
  std::vector<std::unique_ptr<Series>> series;
};

MetricsRegistry::MetricsRegistry() = default;
MetricsRegistry::~MetricsRegistry() = default;

Counter& MetricsRegistry::counter(std::string_view name,
                                  std::string_view help,
                                  const MetricLabels& labels) {
  return series(Type::kCounter, name, help, labels, {}).counter;
}

Gauge& MetricsRegistry::gauge(std::string_view name,
                              std::string_view help,
                              const MetricLabels& labels) {
  return series(Type::kGauge, name, help, labels, {}).gauge;
}

Histogram& MetricsRegistry::histogram(std::string_view name,
                                      std::string_view help,
                                      std::span<const double> bounds,
                                      const MetricLabels& labels) {
  return *series(Type::kHistogram, name, help, labels, bounds).histogram;
}

MetricsRegistry::Series& MetricsRegistry::series(Type type,
                                                 std::string_view name,
                                                 std::string_view help,
                                                 const MetricLabels& labels,
                                                 std::span<const double> bounds) {
  static constexpr std::array<std::string_view, 3> kTypeNames = {"counter", "gauge", "histogram"};
  const std::string label_text = format_labels(labels);
  const std::scoped_lock lock(mutex_);
  auto family = std::ranges::find_if(families_, [&](const auto& f) { return f->name == name; });
  if (family == families_.end()) {
    WD_CHECK(is_name(name, true));
    const std::string head = "# HELP " + std::string(name) + ' ' + escape(help, false) +
                             "\n# TYPE " + std::string(name) + ' ' +
                             std::string(kTypeNames[static_cast<size_t>(type)]) + '\n';
    families_.push_back(
        std::make_unique<Family>(Family{type, std::string(name), std::string(help), head, {}}));
    family = families_.end() - 1;
  }
  WD_CHECK((*family)->type == type);
  WD_CHECK((*family)->help == help);
  for (const auto& existing : (*family)->series) {
    if (existing->labels != label_text) continue;
    if (existing->histogram) WD_CHECK(std::ranges::equal(existing->histogram->bounds(), bounds));
    return *existing;
  }
  auto created = std::make_unique<Series>();
  created->labels = label_text;
  if (type == Type::kHistogram) {
    created->histogram = std::make_unique<Histogram>(bounds);
    const std::string separator = label_text.empty() ? "" : ",";
    for (size_t i = 0; i <= bounds.size(); ++i) {
      std::string le = "+Inf";
      if (i < bounds.size()) append_value(le = "", bounds[i]);
      created->line_starts.push_back(
          line_start(std::string(name) + "_bucket", label_text + separator + "le=\"" + le + '"'));
    }
    created->line_starts.push_back(line_start(std::string(name) + "_sum", label_text));
    created->line_starts.push_back(line_start(std::string(name) + "_count", label_text));
  } else {
    created->line_starts.push_back(line_start(name, label_text));
  }
  return *(*family)->series.emplace_back(std::move(created));
}

void MetricsRegistry::render(std::string& out) const {
  const std::scoped_lock lock(mutex_);
  for (const auto& family : families_) {
    out += family->head;
    for (const auto& series : family->series) {
      if (family->type == Type::kHistogram) {
        render_histogram(*series, out);
        continue;
      }
      out += series->line_starts[0];
      if (family->type == Type::kCounter) {
        append_value(out, series->counter.value());
      } else {
        append_value(out, series->gauge.value());
      }
      out += '\n';
    }
  }
}

void MetricsRegistry::render_histogram(const Series& series, std::string& out) {
  const Histogram& histogram = *series.histogram;
  const size_t num_buckets = histogram.bounds().size() + 1;
  uint64_t cumulative = 0;  // also the _count, so that both always agree
  for (size_t i = 0; i < num_buckets; ++i) {
    cumulative += histogram.bucket(i);
    out += series.line_starts[i];
    append_value(out, cumulative);
    out += '\n';
  }
  out += series.line_starts[num_buckets];
  append_value(out, histogram.sum());
  out += '\n';
  out += series.line_starts[num_buckets + 1];
  append_value(out, cumulative);
  out += '\n';
}

}  // namespace wideep
