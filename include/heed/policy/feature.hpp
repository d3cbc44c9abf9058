// Feature maps: phi applied to the rows of q and k, so that phi(q).phi(k) stands in for a kernel of q and k. A map has
//
//   index_t width(index_t D) const                       the width of phi(x), which is the state's number of rows
//   void operator()(const T* x, index_t D, T* y, const feature_place& at) const      for T float and double
// and, where it has parameters, check(op, D) or check(op, shape of q, shape of k), a row a token, and what
// token_views.hpp asks for.
// With a map the default scale of a recurrence is 1. Maps of products of channels are in feature_power.hpp, random ones
// in feature_random.hpp.
#pragma once

#include <cmath>
#include <numbers>
#include <tuple>

#include "../core/error.hpp"
#include "../core/roles.hpp"
#include "../simd/math.hpp"

namespace heed::inline HEED_ABI {

/// Whose row is mapped: batch entry (or packed sequence), head, token of N, and whether it is a query or a key; `token`
/// is its number in the batch entry, which n is but for packed sequences.
struct feature_place {
    index_t b = 0, h = 0, n = 0, N = 0;
    bool query = false;
    index_t token = n;
};

namespace detail {

/// y[i] = f(x[i]) for i < n, f on packs.
template <class T, class F>
void map_channels(const T* x, index_t n, T* y, const F& f) {
    using P = pack<T>;
    constexpr auto L = static_cast<index_t>(P::size);
    index_t i = 0;
    for (; i + L <= n; i += L) store(y + i, f(load<P>(x + i)));
    if (i == n) return;
    alignas(64) T rest[P::size] = {};
    std::copy_n(x + i, n - i, rest);
    store_aligned(rest, f(load_aligned<P>(rest)));
    std::copy_n(rest, n - i, y + i);
}

/// A sum over the channels of f(x[i]), f on packs with f(0) = 0.
template <class T, class F>
T sum_channels(const T* x, index_t n, const F& f) {
    using P = pack<T>;
    constexpr auto L = static_cast<index_t>(P::size);
    P sum(0);
    index_t i = 0;
    for (; i + L <= n; i += L) sum += f(load<P>(x + i));
    alignas(64) T rest[P::size] = {};
    std::copy_n(x + i, n - i, rest);
    return reduce_add(sum + f(load_aligned<P>(rest)));
}

/// A map of every channel alike: F{}(x), on packs.
template <class F>
struct channel_map {
    using role = roles::features;
    index_t width(index_t D) const { return D; }
    template <class T>
    void operator()(const T* x, index_t D, T* y, const feature_place&) const {
        map_channels(x, D, y, F{});
    }
};

struct relu_of {
    template <class P>
    P operator()(const P& x) const {
        return max(P(0), x);
    }
};
struct exp_of {
    template <class P>
    P operator()(const P& x) const {
        return exp(x);
    }
};
struct elu_plus_one_of {
    template <class P>
    P operator()(const P& x) const {
        return select(x > P(0), x + P(1), exp(x));
    }
};

}  // namespace detail

/// phi(x) = x (the default).
struct identity_features {
    using role = roles::features;
    index_t width(index_t D) const { return D; }
};

/// Rows of q and k are complex: their first half Re, their second Im; o = Re(q^T S). For complex decays, with which
/// state rows are half as many; keys are taken as they are, so a product of q and a key's conjugate wants the conjugate
/// given.
struct complex_rows {
    using role = roles::features;
    index_t width(index_t D) const { return D / 2; }
    void check(const char* op, index_t D) const {
        require_shape(D % 2 == 0, op, "complex rows have an even width, q has ", D);
    }
};

/// phi(x) = elu(x) + 1: x + 1 above 0, e^x below (Katharopoulos et al., arXiv:2006.16236).
struct elu_plus_one : detail::channel_map<detail::elu_plus_one_of> {};

/// phi(x) = max(x, 0).
struct relu_features : detail::channel_map<detail::relu_of> {};

/// phi(x) = e^x.
struct exp_features : detail::channel_map<detail::exp_of> {};

/// phi(x) = [relu(x) cos a, relu(x) sin a], a = pi/2 position / length: a kernel relu(q).relu(k) cos(pi/2 (i - j) /
/// length), which prefers near keys (cosFormer, Qin et al., arXiv:2202.08791). Positions are first, first + 1, ..., all
/// apart by at most `length`: beyond, weights turn negative.
struct cosformer_features {
    using role = roles::features;
    index_t length, first;
    explicit cosformer_features(index_t longest, index_t position_of_first = 0)
        : length(longest), first(position_of_first) {}

    index_t width(index_t D) const { return 2 * D; }
    template <class T>
    void operator()(const T* x, index_t D, T* y, const feature_place& at) const {
        const double angle = std::numbers::pi / 2 * static_cast<double>(first + at.n) / static_cast<double>(length);
        const auto c = static_cast<T>(std::cos(angle)), s = static_cast<T>(std::sin(angle));
        detail::map_channels(x, D, y, [c](const auto& p) { return detail::relu_of{}(p)*c; });
        detail::map_channels(x, D, y + D, [s](const auto& p) { return detail::relu_of{}(p)*s; });
    }
    void check(const char* op, index_t) const {
        require_argument(length >= 1, op, "cosformer_features has length ", length, ", the least is 1");
    }
    auto token_views() { return std::tie(first); }
};

}  // namespace heed::inline HEED_ABI
