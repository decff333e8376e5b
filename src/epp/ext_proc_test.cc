#include "epp/ext_proc.h"

#include "ext_proc.grpc.pb.h"

#include <gmock/gmock.h>
#include <grpcpp/grpcpp.h>
#include <gtest/gtest.h>

namespace wideep::epp {
namespace {

namespace pb = envoy::service::ext_proc::v3;
using ::testing::HasSubstr;

constexpr const char* kConfig =
    "apiVersion: llm-d.ai/v1alpha1\nkind: EndpointPickerConfig\n"
    "plugins:\n- {type: always-disagg-pd-decider}\n"
    "- {type: disagg-profile-handler, parameters: {deciders: {prefill: "
    "always-disagg-pd-decider}}}\n"
    "schedulingProfiles:\n- {name: prefill, plugins: [{pluginRef: prefill-filter}]}\n"
    "- {name: decode, plugins: [{pluginRef: decode-filter}]}\n";

// Plays Envoy: one HTTP request over one stream.
class Envoy {
 public:
  explicit Envoy(int port)
      : channel_(grpc::CreateChannel(fmt::format("127.0.0.1:{}", port),
                                     grpc::InsecureChannelCredentials())),
        stub_(pb::ExternalProcessor::NewStub(channel_)) {
    context_.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(60));
    stream_ = stub_->Process(&context_);
  }

  void headers(bool end,
               std::vector<std::pair<std::string, std::string>> more = {},
               const std::vector<std::string>* subset = nullptr) {
    pb::ProcessingRequest request;
    more.emplace_back(":path", "/v1/completions");
    for (const auto& [key, value] : more) {
      auto* header = request.mutable_request_headers()->mutable_headers()->add_headers();
      header->set_key(key);
      header->set_raw_value(value);
    }
    request.mutable_request_headers()->set_end_of_stream(end);
    if (subset != nullptr) {
      auto& space =
          (*request.mutable_metadata_context()->mutable_filter_metadata())["envoy.lb.subset_hint"];
      auto& list = (*space.mutable_fields())["x-gateway-destination-endpoint-subset"];
      list.mutable_list_value();
      for (const std::string& item : *subset)
        list.mutable_list_value()->add_values()->set_string_value(item);
    }
    stream_->Write(request);
  }

  void body(const std::string& bytes, bool end) {
    pb::ProcessingRequest request;
    request.mutable_request_body()->set_body(bytes);
    request.mutable_request_body()->set_end_of_stream(end);
    stream_->Write(request);
  }

  void send(const pb::ProcessingRequest& request) { stream_->Write(request); }

  pb::ProcessingResponse read() {
    pb::ProcessingResponse response;
    EXPECT_TRUE(stream_->Read(&response));
    return response;
  }

  bool ended() {
    pb::ProcessingResponse response;
    return !stream_->Read(&response);
  }

