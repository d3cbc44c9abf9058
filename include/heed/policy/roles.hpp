// Roles: how a policy pack is read. A policy is a value; its role is known from its type; order never matters.
//
// A policy type names its role by a member `using role = roles::mask;` and so on. Two kinds need no name: a callable
// bool(const where&) is a mask, a callable x(x, const where&) is a score.
#pragma once

#include <concepts>
#include <span>
#include <tuple>
#include <type_traits>

#include "../core/error.hpp"
#include "../core/range.hpp"
#include "../core/roles.hpp"
#include "../core/view.hpp"
#include "../simd/math.hpp"

namespace heed::inline HEED_ABI {

/// Is shown the views a policy refers to, each with its name. A policy has members reads(see) and writes(see) that call
/// it for the memory it reads and for what it records, so that no output overlaps any of them unnoticed.
class view_visitor {
public:
    template <class F>
    view_visitor(const F& f) noexcept
        : object_(&f), call_([](const void* object, const any_view& v, const char* name) {
              (*static_cast<const F*>(object))(v, name);
          }) {}

    void operator()(const any_view& v, const char* name) const { call_(object_, v, name); }
    template <class T>
    void operator()(std::span<T> values, const char* name) const {
        call_(object_, view<T, 1>{values.data(), {static_cast<index_t>(values.size())}, {1}}, name);
    }

private:
    const void* object_;
    void (*call_)(const void*, const any_view&, const char*);
};

/// The extents of the logits a mask or score is about to meet.
struct extents_of_scores {
    index_t B = 0, H = 0, N = 0, M = 0;
};

/// What the lanes of a pack of logits are: neighbouring query rows, or neighbouring keys.
enum class lane_axis { rows, keys };

/// Where a logit stands: batch, query head, query row, the row's position i on the key axis, and the position j of the
/// key. Masks read the fields. Scores, which map a pack of logits at once, call query, key and gap, which have the type
/// of x; the fields are those of lane 0, and lane(l) those of lane l.
struct where {
    index_t b = 0;
    index_t h = 0;
    index_t row = 0;
    index_t i = 0;
    index_t j = 0;
    lane_axis lanes = lane_axis::rows;
    const index_t* places = nullptr;  // positions of the keys in the lanes, where they are not neighbours

