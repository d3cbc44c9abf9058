// The operands of a scan and of what is built on it, by name, and their checks.
#pragma once

#include <tuple>

#include "../core/half.hpp"
#include "../policy/scan_policies.hpp"

namespace heed::inline HEED_ABI::detail {

/// A view and what errors call it.
template <class T, std::size_t R>
struct operand {
    using element = std::remove_const_t<T>;
    static_assert(storage<element>, "heed: elements are float, double, bf16 or f16");
    view<T, R> v;
    const char* name;
};

template <class T, std::size_t R>
operand<const T, R> reads_view(const char* name, const view<T, R>& x) {
    return {x, name};
}
template <class T, std::size_t R>
operand<T, R> writes_view(const char* name, const view<T, R>& x) {
    static_assert(!std::is_const_v<T>, "heed: the output is a view of const");
    return {x, name};
}
/// What is read, and what is written, of whatever as_view takes.
template <class X>
auto reads(const char* name, const X& x) {
    return reads_view(name, as_view(x));
}
template <class X>
auto writes(const char* name, X&& x) {
    return writes_view(name, as_view(x));
}

template <class... O>
auto views_of(const std::tuple<O...>& operands) {
    return std::apply([](const auto&... o) { return std::tuple(o.v...); }, operands);
}

template <class T, std::size_t R>
void check_shape(const char* op, const operand<T, R>& x, const extents<R>& want, const char* like) {
    for (std::size_t a = 0; a < R; ++a)
        require_shape(x.v.shape[a] == want[a], op, x.name, " has extent ", x.v.shape[a], " on axis ", a, ", ", like,
                      " asks for ", want[a]);
}
/// The same for what may be left out by having no data.
template <class T, std::size_t R>
void check_given(const char* op, const operand<T, R>& x, const extents<R>& want, const char* like) {
    if (x.v.data) check_shape(op, x, want, like);
}
template <class T, std::size_t R>
void check_written(const char* op, const operand<T, R>& x) {
    for (std::size_t a = 0; a < R; ++a)
        require_shape(x.v.shape[a] >= 0, op, x.name, " has extent ", x.v.shape[a], " on axis ", a);
    const bool nothing = x.v.size() == 0;
    for (std::size_t a = 0; a < R; ++a)
        require_shape(nothing || x.v.strides[a] != 0 || x.v.shape[a] <= 1, op, x.name, " has stride 0 on axis ", a,
                      " of extent ", x.v.shape[a]);
}
/// Whether two operands are one and the same, so that each element is read before it is written.
template <class T, std::size_t R, class U, std::size_t Q>
bool same_memory(const operand<T, R>& a, const operand<U, Q>& b) {
    if constexpr (R == Q && std::is_same_v<std::remove_const_t<T>, std::remove_const_t<U>>)
        return a.v.data == b.v.data && a.v.strides == b.v.strides;
    else
        return false;
}
template <class X, class Y>
void check_apart(const char* op, const X& x, const Y& y) {
    require_shape(!overlap(x.v, y.v), op, x.name, " overlaps ", y.name, " in memory");
}
/// y is x itself, or apart from it.
template <class Y, class X>
void check_same_or_apart(const char* op, const Y& y, const X& x) {
    if (!same_memory(y, x)) check_apart(op, y, x);
}
template <class Tuple, class F>
void each_operand(const Tuple& operands, const F& f) {
    std::apply([&](const auto&... o) { (f(o), ...); }, operands);
}
/// Every output is apart from the other outputs and from what is read.
template <class Reads, class Writes>
void check_apart_from_all(const char* op, const Reads& read, const Writes& written) {
    each_operand(written, [&](const auto& y) {
        each_operand(read, [&](const auto& x) { check_apart(op, y, x); });
        each_operand(written, [&](const auto& z) {
            if (static_cast<const void*>(&y) != static_cast<const void*>(&z)) check_apart(op, y, z);
        });
    });
}

/// The carried state as a tuple of at most one operand, (sequences, C, states).
template <class... P>
auto carried_state(const P&... policies) {
    const auto given = pick<roles::state>(no_carry{}, policies...);
    if constexpr (requires { given.s; })
        return std::tuple(writes("the carried state", given.s));
    else
        return std::tuple<>{};
}

template <class Role>
struct absent {
    using role = Role;
};
/// The operand that a policy of this role brings, in a tuple, or none.
template <class Role, class... P>
auto optional_operand(const char* name, const P&... policies) {
    const auto given = pick<Role>(absent<Role>{}, policies...);
    if constexpr (requires { given.x; })
        return std::tuple(reads(name, given.x));
    else
        return std::tuple<>{};
}
/// Its view, or one of T without data.
template <class T, std::size_t R, class... O>
auto view_or_none(const std::tuple<O...>& operand) {
    if constexpr (sizeof...(O) == 1)
        return std::get<0>(operand).v;
    else
        return view<T, R>{};
}

/// double if an element of any operand is.
template <class... Tuples>
struct accumulator_over;
template <class... O>
struct accumulator_over<std::tuple<O...>> {
    using type = accumulator<typename O::element...>;
};
template <class... Tuples>
using accumulator_of = typename accumulator_over<decltype(std::tuple_cat(std::declval<Tuples>()...))>::type;

template <class P, class... Roles>
inline constexpr bool has_one_of = (has_role<P, Roles> || ...);

/// Readable compile errors for a bad policy pack. Own: the roles an operator knows beside those of every scan.
template <class... Own, class... P>
constexpr void check_scan_roles(const P&...) {
    static_assert(
        (has_one_of<P, roles::state, roles::packed, roles::order, roles::writing, roles::context, Own...> && ...),
        "heed: an argument is not a policy of this operator");
    static_assert(((!std::is_same_v<P, non_causal>)&&...), "heed: a scan has an order");
    static_assert(((count_of_role<Own, P...> <= 1) && ...), "heed: two policies of one kind");
    static_assert(count_of_role<roles::state, P...> <= 1, "heed: two carried states");
    static_assert(count_of_role<roles::packed, P...> <= 1, "heed: two packings");
    static_assert(count_of_role<roles::order, P...> <= 1, "heed: two orders");
    static_assert(count_of_role<roles::writing, P...> <= 1, "heed: two ways to write");
    static_assert(count_of_role<roles::context, P...> <= 1, "heed: two contexts");
}

}  // namespace heed::inline HEED_ABI::detail
