// What stands before decoding: prompts, prefilled in several ways.
#pragma once

#include "step.hpp"

namespace bench {

/// decode/prefill_<way>/f32/..., of N tokens.
std::vector<measurement> prefill_rows(index_t N, int crew);

}  // namespace bench