    /// The query's position on the key axis, per lane.
    template <class X>
    HEED_INLINE X query(const X& like) const {
        return along<lane_axis::rows>(like, i);
    }
    /// The query's row, per lane.
    template <class X>
    HEED_INLINE X query_row(const X& like) const {
        return along<lane_axis::rows>(like, row);
    }
    /// The key's position, per lane.
    template <class X>
    HEED_INLINE X key(const X& like) const {
        if constexpr (is_pack<X>::value)
            if (places) return placed(like);
        return along<lane_axis::keys>(like, j);
    }
    /// query - key: how far back the key lies (negative: ahead), per lane. Exact while positions are below 2^24 apart.
    template <class X>
    HEED_INLINE X gap(const X& like) const {
        if constexpr (is_pack<X>::value) {
            if (places) return X(static_cast<typename X::value_type>(i)) - placed(like);
            const X base(static_cast<typename X::value_type>(i - j));
            return lanes == lane_axis::rows ? base + iota<X>() : base - iota<X>();
        } else {
            return static_cast<X>(i - j);
        }
    }
    /// The place of lane l alone.
    constexpr where lane(index_t l) const {
        where one{b, h, row, i, j};
        if (lanes == lane_axis::rows) {
            one.row += l;
            one.i += l;
        } else {
            one.j = places ? places[l] : j + l;
        }
        return one;
    }

private:
    template <lane_axis Axis, class X>
    HEED_INLINE X along(const X&, index_t first) const {
        if constexpr (is_pack<X>::value) {
            const X base(static_cast<typename X::value_type>(first));
            return lanes == Axis ? base + iota<X>() : base;
        } else {
            return static_cast<X>(first);
        }
    }
    template <class X>
    X placed(const X&) const {
        alignas(64) typename X::value_type at[X::size];
        for (std::size_t l = 0; l < X::size; ++l) at[l] = static_cast<typename X::value_type>(places[l]);
        return load_aligned<X>(at);
    }
};

namespace detail {
template <class P>
auto role_of() {
    if constexpr (requires { typename P::role; })
        return typename P::role{};
    else if constexpr (std::is_invocable_r_v<bool, const P&, const where&>)
        return roles::mask{};
    else if constexpr (requires(const P& p, float x, const where& w) {
                           { p(x, w) } -> std::convertible_to<float>;
                       })
        return roles::score{};
    else
        return roles::stranger{};
}
}  // namespace detail

template <class P>
using role_of = decltype(detail::role_of<std::remove_cvref_t<P>>());
template <class P, class Role>
inline constexpr bool has_role = std::is_same_v<role_of<P>, Role>;

template <class P>
concept mask_policy = has_role<P, roles::mask>;
template <class P>
concept score_policy = has_role<P, roles::score>;
template <class P>
concept probe_policy = has_role<P, roles::probe>;

namespace detail {

template <class Role, class... P>
inline constexpr int count_of_role = (0 + ... + int(has_role<P, Role>));

/// The policy of this role in the pack, or `otherwise`.
template <class Role, class Default>
constexpr Default pick(const Default& otherwise) {
    return otherwise;
}
template <class Role, class Default, class First, class... Rest>
constexpr auto pick(const Default& otherwise, const First& first, const Rest&... rest) {
    if constexpr (has_role<First, Role>)
        return first;
    else
        return pick<Role>(otherwise, rest...);
}

template <bool Kept, class P>
constexpr auto one_or_none(const P& policy) {
    if constexpr (Kept)
        return std::make_tuple(policy);
    else
        return std::tuple<>{};
}
template <class P, class... Roles>
inline constexpr bool has_any_role = (has_role<P, Roles> || ...);

/// All policies of this role, as a tuple.
template <class Role, class... P>
constexpr auto pick_all(const P&... policies) {
    return std::tuple_cat(one_or_none<has_role<P, Role>>(policies)...);
}
/// All policies but those of these roles, as a tuple.
template <class... Roles, class... P>
constexpr auto leave_out(const P&... policies) {
    return std::tuple_cat(one_or_none<!has_any_role<P, Roles...>>(policies)...);
}

/// A policy's own checks of its parameters against the extents, where it has any.
template <class P>
void check_policy(const P& policy, const char* op, const extents_of_scores& s) {
    if constexpr (requires { policy.check(op, s); })
        policy.check(op, s);
    else if constexpr (requires { policy.check(op); })
        policy.check(op);
}

/// Shows the views a policy reads, or writes, where it has any.
template <class P>
void visit_reads(const P& policy, const view_visitor& see) {
    if constexpr (requires { policy.reads(see); }) policy.reads(see);
}
template <class P>
void visit_writes(const P& policy, const view_visitor& see) {
    if constexpr (requires { policy.writes(see); }) policy.writes(see);
}

/// Maps the logits of K neighbouring keys, the first of them w.j. A policy that reads a tensor along the keys says how by
/// a member along_keys(x, w); any other is called key by key.
template <class F, class P, int K>
HEED_INLINE void along_keys(const F& f, P (&x)[K], const where& w) {
    if constexpr (requires { f.along_keys(x, w); })
        f.along_keys(x, w);
    else
        unroll<K>([&](auto k) HEED_INLINE_LAMBDA {
            where here = w;
            here.j += k;
            x[k] = f(x[k], here);
        });
}

/// Readable compile errors for a bad policy pack.
template <class... P>
constexpr void check_roles() {
    static_assert(((!has_role<P, roles::stranger>)&&...), "heed: an argument is not a policy of this operator");
    static_assert(count_of_role<roles::mask, P...> <= 1, "heed: two masks; combine them with & or |");
    static_assert(count_of_role<roles::score, P...> <= 1, "heed: two scores; chain them with >>");
    static_assert(count_of_role<roles::weight, P...> <= 1, "heed: two weights");
    static_assert(count_of_role<roles::offset, P...> <= 1, "heed: two offsets");
    static_assert(count_of_role<roles::scale, P...> <= 1, "heed: two scales");
    static_assert(count_of_role<roles::context, P...> <= 1, "heed: two contexts");
}

}  // namespace detail
}  // namespace heed::inline HEED_ABI
