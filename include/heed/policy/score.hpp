// Scores: what happens to a logit between scale * q.k and the mask. Piped with >>, left first.
//
// A score is any callable x(x, const where&), generic over scalars and packs of queries. `scale` is the one exception:
// alone, or first in a pipe, it replaces the default 1 / sqrt(D). slope(x, where) is the derivative by x, where it is
// not 1. What reads tables stands in score_bias.hpp, score_distance.hpp, score_gate.hpp.
#pragma once

#include <limits>

#include "roles.hpp"

namespace heed::inline HEED_ABI {

namespace detail {
/// d score / d x at the logit x; 1 for a score that does not say (it adds something that does not depend on x).
template <class Score, class X>
HEED_INLINE X slope(const Score& score, const X& x, const where& w) {
    if constexpr (requires { score.slope(x, w); })
        return score.slope(x, w);
    else
        return X(1);
}
}  // namespace detail

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
    template <class X>
    HEED_INLINE X slope(X x, const where& w) const {
        return detail::slope(second, first(x, w), w) * detail::slope(first, x, w);
    }
    template <class P, int K>
    HEED_INLINE void along_keys(P (&x)[K], const where& w) const {
        detail::along_keys(first, x, w);
        detail::along_keys(second, x, w);
    }
    void reads(const view_visitor& see) const {
        detail::visit_reads(first, see);
        detail::visit_reads(second, see);
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
    template <class X>
    HEED_INLINE X slope(X x, const where& w) const {
        return detail::slope(score, x, w);
    }
    template <class P, int K>
    HEED_INLINE void along_keys(P (&x)[K], const where& w) const {
        detail::along_keys(score, x, w);
    }
    void reads(const view_visitor& see) const { detail::visit_reads(score, see); }
    void check(const char* op, const extents_of_scores& s) const { detail::check_policy(score, op, s); }
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
    double cap;
    constexpr explicit softcap(double c) : cap(c) {}
    template <class X>
    HEED_INLINE X operator()(X x, const where&) const {
        return X(cap) * tanh(x * X(1 / cap));
    }
    template <class X>
    HEED_INLINE X slope(X x, const where&) const {
        const X t = tanh(x * X(1 / cap));
        return X(1) - t * t;
    }
    void check(const char* op) const {
        using range_of_float = std::numeric_limits<float>;  // beyond it the cap or its inverse is 0 or inf
        require_argument(range_of_float::min() <= cap && cap <= range_of_float::max(), op, "softcap is ", cap,
                         ", must be above 0 and finite");
    }
};

/// x / t.
struct temperature {
    using role = roles::score;
    double t;
    constexpr explicit temperature(double value) : t(value) {}
    template <class X>
    HEED_INLINE X operator()(X x, const where&) const {
        return x * X(1 / t);
    }
    template <class X>
    HEED_INLINE X slope(X, const where&) const {
        return X(1 / t);
    }
    void check(const char* op) const { require_argument(t > 0, op, "temperature is ", t, ", must be above 0"); }
};

/// The logit is f(like, where) and not q.k, which is computed but never looked at; `like` only has the type. Distances,
/// kernels of positions, precomputed affinities: affinity(bias(table)).
template <class F>
struct affinity {
    using role = roles::score;
    F f;
    constexpr explicit affinity(const F& of_pair) : f(of_pair) {}
    template <class X>
    HEED_INLINE X operator()(X, const where& w) const {
        return f(X(0), w);
    }
    template <class X>
    HEED_INLINE X slope(X, const where&) const {
        return X(0);
    }
    void reads(const view_visitor& see) const { detail::visit_reads(f, see); }
    void check(const char* op, const extents_of_scores& s) const { detail::check_policy(f, op, s); }
};

}  // namespace heed::inline HEED_ABI
