// AttnRank [112]: the most relevant document goes where the model looks most.
//
//   profile m_p = mean weight that place p of calibration prompts receives, by segment_attention and mean_mass
//   the r-th best document stands at the r-th best place, which maximises sum_p relevance(p) m_p
#pragma once

#include "attention_sorting.hpp"

namespace heed::inline HEED_ABI {

/// Document order[p] stands at place p. Ties go to the lower number. profile and relevance are of one length.
inline std::vector<index_t> attn_rank(std::span<const double> profile, std::span<const double> relevance) {
    static constexpr const char* op = "attn_rank";
    require_shape(profile.size() == relevance.size(), op, "there are ", profile.size(), " places and ",
                  relevance.size(), " documents");
    const auto places = detail::order_of(profile, op, "a mass of the profile", std::greater<>{});
    const auto documents = detail::order_of(relevance, op, "a relevance", std::greater<>{});
    std::vector<index_t> order(places.size());
    for (std::size_t r = 0; r < places.size(); ++r) order[static_cast<std::size_t>(places[r])] = documents[r];
    return order;
}

}  // namespace heed::inline HEED_ABI
