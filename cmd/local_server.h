// A model loaded in this process and served on a port that the kernel chooses, for verbs that can
// do without a running server: chat, bench quality.
#pragma once

#include "base/result.h"

#include <memory>
#include <string>

namespace wideep::cmd {

class LocalServer {
 public:
  // Loads the model with default options, showing progress.
  static Result<std::unique_ptr<LocalServer>> start(const std::string& model_path);
  virtual ~LocalServer() = default;
  virtual std::string url() const = 0;
};

}  // namespace wideep::cmd
