// modules: api
// Bodies of requests: the first byte chooses which. Errors stay small and are JSON themselves.
#include "api/requests.h"
#include "base/check.h"

#include <cstddef>
#include <cstdint>
#include <string_view>

namespace {

using namespace wideep::api;

constexpr size_t kErrorBytesMax = 2000;

template <typename Request>
void check(const ApiResult<Request>& request) {
  if (request) return;
  WD_CHECK(request.error().status == 400);
  const std::string body = request.error().to_json();
  WD_CHECK(body.size() < kErrorBytesMax);
  WD_CHECK(wideep::parse_json(body).has_value());
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0) return 0;
  const std::string_view body(reinterpret_cast<const char*>(data) + 1, size - 1);
  const RequestLimits limits{.allow_kv_transfer = true};
  switch (data[0] % 4) {
    case 0:
      check(parse_chat_request(body, limits));
      break;
    case 1:
      check(parse_completion_request(body, limits));
      break;
    case 2:
      check(parse_tokenize_request(body, limits));
      break;
    default:
      check(parse_detokenize_request(body, limits));
  }
  return 0;
}
