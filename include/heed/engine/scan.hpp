// scan(monoid, inputs, outputs, policies...): every prefix product of a sequence of elements, channel by channel.
//
//   s_t = s_{t-1} x_t, out_t = read(s_t); operands (B, N, C), tokens along N, channels apart
// Sequential in time, SIMD over channels, tasks over sequences and blocks of channels (scan_call.hpp); a token costs
// one step of the monoid per channel and the bytes of its operands, each moved once. Tree scans do more work and lose
// on CPUs; chunked{c} is there for sequences too few and narrow to share out otherwise.
#pragma once

#include "scan_call.hpp"
#include "scan_operands.hpp"

namespace heed::inline HEED_ABI {

/// Operands of a scan, each (B, N, C) with its own strides (0 broadcasts) and element type.
template <class... X>
struct inputs {
    std::tuple<X...> all;
    explicit inputs(const X&... x) : all(x...) {}
};
template <class... X>
struct outputs {
    std::tuple<X...> all;
    explicit outputs(const X&... x) : all(x...) {}
};

namespace detail {

/// Checks and runs a cell over operands: tuples of what is read (B, N, C), what is constant (C), what is written. Own:
/// the roles of policies that the operator has read.
template <class A, class... Own, class Cell, class In, class Constants, class Out, class... P>
void run_scan(const char* op, const Cell& cell, const In& in, const Constants& constants, const Out& out,
              const P&... policies) {
    static_assert(std::tuple_size_v<In> == Cell::inputs && std::tuple_size_v<Constants> == Cell::constants &&
                      std::tuple_size_v<Out> == Cell::outputs,
                  "heed: so many operands do not fit this monoid");
    check_scan_roles<roles::form, Own...>(policies...);
    const auto& first = std::get<0>(out);
    const auto order = sequences::of(op, first.v.shape[0], first.v.shape[1], policies...);
    const index_t segment = segment_tokens(op, policies...);
    const auto state = carried_state(policies...);
    each_operand(out, [&](const auto& y) {
        check_written(op, y);
        check_shape(op, y, first.v.shape, first.name);
    });
    each_operand(in, [&](const auto& x) { check_shape(op, x, first.v.shape, first.name); });
    each_operand(constants, [&](const auto& k) { check_shape(op, k, {first.v.shape[2]}, first.name); });
    each_operand(state, [&](const auto& s) {
        check_written(op, s);
        check_given(op, s, {order.count(), first.v.shape[2], Cell::carried::states}, "the scan");
    });
    check_apart_from_all(op, std::tuple_cat(in, constants), state);
    check_apart_from_all(op, constants, std::tuple_cat(out, state));
    each_operand(in, [&](const auto& x) {
        each_operand(out, [&](const auto& y) { check_same_or_apart(op, y, x); });
    });

    using T = accumulator_of<In, Constants, Out, decltype(state)>;
    const auto carried = view_or_none<T, 3>(state);
    constexpr bool adds = (... || std::is_same_v<P, adding>);
    const scan_call<A, T, Cell, decltype(views_of(in)), decltype(views_of(constants)), decltype(views_of(out)),
                    typename decltype(carried)::value_type>
        call{cell, views_of(in), views_of(constants), views_of(out), carried, order, segment, adds};
    in_scratch(
        op, [&](auto& pool) { return call.scratch_bytes(pool); },
        [&](auto& pool, std::byte* memory) { call.run(pool, memory); }, policies...);
}

template <class F, class... X>
auto numbered(const std::tuple<X...>& all, const char* const (&names)[6], const F& operand_of) {
    return [&]<std::size_t... i>(std::index_sequence<i...>) {
        return std::tuple<decltype(operand_of(names[i], std::get<i>(all)))...>(
            operand_of(names[i], std::get<i>(all))...);
    }
    (std::index_sequence_for<X...>());
}

}  // namespace detail

/// A scan over a monoid: as many inputs as an element has numbers, as many outputs as it writes; an output may be the
/// very view of an input. Policies: carry{state}, packed{offsets}, reversed{}, adding{}, chunked{tokens}, on{pool,
/// arena}. Elements float, double, bf16 or f16, each operand its own; computed in float, or double if any operand is.
/// Throws shape_error or argument_error before anything is written.
template <class A = default_arch, monoid M, class... X, class... Y, class... P>
void scan(const M&, const inputs<X...>& in, const outputs<Y...>& out, const P&... policies) {
    static_assert(M::elements <= 6 && M::states <= 6, "heed: elements and states have at most six numbers");
    static constexpr const char* in_names[] = {"input 0", "input 1", "input 2", "input 3", "input 4", "input 5"};
    static constexpr const char* out_names[] = {"output 0", "output 1", "output 2", "output 3", "output 4", "output 5"};
    const auto x = detail::numbered(in.all, in_names, [](auto name, const auto& v) { return detail::reads(name, v); });
    const auto y =
        detail::numbered(out.all, out_names, [](auto name, const auto& v) { return detail::writes(name, v); });
    detail::run_scan<A>("scan", detail::plain_cell<M>{}, x, std::tuple<>{}, y, policies...);
}

}  // namespace heed::inline HEED_ABI
