// xPos: rotations whose logits fade with distance, for lengths beyond those trained on [105] (arXiv:2212.10554).
//
//   q at i -> zeta^((i - centre) / spread) R(i) q,   k at j -> zeta^(-(j - centre) / spread) R(j) k
//   so that pair p of q.k is zeta_p^((i - j) / spread) times that of rotary,  zeta_p = (2 p / w + gamma) / (1 + gamma)
// Only for causal attention: ahead of the query the powers grow. Both magnitudes move away from 1 with the distance
// from `centre`: an f16 key far from it overflows, so put it amid the positions; any centre gives the same logits.
#pragma once

#include "rotation.hpp"

namespace heed::inline HEED_ABI {
namespace detail {

/// Sign is 1 for queries, -1 for keys.
template <int Sign>
struct xpos {
    using role = roles::angles;
    index_t centre;
    double spread, gamma;
    theta plain;
    constexpr explicit xpos(index_t centre_position = 0, double scale_base = 512, double decay = 0.4,
                            double base = 10000)
        : centre(centre_position), spread(scale_base), gamma(decay), plain(base) {}

    double frequency(index_t pair, index_t width) const { return plain.frequency(pair, width); }
    double magnitude(index_t position, index_t pair, index_t width) const {
        const double zeta = (2 * static_cast<double>(pair) / static_cast<double>(width) + gamma) / (1 + gamma);
        return std::pow(zeta, Sign * static_cast<double>(position - centre) / spread);
    }
    void check(const char* op, index_t pairs) const {
        require_argument(spread > 0, op, "the spread of xPos is ", spread, ", must be above 0");
        require_argument(gamma > 0, op, "gamma of xPos is ", gamma, ", must be above 0");
        plain.check(op, pairs);
    }
};

}  // namespace detail

/// Angles of queries and of keys: {centre = 0, spread = 512, gamma = 0.4, base = 10000}, the same for both.
using xpos_queries = detail::xpos<1>;
using xpos_keys = detail::xpos<-1>;

}  // namespace heed::inline HEED_ABI
