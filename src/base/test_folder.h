// A folder of a test's own, for tests: no other test and no other run has files in it, and it goes
// with the test.
#pragma once

#include "base/check.h"

#include <gtest/gtest.h>
#include <stdlib.h>

#include <filesystem>
#include <string>
#include <string_view>
#include <system_error>

namespace wideep {

class TestFolder {
 public:
  TestFolder() : path_(testing::TempDir() + "wideep_XXXXXX") {
    WD_CHECK(mkdtemp(path_.data()) != nullptr);
  }

  ~TestFolder() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }

  TestFolder(const TestFolder&) = delete;
  TestFolder& operator=(const TestFolder&) = delete;

  const std::string& path() const { return path_; }

  // The path of a file in it.
  std::string operator/(std::string_view name) const { return path_ + "/" + std::string(name); }

 private:
  std::string path_;
};

}  // namespace wideep
