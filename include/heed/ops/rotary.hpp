// Rotary position embedding: pairs of channels turn by an angle that grows with the position, so that q.k depends on
// position differences only.
//
//   (x1, x2) -> (c x1 - s x2, s x1 + c x2),  c = cos a, s = sin a,  a = position * frequency(pair)
//
// x, o: (b, h, n, d), any strides, the same view (in place) or apart. Cost: one pass; the angles once per token, not
// per head. Su et al., RoFormer, arXiv:2104.09864.
#pragma once

#include "../core/context.hpp"
#include "../policy/rotate.hpp"

namespace heed::inline HEED_ABI {
namespace detail {

template <class T>
view<const T> read_only(const view<T>& x) {
    return x;
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