 private:
  std::shared_ptr<grpc::Channel> channel_;
  std::unique_ptr<pb::ExternalProcessor::Stub> stub_;
  grpc::ClientContext context_;
  std::unique_ptr<grpc::ClientReaderWriter<pb::ProcessingRequest, pb::ProcessingResponse>> stream_;
};

struct ExtProc : ::testing::Test {
  ExtProc() : picker(*parse_picker_config(kConfig), real_clock()) {
    picker.set_endpoints({{"default/p", {"10.0.0.1", 80, {}}, {{"llm-d.ai/role", "prefill"}}},
                          {"default/d", {"10.0.0.2", 81, {}}, {{"llm-d.ai/role", "decode"}}}});
    server = std::move(*ExtProcServer::start(picker, {.body_bytes_max = 300'000}));
  }

  static std::string header(const pb::HeaderMutation& mutation, std::string_view name) {
    for (const auto& option : mutation.set_headers()) {
      if (option.header().key() == name) return option.header().raw_value();
    }
    return "";
  }

  EndpointPicker picker;
  std::unique_ptr<ExtProcServer> server;
};

TEST_F(ExtProc, AnswersHeadersAfterTheBodyAndGivesTheBodyBackInPieces) {
  Envoy envoy(server->port());
  envoy.headers(false, {{"x-prefiller-host-port", "evil:1"}});
  const std::string body = R"({"model":"m","prompt":")" + std::string(150'000, 'x') + "\"}";
  envoy.body(body.substr(0, 70'000), false);
  envoy.body(body.substr(70'000), true);

  const pb::ProcessingResponse head = envoy.read();
  ASSERT_TRUE(head.has_request_headers());
  const pb::CommonResponse& common = head.request_headers().response();
  EXPECT_TRUE(common.clear_route_cache());
  EXPECT_EQ(header(common.header_mutation(), "x-gateway-destination-endpoint"), "10.0.0.2:81");
  EXPECT_EQ(header(common.header_mutation(), "x-prefiller-host-port"), "10.0.0.1:80");
  EXPECT_EQ(header(common.header_mutation(), "content-length"), std::to_string(body.size()));
  const auto& removed = common.header_mutation().remove_headers();
  EXPECT_THAT(std::vector<std::string>(removed.begin(), removed.end()),
              ::testing::Contains("x-data-parallel-host-port"));
  EXPECT_EQ(head.dynamic_metadata()
                .fields()
                .at("envoy.lb")
                .struct_value()
                .fields()
                .at("x-gateway-destination-endpoint")
                .string_value(),
            "10.0.0.2:81");
  EXPECT_EQ(picker.snapshot()->endpoints[1].load->active_requests, 1);

  std::string echoed;
  bool end = false;
  while (!end) {
    const pb::ProcessingResponse piece = envoy.read();
    const auto& streamed = piece.request_body().response().body_mutation().streamed_response();
    EXPECT_LE(streamed.body().size(), ExtProcServer::kPieceBytesMax);
    echoed += streamed.body();
    end = streamed.end_of_stream();
  }
  EXPECT_EQ(echoed, body);
}

TEST_F(ExtProc, PassesTheResponseThrough) {
  Envoy envoy(server->port());
  envoy.headers(true);
  EXPECT_TRUE(envoy.read().has_request_headers());
  pb::ProcessingRequest response;
  response.mutable_response_headers();
  envoy.send(response);
  EXPECT_EQ(header(envoy.read().response_headers().response().header_mutation(),
                   "x-went-into-resp-headers"),
            "true");
  response.mutable_response_body()->set_body("data: 1\n\n");
  response.mutable_response_body()->set_end_of_stream(true);
  envoy.send(response);
  const pb::ProcessingResponse piece = envoy.read();
  EXPECT_EQ(piece.response_body().response().body_mutation().streamed_response().body(),
            "data: 1\n\n");
  EXPECT_TRUE(piece.response_body().response().body_mutation().streamed_response().end_of_stream());
}

TEST_F(ExtProc, RefusesWithTheRightStatusAndReason) {
  const auto refused = [&](const std::string& body,
                           const std::vector<std::string>* subset = nullptr) {
    Envoy envoy(server->port());
    envoy.headers(false, {}, subset);
    envoy.body(body, true);
    pb::ImmediateResponse response = envoy.read().immediate_response();
    EXPECT_TRUE(envoy.ended());
    return response;
  };
  EXPECT_EQ(refused("{").status().code(), 400);
  EXPECT_EQ(refused(R"({"prompt":"no model"})").status().code(), 400);
  EXPECT_EQ(refused(std::string(400'000, 'x')).status().code(), 413);
  const std::vector<std::string> nobody = {"10.9.9.9:1"};
  const pb::ImmediateResponse none = refused(R"({"model":"m","prompt":"x"})", &nobody);
  EXPECT_EQ(none.status().code(), 503);
  EXPECT_EQ(header(none.headers(), "x-llm-d-request-dropped-reason"), "rejected-no-endpoints");
  EXPECT_THAT(none.body(), HasSubstr("inference error: ServiceUnavailable"));
}

TEST_F(ExtProc, DecidesAtTheTrailersWhenABodyHasThem) {
  Envoy envoy(server->port());
  envoy.headers(false);
  envoy.body(R"({"model":"m","prompt":"x"})", false);
  pb::ProcessingRequest trailers;
  trailers.mutable_request_trailers();
  envoy.send(trailers);
  EXPECT_TRUE(envoy.read().has_request_headers());
  EXPECT_FALSE(
      envoy.read().request_body().response().body_mutation().streamed_response().end_of_stream());
  EXPECT_TRUE(envoy.read().has_request_trailers());
}

TEST(ExtProcOptions, NeedCertificateAndKeyTogether) {
  EndpointPicker picker(*parse_picker_config(kConfig), real_clock());
  EXPECT_FALSE(ExtProcServer::start(picker, {.cert_file = "x"}));
}

}  // namespace
}  // namespace wideep::epp
