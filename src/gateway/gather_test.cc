#include "gateway/gather.h"

#include "epp/filters.h"
#include "http/server.h"

#include <gtest/gtest.h>

#include <future>

namespace wideep::gateway {
namespace {

epp::Endpoint rank(const std::string& number) {
  epp::Endpoint endpoint{.name = "default/rank-" + number};
  endpoint.labels =
      std::make_shared<const epp::Labels>(epp::Labels{{std::string(epp::kRankLabel), number}});
  return endpoint;
}

TEST(MergeMetrics, ListsEachFamilyOnceAndTellsTheRanksApart) {
  const epp::Endpoint zero = rank("0");
  const epp::Endpoint one = rank("1");
  const std::string merged = merge_metrics(
      {{&zero,
        "# HELP a A.\n# TYPE a gauge\na{engine=\"0\"} 1\n"
        "# HELP h H.\n# TYPE h histogram\nh_bucket{le=\"+Inf\"} 2\nh_sum 3\nh_count 2\n"},
       {&one,
        "# HELP a A.\n# TYPE a gauge\na{engine=\"1\"} 4\n"
        "# HELP h H.\n# TYPE h histogram\nh_bucket{le=\"+Inf\"} 5\nh_sum 6\nh_count 5\n"
        "# HELP only O.\n# TYPE only gauge\nonly 7\n"}});
  EXPECT_EQ(merged,
            "# HELP a A.\n# TYPE a gauge\na{engine=\"0\"} 1\na{engine=\"1\"} 4\n"
            "# HELP h H.\n# TYPE h histogram\n"
            "h_bucket{engine=\"0\",le=\"+Inf\"} 2\nh_sum{engine=\"0\"} 3\nh_count{engine=\"0\"} 2\n"
            "h_bucket{engine=\"1\",le=\"+Inf\"} 5\nh_sum{engine=\"1\"} 6\nh_count{engine=\"1\"} 5\n"
            "# HELP only O.\n# TYPE only gauge\nonly{engine=\"1\"} 7\n");
}

TEST(MergeMetrics, SurvivesTextsThatAreNoMetrics) {
  const epp::Endpoint zero = rank("0");
  EXPECT_EQ(merge_metrics({}), "");
  EXPECT_EQ(merge_metrics({{&zero, "#\n# x\n\nnonsense\n{\n"}}),
            "nonsense{engine=\"0\"}\n{engine=\"0\",\n");
}

TEST(Gather, LeavesOutWhoDoesNotAnswerWell) {
  net::LoopThread thread;
  http::Client client(thread.loop());
  http::Server server(thread.loop(), {});
  server.route("GET", "/x", [](const http::Request&, http::Responder responder) {
    responder.send({.status = 200, .body = "here"});
  });
  const net::Address there = *server.listen({"127.0.0.1", 0, {}});
  auto snapshot = std::make_shared<epp::Snapshot>();
  for (const char* number : {"0", "1", "2"})
    snapshot->endpoints.push_back(rank(number));
  snapshot->endpoints[0].address = there;
  snapshot->endpoints[1].address = net::Address::unix_socket("/nowhere/at/all");
  snapshot->endpoints[2].address = there;
  const auto ask = [&](const std::string& target) {
    std::promise<std::vector<std::string>> promise;
    gather(client, snapshot, {.target = target}, [&](const std::vector<EndpointAnswer>& answers) {
      std::vector<std::string> texts;
      for (const EndpointAnswer& answer : answers)
        texts.push_back(answer.endpoint->name + " " + answer.body);
      promise.set_value(texts);
    });
    return promise.get_future().get();
  };
  EXPECT_EQ(ask("/x"), (std::vector<std::string>{"default/rank-0 here", "default/rank-2 here"}));
  EXPECT_TRUE(ask("/y").empty());
}

}  // namespace
}  // namespace wideep::gateway
