// Bearer keys: who may call. Keys are kept as SHA-256 digests and compared in constant time.
//
// A key file has one key a line, "name key" or "name sha256:<64 hex digits>"; '#' starts a comment.
// It must not be readable by others. Thread: immutable after loading.
#pragma once

#include "base/hash.h"
#include "base/result.h"
#include "http/message.h"

#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace wideep::http {

class ApiKeys {
 public:
  static constexpr size_t kKeysMax = 10000;

  // No keys: everybody may call.
  ApiKeys() = default;

  // Keys from flags (named "key 1", …) and from a file ("": none).
  static Result<ApiKeys> load(const std::vector<std::string>& keys, const std::string& file);

  bool empty() const { return keys_.empty(); }

  // The text of a key file with all of them: digests, not the keys. Spaces of a name become '-'.
  std::string file_text() const;

  // The name of the key in `authorization: Bearer KEY` (or `x-api-key: KEY`); nothing if it is none
  // of ours. With no keys at all everybody is "".
  std::optional<std::string_view> caller(const Headers& headers) const;

 private:
  struct Key {
    std::string name;
    Digest digest;
  };

  std::vector<Key> keys_;
};

}  // namespace wideep::http
