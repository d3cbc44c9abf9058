// A contestant: a way to compute attention. One small file each.
#pragma once

#include <string_view>

#include "../../support/crew.hpp"
#include "../operands.hpp"

namespace bench {

struct contestant {
    const char* name;
    bool (*able)(const problem&);               // whether it can, within sensible time and memory
    job (*prepare)(const problem&, operands&);  // does what need not be timed; each call of the job is one attention
};

/// heed first, then whoever was found when the suite was built.
std::span<const contestant> contestants();

/// A contestant by name; null where it was not built.
const contestant* find_contestant(std::string_view name);

}  // namespace bench
