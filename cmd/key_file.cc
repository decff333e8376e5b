#include "cmd/key_file.h"

#include "base/file.h"

#include <cstdint>

namespace wideep::cmd {
namespace {

constexpr int64_t kKeyFileBytesMax = 64 << 10;

}  // namespace

Result<fabric::PresharedKey> read_key_file(const std::string& path) {
  WD_ASSIGN_OR_RETURN(const std::string secret, read_secret(path, kKeyFileBytesMax));
  Result<fabric::PresharedKey> key = fabric::PresharedKey::from_secret(secret);
  if (!key) return with_context(key.error(), path);
  return key;
}

}  // namespace wideep::cmd
