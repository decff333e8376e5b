// Filters of EndpointPickerConfig (names and rules as llm-d has them).
#pragma once

#include "epp/plugin.h"

#include <map>
#include <string>
#include <vector>

namespace wideep::epp {

// prefill-filter, decode-filter: keeps endpoints whose role label is one of `roles`.
class RoleFilter final : public Filter {
 public:
  RoleFilter(std::vector<std::string> roles, bool allows_no_label)
      : roles_(std::move(roles)), allows_no_label_(allows_no_label) {}

  Candidates filter(PickContext& context, Candidates candidates) override;

  static std::shared_ptr<RoleFilter> prefill();
  static std::shared_ptr<RoleFilter> decode();

 private:
  std::vector<std::string> roles_;
  bool allows_no_label_;
};

// label-selector-filter: matchLabels and matchExpressions of a Kubernetes label selector.
struct LabelExpression {
  enum class Operator { kIn, kNotIn, kExists, kDoesNotExist };
  std::string key;
  Operator op = Operator::kIn;
  std::vector<std::string> values;
};

class LabelSelectorFilter final : public Filter {
 public:
  LabelSelectorFilter(std::map<std::string, std::string> labels,
                      std::vector<LabelExpression> expressions)
      : labels_(std::move(labels)), expressions_(std::move(expressions)) {}

  Candidates filter(PickContext& context, Candidates candidates) override;

 private:
  bool matches(const Endpoint& endpoint) const;
  std::map<std::string, std::string> labels_;
  std::vector<LabelExpression> expressions_;
};

}  // namespace wideep::epp
