// The masks of the suite and the models that are named, as data.
#pragma once

#include <vector>

#include "problem.hpp"

namespace bench {

inline const pattern full{"full"};
extern const pattern causal_mask, window_512;  // a token and the 511 before

/// The fourteen masks of LongCA-bench without `full`; those over documents once for each average length, short and
/// long.
std::vector<pattern> published_masks();

/// Random blocks, so many percent of each block row kept, its diagonal always.
pattern block_sparse(int block, int percent);

/// A layer of a model that people run, as it meets a prompt (or, for decode, one token after 4096).
std::vector<problem> models();

/// Whether the pattern draws documents, and their average length.
inline bool has_documents(const pattern& p) { return p.parameter > 0 && p.name.find("document") != std::string::npos; }

}  // namespace bench
