// Who may call: keys, kept as digests only and compared in constant time.
#pragma once

#include "base/hash.h"
#include "base/result.h"

#include <string>
#include <string_view>
#include <vector>

namespace wideep::server {

// Immutable after loading; any thread.
class ApiKeys {
 public:
  ApiKeys() = default;

  // A file with one key per line: the key itself, or "sha256:" and 64 hex digits of it. A word
  // after it names the key; '#' begins a comment. kInvalidArgument if others than the owner can
  // read the file, on a line that is neither, and without any key.
  static Result<ApiKeys> load(const std::string& path);
  static Result<ApiKeys> parse(std::string_view text);

  void add(std::string_view key);

  // Without keys everyone may call.
  bool empty() const { return digests_.empty(); }

  // `authorization` is the header's value: "Bearer KEY".
  bool allows(std::string_view authorization) const;

 private:
  std::vector<Digest> digests_;
};

}  // namespace wideep::server
