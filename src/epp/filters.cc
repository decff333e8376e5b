#include "epp/filters.h"

#include <algorithm>

namespace wideep::epp {
namespace {

bool contains(const std::vector<std::string>& values, const std::string& value) {
  return std::ranges::find(values, value) != values.end();
}

// Kubernetes' rules: NotIn also holds where the label is missing.
bool holds(const LabelExpression& expression, const Endpoint& endpoint) {
  const std::string* value = endpoint.label(expression.key);
  switch (expression.op) {
    case LabelExpression::Operator::kIn:
      return value != nullptr && contains(expression.values, *value);
    case LabelExpression::Operator::kNotIn:
      return value == nullptr || !contains(expression.values, *value);
    case LabelExpression::Operator::kExists:
      return value != nullptr;
    case LabelExpression::Operator::kDoesNotExist:
      return value == nullptr;
  }
  return false;
}

}  // namespace

Candidates RoleFilter::filter(PickContext& /*context*/, Candidates candidates) {
  std::erase_if(candidates,
                [&](const Endpoint* endpoint) { return (endpoint->roles & roles_) == 0; });
  return candidates;
}

bool LabelSelectorFilter::matches(const Endpoint& endpoint) const {
  const bool labels_match = std::ranges::all_of(labels_, [&](const auto& wanted) {
    const std::string* value = endpoint.label(wanted.first);
    return value != nullptr && *value == wanted.second;
  });
  return labels_match && std::ranges::all_of(expressions_, [&](const LabelExpression& e) {
           return holds(e, endpoint);
         });
}

Candidates LabelSelectorFilter::filter(PickContext& /*context*/, Candidates candidates) {
  std::erase_if(candidates, [&](const Endpoint* endpoint) { return !matches(*endpoint); });
  return candidates;
}

Candidates DataParallelRankFilter::filter(PickContext& context, Candidates candidates) {
  const std::string* rank = context.request.header_value(kRankHeader);
  if (rank == nullptr) return candidates;
  std::erase_if(candidates, [&](const Endpoint* endpoint) {
    const std::string* label = endpoint->label(kRankLabel);
    return label == nullptr || *label != *rank;
  });
  return candidates;
}

}  // namespace wideep::epp
