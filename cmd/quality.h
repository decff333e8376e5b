// The quality score: how near the answers of a model come to those it should give.
#pragma once

#include "base/result.h"

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace wideep::cmd {

struct Question {
  std::string text;
  std::string answer;
};

// A list of questions of one kind: "trained", "held_out".
struct QuestionSet {
  std::string name;
  std::vector<Question> questions;
};

// Reads {"trained": [{"question": …, "answer": …}, …], "held_out": […]}: every member that is a
// list is a set; others describe.
Result<std::vector<QuestionSet>> parse_questions(std::string_view json);

// 1 - (edit distance / length of the longer), over characters after white space is folded: 1 is
// equal.
double edit_similarity(std::string_view a, std::string_view b);

}  // namespace wideep::cmd
