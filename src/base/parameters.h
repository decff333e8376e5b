// Reads the members of a map from a configuration file, strictly: every member must be asked for,
// and have the right kind. The first mistake is kept and told by finish().
#pragma once

#include "base/json.h"
#include "base/result.h"
#include "base/yaml.h"

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace wideep {

class Parameters {
 public:
  // `owner` names the map in messages: a plugin's name, or its path in the document
  // ("groups[0]"), under which `lines` (may be null) then knows the line of each member.
  // `values` may be null: a map without members. Borrows both.
  Parameters(std::string owner, const Json* values, const YamlLines* lines = nullptr)
      : owner_(std::move(owner)), values_(values), lines_(lines) {}

  // The member, or `fallback` if there is none or it is null.
  int64_t integer(std::string_view key, int64_t fallback, int64_t min = 0);
  double number(std::string_view key, double fallback, double min = 0);
  bool boolean(std::string_view key, bool fallback);
  std::string text(std::string_view key, std::string fallback);
  // The same for one of several words.
  std::string choice(std::string_view key,
                     std::string fallback,
                     const std::vector<std::string>& choices);
  const Json* any(std::string_view key);

  // Keeps a mistake that the caller found in a member.
  void complain(std::string_view key, std::string_view expected);

  // kInvalidArgument if a value had the wrong kind or a member was never asked for.
  Status finish();

  const std::string& owner() const { return owner_; }

  // "groups[0].ranks": the member's path in the document.
  std::string path(std::string_view key) const;

 private:
  // "line 7: groups[0]", "groups[0]" or the plugin's name.
  std::string place(std::string_view key) const;

  std::string owner_;
  const Json* values_;
  const YamlLines* lines_;
  std::vector<std::string> asked_;
  std::string problem_;
};

}  // namespace wideep
