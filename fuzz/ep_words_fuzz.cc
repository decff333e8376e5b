// modules: ep
// Control words and list entries as they come from another rank's memory or a wire.
#include "base/check.h"
#include "ep/control_words.h"
#include "fabric/frame.h"

#include <cstddef>
#include <cstdint>
#include <cstring>

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace wideep;
  using namespace wideep::ep;
  if (size < fabric::kSignalBytes + sizeof(ListEntry)) return 0;
  const auto bytes = std::as_bytes(std::span(data, size));
  const fabric::Signal signal = fabric::decode_signal(bytes.first<fabric::kSignalBytes>());
  // Programs and numbers that match, so that the counts are looked at.
  const ExchangeId id{.seq = signal.seq,
                      .layer = LayerId{static_cast<int32_t>(signal.words[1])},
                      .program = signal.words[0]};
  if (const auto word = parse_dispatch(signal, id, 100); word && *word) {
    WD_CHECK((*word)->total <= 100);
    WD_CHECK((*word)->count >= 0);
    WD_CHECK((*word)->count <= (*word)->total);
  }
  if (const auto word = parse_combine(signal, id, 100); word && *word)
    WD_CHECK((*word)->count >= 0 && (*word)->count <= 100);
  if (const auto wish = parse_step(signal, signal.seq, signal.words[0], 100); wish && *wish)
    WD_CHECK((*wish)->num_tokens >= 0 && (*wish)->num_tokens <= 100);
  ListEntry entry;
  std::memcpy(&entry, data + fabric::kSignalBytes, sizeof entry);
  if (check(entry, {.tokens_max = 50, .num_slots = 7, .top_k = 3})) {
    WD_CHECK(entry.token < 50);
    WD_CHECK(entry.slot < 7);
    WD_CHECK(entry.k < 3);
  }
  return 0;
}
