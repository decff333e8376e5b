// Flags of vLLM that wideep has no use for, so that a command line written for vLLM or llm-d either
// works or is refused with the reason: what it asks for is done in any case, or cannot be had.
#pragma once

#include "base/options.h"

namespace wideep::cmd {

void declare_foreign_flags(OptionSet& options);

}  // namespace wideep::cmd
