// Rotary position embedding: pairs of channels turn by an angle that grows with the position, so that q.k depends on
// position differences only.
//
//   (x1, x2) -> (c x1 - s x2, s x1 + c x2),  c = cos a, s = sin a,  a = position * frequency(pair)
//
// x, o: (b, h, n, d), any strides, the same view (in place) or apart. Cost: one pass; the angles once per token, not
// per head. Su et al., RoFormer, arXiv:2104.09864.
#pragma once

#include "../core/context.hpp"
#include "../policy/rotation.hpp"

namespace heed::inline HEED_ABI {
namespace detail {

/// Reads `pairs` of one row as T, turns them, writes them.
template <bool Interleaved, class A, class T, class X, class O>
void turn_row(const X* x, index_t x_step, O* o, index_t o_step, index_t half, range pairs, const T* cos,
              const T* sin) noexcept {
    T y[2 * pairs_at_once];
    const index_t n = pairs.size();
    if constexpr (Interleaved) {
        widen_row<A>(x + 2 * pairs.first * x_step, x_step, 2 * n, y);
        for (index_t p = 0; p < n; ++p) {
            const T x1 = y[2 * p], x2 = y[2 * p + 1];
            y[2 * p] = cos[p] * x1 - sin[p] * x2;
            y[2 * p + 1] = sin[p] * x1 + cos[p] * x2;
        }
        narrow_row<A>(y, 2 * n, o + 2 * pairs.first * o_step, o_step);
    } else {
        T* const z = y + pairs_at_once;
        widen_row<A>(x + pairs.first * x_step, x_step, n, y);
        widen_row<A>(x + (half + pairs.first) * x_step, x_step, n, z);
        for (index_t p = 0; p < n; ++p) {
            const T x1 = y[p], x2 = z[p];
            y[p] = cos[p] * x1 - sin[p] * x2;
            z[p] = sin[p] * x1 + cos[p] * x2;
        }
        narrow_row<A>(y, n, o + pairs.first * o_step, o_step);
        narrow_row<A>(z, n, o + (half + pairs.first) * o_step, o_step);
    }
}

template <class A, class T, class X, class O>
void copy_row(const X* x, index_t x_step, O* o, index_t o_step, range channels) noexcept {
    T y[2 * pairs_at_once];
    for (index_t d = channels.first; d < channels.last; d += 2 * pairs_at_once) {
        const index_t n = std::min(2 * pairs_at_once, channels.last - d);
        widen_row<A>(x + d * x_step, x_step, n, y);
        narrow_row<A>(y, n, o + d * o_step, o_step);
    }
}

template <class T>
view<const T> read_only(const view<T>& x) {
    return x;
}

/// The given tokens of every sequence and head.
template <bool Interleaved, class A, class T, class X, class O, class Angles, class Position>
void rotate_tokens(const view<const X>& x, const view<O>& o, index_t width, const Angles& angles, const Position& at,
                   range tokens) noexcept {
    using turning = turns<A, T, Angles>;
    const index_t B = x.shape[0], H = x.shape[1], D = x.shape[3];
    for (index_t first = 0; first < width / 2; first += pairs_at_once) {
        const range pairs{first, std::min(width / 2, first + pairs_at_once)};
        turning by(angles, pairs, width);
        for (index_t n0 = tokens.first; n0 < tokens.last; n0 += tokens_at_once) {
            const index_t count = std::min(tokens_at_once, tokens.last - n0);
            for (index_t b = 0; b < B; ++b) {
                if (b == 0 || turning::by_token || !Position::same_in_batch)
                    for (index_t t = 0; t < count; ++t) by.fill(t, b, n0 + t, at(b, n0 + t));
                for (index_t h = 0; h < H; ++h)
                    for (index_t t = 0; t < count; ++t)
                        turn_row<Interleaved, A>(&x(b, h, n0 + t, 0), x.strides[3], &o(b, h, n0 + t, 0), o.strides[3],
                                                 width / 2, pairs, by.cos[t], by.sin[t]);
            }
        }
    }
    const bool in_place = static_cast<const void*>(x.data) == static_cast<const void*>(o.data);
    if (width == D || in_place) return;
    for (index_t b = 0; b < B; ++b)
        for (index_t h = 0; h < H; ++h)
            for (index_t n = tokens.first; n < tokens.last; ++n)
                copy_row<A, T>(&x(b, h, n, 0), x.strides[3], &o(b, h, n, 0), o.strides[3], {width, D});
}

template <class... P>
constexpr void check_rotary_roles() {
    static_assert(((has_role<P, roles::pairing> || has_role<P, roles::width> || has_role<P, roles::angles> ||
                    has_role<P, roles::positions> || has_role<P, roles::offset> || has_role<P, roles::context>)&&...),
                  "heed: an argument is not a policy of rotary");
    static_assert(count_of_role<roles::pairing, P...> <= 1, "heed: two pairings");
    static_assert(count_of_role<roles::width, P...> <= 1, "heed: two widths");
    static_assert(count_of_role<roles::angles, P...> <= 1, "heed: two sources of angles");
    static_assert(count_of_role<roles::positions, P...> + count_of_role<roles::offset, P...> <= 1,
                  "heed: positions and offset say the same thing, give one");
    static_assert(count_of_role<roles::context, P...> <= 1, "heed: two contexts");
}

template <class X, class O>
void check_rotary_views(const view<const X>& x, const view<O>& o) {
    constexpr const char* op = "rotary";
    constexpr const char* axes[] = {"batch", "head", "token", "channel"};
    for (std::size_t a = 0; a < 4; ++a) {
        require_shape(x.shape[a] >= 0, op, axes[a], " extent of x is ", x.shape[a]);
        require_shape(x.shape[a] == o.shape[a], op, axes[a], " extent of o is ", o.shape[a], ", of x ", x.shape[a]);
        require_shape(o.shape[a] <= 1 || o.strides[a] != 0, op, axes[a], " stride of o is 0");
    }
    const bool same = std::is_same_v<X, O> && static_cast<const void*>(x.data) == static_cast<const void*>(o.data) &&
                      x.strides == o.strides;
    require_shape(same || !overlap(x, o), op, "o overlaps x and is not the same view");
}

/// The tables the angles and positions come from fit the tokens, and o does not touch them.
template <class O, class Angles, class Position>
void check_rotary_tables(const view<O>& o, const Angles& angles, const Position& at, index_t pairs) {
    constexpr const char* op = "rotary";
    const index_t B = o.shape[0], N = o.shape[2];
    angles.check(op, pairs);
    if constexpr (requires { at.ids; }) {
        require_shape(at.ids.shape == extents<2>{B, N}, op, "positions are of (", at.ids.shape[0], ", ",
                      at.ids.shape[1], ") tokens, x of (", B, ", ", N, ")");
        require_shape(!overlap(o, at.ids), op, "o overlaps the positions");
    }
    if constexpr (requires { angles.cos; }) {
        require_shape(!overlap(o, angles.cos) && !overlap(o, angles.sin), op, "o overlaps the cache");
        const auto& shape = angles.cos.shape;
        if constexpr (Angles::by_token)
            require_shape(shape[0] == B && shape[1] == N, op, "the cache is of (", shape[0], ", ", shape[1],
                          ") tokens, x of (", B, ", ", N, ")");
        else
            for (index_t b = 0; b < (Position::same_in_batch ? std::min<index_t>(B, 1) : B); ++b)
                for (index_t n = 0; n < N; ++n)
                    require_argument(at(b, n) >= 0 && at(b, n) < shape[0], op, "position ", at(b, n), " of a cache of ",
                                     shape[0]);
    }
}

}  // namespace detail

/// Turns x into o, both (b, h, n, d). Policies, in any order: half_split{} or interleaved{}; rotated{channels};
/// theta{base}, frequencies{...} or rotary_cache{cos, sin}; offset{n} or positions{ids}; on{executor}.
template <class A = default_arch, class X, class O, class... P>
void rotary(const X& x, O&& o, const P&... policies) {
    detail::check_rotary_roles<P...>();
    const auto in = detail::read_only(as_view(x));
    const auto out = as_view(o);
    using T = accumulator<typename decltype(in)::value_type, typename decltype(out)::value_type>;
    constexpr bool interleave =
        std::is_same_v<decltype(detail::pick<roles::pairing>(half_split{}, policies...)), interleaved>;
    const auto angles = detail::pick<roles::angles>(theta{10000}, policies...);
    const auto at = detail::pick<roles::positions>(
        detail::positions_in_order{detail::pick<roles::offset>(offset{0}, policies...).n}, policies...);
    if constexpr (requires { angles.by_token; })
        static_assert(!angles.by_token || !(... || (has_role<P, roles::positions> || has_role<P, roles::offset>)),
                      "heed: a cache by token takes neither positions nor offset");

    const index_t N = in.shape[2], D = in.shape[3];
    const index_t width = detail::pick<roles::width>(rotated{D}, policies...).channels;
    detail::check_rotary_views(in, out);
    require_argument(width >= 0 && width <= D, "rotary", "width is ", width, ", x has ", D, " channels");
    require_argument(width % 2 == 0, "rotary", "width ", width, " is odd, channels turn in pairs");
    detail::check_rotary_tables(out, angles, at, width / 2);
    if (in.size() == 0) return;

    constexpr index_t block = 64;  // tokens a task: enough that the frequencies of a task cost nothing
    static constexpr serial here;
    const auto context = detail::pick<roles::context>(on(here), policies...);
    for_tasks(*context.pool, ceil_div(N, block), [&](index_t task, index_t) {
        const range tokens{task * block, std::min(N, (task + 1) * block)};
        detail::rotate_tokens<interleave, A, T>(in, out, width, angles, at, tokens);
    });
}

}  // namespace heed::inline HEED_ABI
