#include "gateway/gather.h"

#include "epp/filters.h"

#include <algorithm>
#include <map>
#include <string_view>
#include <utility>

namespace wideep::gateway {
namespace {

struct Gathering {
  std::shared_ptr<const epp::Snapshot> snapshot;  // keeps the endpoints alive
  std::vector<int> status;
  std::vector<std::string> bodies;
  size_t num_open = 0;
  std::function<void(std::vector<EndpointAnswer>)> on_done;

  void finish() {
    std::vector<EndpointAnswer> answers;
    for (size_t i = 0; i < bodies.size(); ++i) {
      if (status[i] == 200) answers.push_back({&snapshot->endpoints[i], std::move(bodies[i])});
    }
    on_done(std::move(answers));
  }
};

// Lines of one metric family, in the order in which they came.
struct Family {
  std::string comments;
  std::string samples;
};

std::string_view take_line(std::string_view& text) {
  const size_t end = std::min(text.find('\n'), text.size());
  const std::string_view line = text.substr(0, end);
  text.remove_prefix(std::min(end + 1, text.size()));
  return line;
}

// "# TYPE name gauge" -> "name".
std::string_view name_of_comment(std::string_view line) {
  const size_t begin = line.find(' ', 2);
  if (begin == std::string_view::npos) return {};
  const std::string_view rest = line.substr(begin + 1);
  return rest.substr(0, rest.find(' '));
}

std::string with_engine(std::string_view line, std::string_view engine) {
  const size_t name_end = std::min(line.find_first_of("{ "), line.size());
  const std::string_view rest = line.substr(name_end);
  if (rest.starts_with('{')) {
    const bool has_engine = rest.find("{engine=\"") != std::string_view::npos ||
                            rest.find(",engine=\"") != std::string_view::npos;
    if (has_engine) return std::string(line);
    return fmt::format("{}{{engine=\"{}\",{}", line.substr(0, name_end), engine, rest.substr(1));
  }
  return fmt::format("{}{{engine=\"{}\"}}{}", line.substr(0, name_end), engine, rest);
}

}  // namespace

void gather(http::Client& client,
            std::shared_ptr<const epp::Snapshot> snapshot,
            const GatherOptions& options,
            std::function<void(std::vector<EndpointAnswer>)> on_done) {
  const size_t count = snapshot->endpoints.size();
  // Shared by the callbacks of the calls.
  auto gathering = std::make_shared<Gathering>(Gathering{.snapshot = std::move(snapshot),
                                                         .status = std::vector<int>(count),
                                                         .bodies = std::vector<std::string>(count),
                                                         .num_open = count,
                                                         .on_done = std::move(on_done)});
  if (count == 0) return gathering->finish();
  for (size_t i = 0; i < count; ++i) {
    http::Call call;
    call.address = gathering->snapshot->endpoints[i].address;
    call.target = options.target;
    call.connect_timeout = options.timeout;
    call.head_timeout = options.timeout;
    call.idle_timeout = options.timeout;
    call.total_timeout = options.timeout;
    const auto limit = static_cast<size_t>(options.body_bytes_max);
    client.start(std::move(call), {.on_head =
                                       [gathering, i](const http::ResponseHead& head) {
                                         gathering->status[i] = head.status;
                                       },
                                   .on_body =
                                       [gathering, i, limit](std::string_view bytes) {
                                         std::string& body = gathering->bodies[i];
                                         if (body.size() + bytes.size() > limit)
                                           gathering->status[i] = 0;
                                         if (gathering->status[i] != 0) body += bytes;
                                       },
                                   .on_done =
                                       [gathering, i](const http::CallResult& result) {
                                         if (!result) gathering->status[i] = 0;
                                         if (--gathering->num_open == 0) gathering->finish();
                                       }});
  }
}

std::string merge_metrics(const std::vector<EndpointAnswer>& answers) {
  std::vector<std::pair<std::string, Family>> families;
  std::map<std::string, size_t, std::less<>> index;
  const auto family = [&](std::string_view name) -> Family& {
    auto it = index.find(name);
    if (it == index.end()) {
      it = index.emplace(std::string(name), families.size()).first;
      families.emplace_back(std::string(name), Family{});
    }
    return families[it->second].second;
  };
  for (const EndpointAnswer& answer : answers) {
    const std::string* rank = answer.endpoint->label(epp::kRankLabel);
    const std::string& engine = rank != nullptr ? *rank : answer.endpoint->name;
    std::string_view text = answer.body;
    // Samples follow the comments of their family: _sum, _count and _bucket belong to it.
    std::string_view name;
    bool is_new = false;
    while (!text.empty()) {
      const std::string_view line = take_line(text);
      if (line.empty()) continue;
      if (line.starts_with('#')) {
        const std::string_view next = name_of_comment(line);
        if (next != name) is_new = family(next).comments.empty();
        name = next;
        if (is_new) family(name).comments.append(line).append("\n");
      } else {
        family(name).samples.append(with_engine(line, engine)).append("\n");
      }
    }
  }
  std::string out;
  for (const auto& [name, lines] : families)
    out.append(lines.comments).append(lines.samples);
  return out;
}

}  // namespace wideep::gateway
