#include "cmd/quality.h"

#include "base/json.h"
#include "base/utf8.h"

#include <algorithm>

namespace wideep::cmd {
namespace {

// The characters of `text`, runs of white space as one space, none at the ends.
std::u32string folded(std::string_view text) {
  std::u32string out;
  const std::string clean = sanitize_utf8(text);
  for (size_t i = 0; i < clean.size();) {
    const std::string_view rest = std::string_view(clean).substr(i);
    const char32_t character = decode_utf8(rest);
    i += static_cast<size_t>(utf8_sequence_length(rest));
    const bool is_space = character == U' ' || (character >= U'\t' && character <= U'\r');
    if (!is_space) {
      out += character;
    } else if (!out.empty() && out.back() != U' ') {
      out += U' ';
    }
  }
  if (!out.empty() && out.back() == U' ') out.pop_back();
  return out;
}

Result<Question> parse_question(const Json& item) {
  const Json* question = item.find("question");
  const Json* answer = item.find("answer");
  if (question == nullptr || answer == nullptr || !question->is_string() || !answer->is_string()) {
    return invalid_argument("a question needs the texts 'question' and 'answer'");
  }
  return Question{*question->as_string(), *answer->as_string()};
}

}  // namespace

Result<std::vector<QuestionSet>> parse_questions(std::string_view json) {
  WD_ASSIGN_OR_RETURN(const Json document, parse_json(json));
  if (!document.is_object()) return invalid_argument("an object of question lists is expected");
  std::vector<QuestionSet> result;
  for (const auto& [name, list] : *document.as_object()) {
    const bool has_answers =
        list.is_array() && !list.as_array()->empty() && list.as_array()->front().is_object();
    if (!has_answers) continue;
    QuestionSet& added = result.emplace_back(QuestionSet{name, {}});
    for (const Json& item : *list.as_array()) {
      auto question = parse_question(item);
      if (!question) return with_context(question.error(), name);
      added.questions.push_back(std::move(*question));
    }
  }
  if (result.empty()) return invalid_argument("no list of questions");
  return result;
}

double edit_similarity(std::string_view a, std::string_view b) {
  const std::u32string left = folded(a);
  const std::u32string right = folded(b);
  const size_t longer = std::max(left.size(), right.size());
  if (longer == 0) return 1;
  std::vector<size_t> row(right.size() + 1);
  for (size_t j = 0; j <= right.size(); ++j)
    row[j] = j;
  for (size_t i = 1; i <= left.size(); ++i) {
    size_t diagonal = row[0];
    row[0] = i;
    for (size_t j = 1; j <= right.size(); ++j) {
      const size_t substituted = diagonal + (left[i - 1] == right[j - 1] ? 0 : 1);
      diagonal = row[j];
      row[j] = std::min({row[j] + 1, row[j - 1] + 1, substituted});
    }
  }
  return 1 - static_cast<double>(row.back()) / static_cast<double>(longer);
}

}  // namespace wideep::cmd
