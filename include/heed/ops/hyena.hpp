// Hyena [55], of any order p >= 2: gates and long convolutions in turn, instead of attention.
//
//   v <- h_o conv (x_(p-1-o) v) for o = 0 ... p - 2;  y = x_0 v
// u (b, n, (p + 1) C) holds x_0, ..., x_(p-1), v, each C channels, after projection and a short convolution; h_o are
// causal filters of C channels, with beta_o as their skip. Cost O(p C N log N), all gates fused into the convolutions;
// O(modes) a token and channel where the filters are distilled into modes [9].
// The order of gate and convolution is that of the released code; the paper counts them the other way about.
#pragma once

#include <span>

#include "../engine/convolution.hpp"
#include "modal_filter.hpp"

namespace heed::inline HEED_ABI {

/// Policy: a past (b, c, K - 1) for each filter, in their order.
template <class T>
struct pasts {
    using role = roles::past;
    std::span<const view<T, 3>> inputs;
    explicit pasts(std::span<const view<T, 3>> p) : inputs(p) {}
};

namespace detail {

template <class T>
std::span<const view<T, 3>> pasts_of(const pasts<T>& given) {
    return given.inputs;
}
template <class T>
std::span<const view<T, 3>> pasts_of(const past<T>& given) {
    return {&given.inputs, 1};
}

/// u (b, n, (p + 1) C) of filters of C channels and y (b, n, c).
template <class U, class Filter, class Y>
void check_hyena(const char* op, const view<U, 3>& u, std::span<const Filter> filters, const view<Y, 3>& y) {
    const auto p = static_cast<index_t>(filters.size()) + 1;
    const auto [B, N, C] = y.shape;
    require_argument(p >= 2, op, "there is no filter, the least order is 2");
    require_shape(u.shape[0] == B && u.shape[1] == N && u.shape[2] == (p + 1) * C, op, "u is (", u.shape[0], ", ",
                  u.shape[1], ", ", u.shape[2], "), order ", p, " and y ask for (", B, ", ", N, ", ", (p + 1) * C, ")");
    for (const Filter& filter : filters)
        require_shape(filter.channels() == C, op, "a filter has ", filter.channels(), " channels, y has ", C);
    require_shape(!overlap(u, y), op, "y overlaps u");
}

/// Stream s of u, C channels wide.
template <class U>
view<U, 3> stream_of(const view<U, 3>& u, index_t s, index_t C) {
    return slice(u, 2, range{s * C, (s + 1) * C});
}

/// to = x v, element by element, in T.
template <class T, class X, class V, class Y>
void multiply_elements(const view<X, 3>& x, const view<V, 3>& v, const view<Y, 3>& to) {
    for (index_t b = 0; b < to.shape[0]; ++b)
        for (index_t n = 0; n < to.shape[1]; ++n)
            for (index_t c = 0; c < to.shape[2]; ++c)
                to(b, n, c) = static_cast<Y>(static_cast<T>(x(b, n, c)) * static_cast<T>(v(b, n, c)));
}

}  // namespace detail

/// u (b, n, (p + 1) C), p - 1 filters, y (b, n, c). Policies: pasts{p}, which make pieces of any lengths one sequence
/// (past{p} is that of the only filter), on{pool, arena}. Throws shape_error or argument_error before anything is
/// written.
template <class U, class T, class A, class Y, class... Policies>
void hyena(const U& u, std::span<const convolution_filter<T, A>> filters, Y&& y, const Policies&... policies) {
    constexpr const char* op = "hyena";
    static_assert(((has_role<Policies, roles::past> || has_role<Policies, roles::context>)&&...),
                  "heed: an argument is not a policy of hyena");
    static_assert(detail::count_of_role<roles::past, Policies...> <= 1, "heed: two pasts");
    const auto in = as_view(u);
    const auto out = as_view(y);
    detail::check_hyena(op, in, filters, out);
    const auto p = static_cast<index_t>(filters.size()) + 1;
    const index_t B = out.shape[0], N = out.shape[1], C = out.shape[2];
    for (const auto& filter : filters) {
        require_argument(filter.ahead() == 0, op, "a filter looks ", filter.ahead(), " tokens ahead");
        require_argument(filter.longest() == 0 || N <= filter.longest(), op, "u has ", N,
                         " tokens, a filter is for at most ", filter.longest());
    }
    const auto given = detail::pick<roles::past>(pasts<T>({}), policies...);
    const auto before = detail::pasts_of(given);
    require_argument(before.empty() || before.size() == filters.size(), op, "there are ",
                     static_cast<index_t>(before.size()), " pasts of ", p - 1, " filters");
    for (std::size_t i = 0; i < before.size(); ++i) {
        require_shape(!overlap(before[i], in) && !overlap(before[i], out), op, "a past overlaps u or y");
        for (std::size_t j = 0; j < i; ++j) require_shape(!overlap(before[i], before[j]), op, "two pasts overlap");
    }
    const auto stream = [&](index_t s) { return detail::stream_of(in, s, C); };
    const auto run = [&](carver& from, const auto& with) {
        // v on its way, one array or two, channel by channel, which is what transforms read fastest.
        T* const memory[] = {from.take<T>(p > 2 ? out.size() : 0), from.take<T>(p > 3 ? out.size() : 0)};
        const auto held = [&](index_t o) { return channels(memory[o % 2], {B, C, N}); };
        for (index_t o = 0; o < p - 1; ++o) {
            const auto i = static_cast<std::size_t>(o);
            const input_gate gate(stream(p - 1 - o));
            const past earlier(before.empty() ? view<T, 3>{} : before[i]);
            const auto convolve = [&](const auto& v) {
                if (o == p - 2)
                    convolution(v, filters[i], out, gate, output_gate(stream(0)), earlier, with);
                else
                    convolution(v, filters[i], held(o), gate, earlier, with);
            };
            if (o == 0)
                convolve(stream(p));
            else
                convolve(held(o - 1));
        }
    };
    detail::in_shared_scratch(op, run, detail::pick<roles::context>(detail::calling_thread{}, policies...));
}
/// Order 2: y = x_0 (h conv (x_1 v)).
template <class U, class T, class A, class Y, class... Policies>
void hyena(const U& u, const convolution_filter<T, A>& filter, Y&& y, const Policies&... policies) {
    hyena(u, std::span<const convolution_filter<T, A>>(&filter, 1), y, policies...);
}

/// With distilled filters, after what their states have seen: any number of tokens, each at a constant cost; with one,
/// a step of decoding. Policies: on{pool, arena}. Throws shape_error or argument_error before anything is written.
template <class U, class T, class A, class Y, class... Policies>
void hyena(const U& u, std::span<const modal_filter<T, A>> filters, Y&& y,
           std::span<typename modal_filter<T, A>::state> states, const Policies&... policies) {
    constexpr const char* op = "hyena";
    static_assert((has_role<Policies, roles::context> && ...), "heed: an argument is not a policy of hyena");
    const auto in = as_view(u);
    const auto out = as_view(y);
    detail::check_hyena(op, in, filters, out);
    require_argument(states.size() == filters.size(), op, "there are ", static_cast<index_t>(states.size()),
                     " states of ", static_cast<index_t>(filters.size()), " filters");
    const index_t C = out.shape[2];
    const auto stream = [&](std::size_t s) { return detail::stream_of(in, static_cast<index_t>(s), C); };
    const auto run = [&](carver& from, const auto& with) {
        const auto v = dense(from.take<T>(out.size()), {out.shape[0], out.shape[1], C});
        for (std::size_t o = 0; o < filters.size(); ++o) {
            const auto gate = stream(filters.size() - o);
            if (!from.counts() && o == 0) detail::multiply_elements<T>(gate, stream(filters.size() + 1), v);
            if (!from.counts() && o > 0) detail::multiply_elements<T>(gate, v, v);
            filters[o](v, v, states[o], with);
        }
        if (!from.counts()) detail::multiply_elements<T>(stream(0), v, out);
    };
    detail::in_shared_scratch(op, run, detail::pick<roles::context>(detail::calling_thread{}, policies...));
}

}  // namespace heed::inline HEED_ABI
