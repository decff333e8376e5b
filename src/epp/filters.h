// Filters of EndpointPickerConfig (names and rules as llm-d has them).
#pragma once

#include "epp/plugin.h"

#include <map>
#include <string>
#include <string_view>
#include <vector>

namespace wideep::epp {

// prefill-filter, decode-filter: keeps endpoints that have one of these roles.
class RoleFilter final : public Filter {
 public:
  // `roles`: RoleBits.
  explicit RoleFilter(uint8_t roles) : roles_(roles) {}

  Candidates filter(PickContext& context, Candidates candidates) override;

 private:
  uint8_t roles_;
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

// data-parallel-rank-filter (wideep's own): a request with the header x-data-parallel-rank goes to
// the endpoint whose label kRankLabel says that rank, as with vLLM.
inline constexpr std::string_view kRankHeader = "x-data-parallel-rank";
inline constexpr std::string_view kRankLabel = "wideep/rank";

class DataParallelRankFilter final : public Filter {
 public:
  Candidates filter(PickContext& context, Candidates candidates) override;
};

}  // namespace wideep::epp
