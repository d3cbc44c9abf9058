// Scores: what happens to a logit between scale * q.k and the mask. Piped with >>, left first.
//
// A score is any callable x(x, const where&), generic over scalars and packs of queries. `scale` is the one exception:
// alone, or first in a pipe, it replaces the default 1 / sqrt(D).
#pragma once

#include "roles.hpp"

namespace heed::inline HEED_ABI {

/// No score: the logit as it is.
struct identity {
    using role = roles::score;
    template <class X>
    HEED_INLINE X operator()(X x, const where&) const {
        return x;
    }
};

/// Replaces the scale 1 / sqrt(D) of q.k.
struct scale {
    using role = roles::scale;
    double factor = 1;
    constexpr explicit scale(double f) : factor(f) {}
};

/// first, then second.
template <class First, class Second>
struct pipe {
    using role = roles::score;
    First first;
    Second second;
    template <class X>
    HEED_INLINE X operator()(X x, const where& w) const {
        return second(first(x, w), w);
    }
    void check(const char* op, const extents_of_scores& s) const {
        detail::check_policy(first, op, s);
        detail::check_policy(second, op, s);
    }
};

/// A scale with the scores that follow it.
template <class Score>
struct scaled {
    using role = roles::score;
    scale by;
    Score score;
    template <class X>
    HEED_INLINE X operator()(X x, const where& w) const {
        return score(x, w);
    }
};

template <score_policy A, score_policy B>
constexpr pipe<A, B> operator>>(const A& a, const B& b) {
    return {a, b};
}
template <score_policy B>
constexpr scaled<B> operator>>(const scale& a, const B& b) {
    return {a, b};
}
template <class A, score_policy B>
constexpr scaled<pipe<A, B>> operator>>(const scaled<A>& a, const B& b) {
    return {a.by, {a.score, b}};
}

namespace detail {
/// The score of a pipe without its scale.
template <class Score>
constexpr Score score_of(const Score& s) {
    return s;
}
template <class Score>
constexpr Score score_of(const scaled<Score>& s) {
    return s.score;
}
}  // namespace detail

/// c * tanh(x / c): keeps logits in (-c, c). Gemma 2 and others; ONNX Attention's softcap.
struct softcap {
    using role = roles::score;
    float cap;
    constexpr explicit softcap(double c) : cap(static_cast<float>(c)) {}
    template <class X>
    HEED_INLINE X operator()(X x, const where&) const {
        return X(cap) * tanh(x * X(1 / cap));
    }
    void check(const char* op) const {
        require_argument(cap > 0, op, "softcap is ", cap, ", must be above 0");
    }
};

}  // namespace heed::inline HEED_ABI
