// The answers to GET /expert_load: of one rank, and of all ranks behind a door. Thread: any.
#pragma once

#include "base/json.h"
#include "cmd/engine_host.h"

#include <string>
#include <vector>

namespace wideep::cmd {

// Of one rank: rows and bytes that its experts have computed, by layer and expert, and that it has
// sent, by layer and rank (ep::ExpertLoad::to_json). A rank by itself is a group of one that sends
// all to itself. Null if the model has no experts.
Json expert_load(const EngineHost& host);

// The same of all ranks behind a door, from the documents of each, with what only all of them
// together show: per layer the rows of each rank and how even they are, and who sent how much to
// whom. Texts that are no such documents are left out.
Json merge_expert_load(const std::vector<std::string>& documents);

}  // namespace wideep::cmd
