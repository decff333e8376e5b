// modules: base tokenizer
// Streamed text equals the text of the whole, cut at the stop that is complete first, however the
// bytes are cut. Input: flags, chunk sizes, then stops and text separated by newlines (text last).
#include "base/check.h"
#include "base/utf8.h"
#include "tokenizer/text_stream.h"

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace {

using wideep::tokenizer::StopOptions;
using wideep::tokenizer::TextStream;

std::string reference(std::string_view bytes, const StopOptions& options) {
  const std::string text = wideep::sanitize_utf8(bytes);
  size_t best_end = std::string::npos;
  size_t best_size = 0;
  for (const std::string& stop : options.stop) {
    const size_t begin = text.find(stop);
    if (begin == std::string::npos) continue;
    const size_t end = begin + stop.size();
    if (end < best_end || (end == best_end && stop.size() > best_size)) {
      best_end = end;
      best_size = stop.size();
    }
  }
  if (best_end == std::string::npos) return text;
  return text.substr(0, options.include_stop ? best_end : best_end - best_size);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size < 2) return 0;
  StopOptions options{.include_stop = (data[0] & 1) != 0};
  const size_t chunk_bytes = 1 + data[1] % 8;
  std::string_view rest(reinterpret_cast<const char*>(data + 2), size - 2);
  for (size_t end = rest.find('\n'); end != std::string_view::npos; end = rest.find('\n')) {
    options.stop.emplace_back(rest.substr(0, end));
    rest.remove_prefix(end + 1);
  }
  auto cut = TextStream::create(options);
  auto whole = TextStream::create(options);
  WD_CHECK(cut.has_value() == whole.has_value());
  if (!cut) return 0;
  std::string shown;
  for (size_t at = 0; at < rest.size(); at += chunk_bytes) {
    shown += cut->push(rest.substr(at, chunk_bytes));
    WD_CHECK(wideep::is_valid_utf8(shown));
  }
  std::string at_once = whole->push(rest);
  WD_CHECK(at_once == shown);
  WD_CHECK(*cut == *whole);
  shown += cut->finish();
  WD_CHECK(shown == reference(rest, options));
  return 0;
}
