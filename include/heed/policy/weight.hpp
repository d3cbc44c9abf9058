// Weights: how the logits of a row become the weights of its values.
//
//   softmax          p = exp(x - lse)
//   sink{logits}     softmax with one more logit per query head that has no value: it only takes mass away
//   relu_squared     p = max(x, 0)^2                         rows do not sum to 1; partials add [83]
//   laplace          p = (1 + erf((x - mu) / (sd sqrt 2))) / 2   likewise [83]
//   linear           p = x                                   likewise: the product of the logits and the values
#pragma once

#include <cmath>
#include <span>

#include "roles.hpp"

namespace heed::inline HEED_ABI {

struct softmax {
    using role = roles::weight;
    static constexpr bool normalised = true;
};

/// Softmax whose denominator also holds exp(logits[h]); logits of 0 give "softmax off by one". Natural-log units.
/// The sink is part of lse, also in a row that sees no key, so that partials over split keys carry it: give it to one.
struct sink {
    using role = roles::weight;
    static constexpr bool normalised = true;
    std::span<const float> logits;  // H values
    explicit sink(std::span<const float> per_head) : logits(per_head) {}
    void reads(const view_visitor& see) const { see(logits, "sink"); }
    void check(const char* op, const extents_of_scores& s) const {
        require_shape(static_cast<index_t>(logits.size()) == s.H, op, "sink holds ", logits.size(), " logits, q has ",
                      s.H, " heads");
    }
};

struct relu_squared {
    using role = roles::weight;
    static constexpr bool normalised = false;
    template <class X>
    HEED_INLINE X operator()(X x) const {
        const X y = max(x, X(0));
        return y * y;
    }
};

struct linear {
    using role = roles::weight;
    static constexpr bool normalised = false;
    template <class X>
    HEED_INLINE X operator()(X x) const {
        return x;
    }
};

struct laplace {
    using role = roles::weight;
    static constexpr bool normalised = false;
    double mean = 0.707107;       // sqrt(1/2), to the digits of the paper's code
    double deviation = 0.282095;  // sqrt(1 / (4 pi))
    template <class X>
    HEED_INLINE X operator()(X x) const {
        return X(0.5f) * (X(1) + erf((x - X(mean)) * X(0.70710678118654752 / deviation)));
    }
    void check(const char* op) const {
        require_argument(std::isfinite(mean), op, "laplace has mean ", mean, ", must be finite");
        require_argument(deviation > 0 && std::isfinite(deviation), op, "laplace has deviation ", deviation,
                         ", must be above 0 and finite");
    }
};

}  // namespace heed::inline HEED_ABI
