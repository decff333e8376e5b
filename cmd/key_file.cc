#include "cmd/key_file.h"

#include "base/file.h"

#include <sys/stat.h>

#include <cstdint>

namespace wideep::cmd {
namespace {

constexpr int64_t kKeyFileBytesMax = 64 << 10;

}  // namespace

Result<fabric::PresharedKey> read_key_file(const std::string& path) {
  struct stat status{};
  if (stat(path.c_str(), &status) == 0 && (status.st_mode & (S_IRWXG | S_IRWXO)) != 0)
    return invalid_argument("{}: others can read this key; chmod 600 it", path);
  WD_ASSIGN_OR_RETURN(const std::string secret, read_file(path, kKeyFileBytesMax));
  Result<fabric::PresharedKey> key = fabric::PresharedKey::from_secret(secret);
  if (!key) return with_context(key.error(), path);
  return key;
}

}  // namespace wideep::cmd
