// The folder of one deployment: keys, generated files, logs. Only its owner may enter (0700), and
// it goes when the deployment does.
//
// It is locked while its owner lives; what a killed owner left behind is removed by the next one.
#pragma once

#include "base/result.h"

#include <string>
#include <string_view>

namespace wideep::launcher {

// $XDG_RUNTIME_DIR, else where temporary files go.
std::string run_folder_parent();

class RunFolder {
 public:
  // A new folder wideep-up-XXXXXX in `parent`. Removes those in there that nobody owns any more.
  static Result<RunFolder> create(const std::string& parent);
  ~RunFolder();
  RunFolder(RunFolder&& other) noexcept;
  RunFolder& operator=(RunFolder&&) = delete;
  RunFolder(const RunFolder&) = delete;
  RunFolder& operator=(const RunFolder&) = delete;

  const std::string& path() const { return path_; }

  // The path of a new file that only the owner may read.
  Result<std::string> make_secret(const std::string& name, std::string_view content) const;
  // Such a file with 32 random bytes in hexadecimal.
  Result<std::string> make_key(const std::string& name) const;

 private:
  RunFolder(std::string path, int lock) : path_(std::move(path)), lock_(lock) {}

  std::string path_;
  int lock_;  // descriptor of the locked file; -1 when moved from
};

}  // namespace wideep::launcher
