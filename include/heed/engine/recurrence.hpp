// recurrence(q, k, v, o, policies...): a matrix state carried along a sequence, per head
//
//   S_t = A_t S_{t-1} + k_t w_t^T      o_t = scale q_t^T S_t        S (D, E)
// with A and w by the policies of decay and update (policy/decay.hpp, update.hpp). Linear attention, retention, gated linear
// attention, state-space duality and delta rules are choices of policies; ops/ has them by name.
// Cost: 4 D E flops a token and head (delta rules 6 D E), whatever the length of the sequence.
#pragma once

#include <optional>

#include "../policy/position.hpp"
#include "../policy/roles.hpp"
#include "../policy/token_views.hpp"
#include "recurrence_call.hpp"
#include "scratch.hpp"

namespace heed::inline HEED_ABI {
namespace detail {

template <class... P>
constexpr void check_recurrence_roles() {
    static_assert(((has_role<P, roles::decay> || has_role<P, roles::update> || has_role<P, roles::read> ||
                    has_role<P, roles::features> || has_role<P, roles::normaliser> || has_role<P, roles::form> ||
                    has_role<P, roles::order> || has_role<P, roles::packed> || has_role<P, roles::state> ||
                    has_role<P, roles::scale> || has_role<P, roles::context>)&&...),
                  "heed: an argument is not a policy of recurrences");
    static_assert(count_of_role<roles::decay, P...> <= 1, "heed: two decays");
    static_assert(count_of_role<roles::update, P...> <= 1, "heed: two updates");
    static_assert(count_of_role<roles::read, P...> <= 1, "heed: two ways to read the state");
    static_assert(count_of_role<roles::features, P...> <= 1, "heed: two feature maps");
    static_assert(count_of_role<roles::normaliser, P...> <= 1, "heed: two normalisers");
    static_assert(count_of_role<roles::form, P...> <= 1, "heed: two forms");
    static_assert(count_of_role<roles::order, P...> <= 1, "heed: two orders");
    static_assert(count_of_role<roles::packed, P...> <= 1, "heed: two packings");
    static_assert(count_of_role<roles::state, P...> <= 1, "heed: two states");
    static_assert(count_of_role<roles::scale, P...> <= 1, "heed: two scales");
    static_assert(count_of_role<roles::context, P...> <= 1, "heed: two contexts");
}

/// The state of a policy pack, by address; or nullptr of the type its sums have.
template <class T>
state<T>* state_in() {
    return nullptr;
}
template <class T, class First, class... Rest>
state<T>* state_in(First& first, Rest&... rest) {
    if constexpr (has_role<First, roles::state>) {
        static_assert(std::is_same_v<std::remove_cv_t<First>, state<T>>,
                      "heed: the state is of another type than the recurrence sums in");
        static_assert(!std::is_const_v<First>, "heed: the state is const, and would be updated");
        return &first;
    } else {
        return state_in<T>(rest...);
    }
}

/// Extents of the operands, checked. Apart: queries are as many as they like.
template <bool Apart, class Q, class K, class V, class O>
recurrence_extents check_recurrence(const char* op, const view<const Q>& q, const view<const K>& k,
                                    const view<const V>& v, const view<O>& o, index_t steps) {
    const auto whole = [&](const auto& x) {
        for (index_t extent : x.shape) require_shape(extent >= 0, op, "an extent is negative: ", extent);
    };
    const auto same = [&](index_t a, const char* x, index_t b, const char* y, const char* what) {
        require_shape(a == b, op, x, " has ", what, " ", a, ", ", y, " has ", b);
    };
    whole(q), whole(k), whole(v), whole(o);
    same(k.shape[0], "k", q.shape[0], "q", "batch");
    same(v.shape[0], "v", q.shape[0], "q", "batch");
    same(o.shape[0], "o", q.shape[0], "q", "batch");
    if constexpr (Apart)
        require_shape(k.shape[2] % steps == 0, op, "k has ", k.shape[2], " tokens, no multiple of the ", steps,
                      " factors");
    else
        same(k.shape[2], "k", q.shape[2] * steps, steps == 1 ? "q" : "q, times the factors,", "tokens");
    same(v.shape[2], "v", k.shape[2], "k", "tokens");
    same(o.shape[2], "o", q.shape[2], "q", "tokens");
    same(k.shape[3], "k", q.shape[3], "q", "width");
    same(o.shape[3], "o", v.shape[3], "v", "width");
    const index_t heads = std::max(k.shape[1], v.shape[1]);
    const auto fits = [&](index_t of, const char* name, bool may_exceed) {
        const bool ok = heads == 0 ? of == 0 : of > 0 && (heads % of == 0 || (may_exceed && of % heads == 0));
        require_shape(ok, op, name, " has ", of, " heads, which do not go with the ", heads, " of the state");
    };
    fits(k.shape[1], "k", false);
    fits(v.shape[1], "v", false);
    fits(q.shape[1], "q", true);
    same(o.shape[1], "o", std::max(q.shape[1], heads), "the larger of q and the state", "heads");
    for (std::size_t a = 0; a < 4; ++a)
        require_shape(o.strides[a] != 0 || o.shape[a] <= 1, op, "o has stride 0 on axis ", a, " of extent ", o.shape[a]);
    const auto apart = [&](const auto& x, const char* name) {
        require_shape(!o.data || !x.data || !overlap(o, x), op, "o overlaps ", name, " in memory");
    };
    apart(q, "q"), apart(k, "k"), apart(v, "v");
    return {q.shape[0], heads, Apart ? k.shape[2] / steps : q.shape[2], q.shape[3], v.shape[3]};
}

/// Throws where o shares memory with what policies read.
template <class O, class... P>
void check_apart(const char* op, const view<O>& o, const char* const (&names)[sizeof...(P)], const P&... policies) {
    const char* const* name = names;
    const auto apart = [&](const auto& x) {
        require_shape(!overlap(o, x), op, "o overlaps the ", *name, " in memory");
    };
    ((each_view(policies, apart), ++name), ...);
}

template <class T>
void check_state(const char* op, const state<T>* s, const recurrence_extents& x, index_t rows) {
    if (!s) return;
    const extents<4> want{x.B, x.heads, rows, x.E};
    constexpr const char* axes[] = {"sequences", "heads", "rows", "columns"};
    for (std::size_t a = 0; a < 4; ++a)
        require_shape(s->shape()[a] == want[a], op, "the state has ", s->shape()[a], " ", axes[a], ", the call needs ", want[a]);
}

/// Whether blocks of tokens may pay: token by token a delta rule reads its state twice and waits for the first reading,
/// which a block of a large state saves. Measured at D = E = 64 and 128, where products of two factors gain as well and
/// those of four do not; decays of rows and complex ones gain nothing, those of columns and low ranks lose half.
template <class Loader>
inline constexpr bool blocks_may_pay =
    (Loader::decay == decay_kind::none || Loader::decay == decay_kind::scalar) &&
    (Loader::update == update_kind::delta || Loader::update == update_kind::householder);
template <class Loader, class Form>
inline constexpr bool in_blocks =
    std::is_same_v<Form, fastest_form> ? blocks_may_pay<Loader> : !std::is_same_v<Form, recurrent>;

/// Which form is computed, and in which chunks. A state without rows has none: its outputs are empty sums, and products
/// of tokens that are 0 would meet a NaN.
template <class Loader, class Form>
form_choice choose_form(const char* op, const Form& form, index_t N, index_t D, index_t steps) {
    if constexpr (!in_blocks<Loader, Form>) {
        return {0};
    } else if constexpr (std::is_same_v<Form, fastest_form>) {
        return {N >= token_block && D >= 96 && steps <= 2 ? token_block : 0, token_block};
    } else if constexpr (std::is_same_v<Form, parallel>) {
        return {D > 0 ? std::max<index_t>(N, 1) : 0};
    } else {
        form.check(op);
        return {D > 0 ? std::min(form.tokens, std::max<index_t>(N, 1)) : 0};
    }
}

/// Reads the operands and the policy pack into a call, and hands it to f. Checks everything.
template <class A, class Q, class K, class V, class O, class F, class... P>
void with_recurrence(const char* op, const view<Q>& q, const view<K>& k, const view<V>& v, const view<O>& o, F&& f,
                     P&... policies) {
    check_recurrence_roles<P...>();
    using q_type = std::remove_const_t<Q>;
    using k_type = std::remove_const_t<K>;
    using v_type = std::remove_const_t<V>;
    static_assert(storage<q_type> && storage<k_type> && storage<v_type> && storage<O>,
                  "heed: elements are float, double, bf16 or f16, the output's not const");
    using T = accumulator<q_type, k_type, v_type, O>;
    const auto forget = pick<roles::decay>(no_decay{}, policies...);
    const auto write = pick<roles::update>(additive_update{}, policies...);
    const auto observe = pick<roles::read>(read_after{}, policies...);
    const auto features = pick<roles::features>(identity_features{}, policies...);
    const auto normaliser = pick<roles::normaliser>(not_normalised{}, policies...);
    const auto form = pick<roles::form>(fastest_form{}, policies...);
    const auto order = pick<roles::order>(causal_order{}, policies...);
    const auto sequences = pick<roles::packed>(not_packed{}, policies...);
    const auto factor = pick<roles::scale>(inverse_root_of_width{}, policies...);
    state<T>* const carried = state_in<T>(policies...);
    using Features = std::remove_const_t<decltype(features)>;
    using Loader = recurrence_loader<A, T, q_type, k_type, v_type, std::remove_const_t<decltype(forget)>,
                                     std::remove_const_t<decltype(write)>, std::remove_const_t<decltype(observe)>, Features>;
    static_assert(Loader::read != read_kind::bonus || Loader::update == update_kind::additive,
                  "heed: a bonus goes with additive updates only");
    using Call = recurrence_call<A, T, Loader, O, std::remove_const_t<decltype(normaliser)>,
                                 std::remove_const_t<decltype(order)>, std::remove_const_t<decltype(sequences)>,
                                 in_blocks<Loader, std::remove_const_t<decltype(form)>>>;
    static_assert(Loader::read == read_kind::after || Call::causal,
                  "heed: a bonus and reads before the token go with causal orders only");
    static_assert(Loader::update == update_kind::additive || !is_complex(Loader::decay),
                  "heed: a complex decay goes with additive updates only");
    static_assert(!Call::writes || !std::is_same_v<std::remove_const_t<decltype(forget)>, complex_state>,
                  "heed: complex_state says what recall reads; a recurrence has a complex_decay");
    static_assert(!Call::normalised || (!is_complex(Loader::decay) && Loader::decay != decay_kind::columns),
                  "heed: no normaliser goes with a complex decay or one of value channels");
    static_assert(!Call::normalised || Loader::update == update_kind::additive,
                  "heed: a normaliser goes with additive updates only");

    if constexpr (requires { write.check_steps(op); }) write.check_steps(op);
    constexpr bool apart = std::is_same_v<std::remove_const_t<decltype(order)>, non_causal>;
    recurrence_extents x = check_recurrence<apart>(op, view<const q_type>(q), view<const k_type>(k),
                                                   view<const v_type>(v), o, write.steps());
    double scale_by = x.D > 0 ? 1 / std::sqrt(static_cast<double>(x.D)) : 1.0;
    if constexpr (Loader::mapped) scale_by = 1;
    if constexpr (requires { factor.factor; }) scale_by = factor.factor;
    if constexpr (requires { features.check(op, q.shape[3]); }) features.check(op, q.shape[3]);
    extents<4> keys = k.shape;
    keys[2] = x.N;
    if constexpr (requires { features.check(op, q.shape, keys); }) features.check(op, q.shape, keys);
    x.D = features.width(x.D);
    forget.check(op, x);
    write.check(op, x);
    observe.check(op, x);
    if constexpr (Call::normed) {
        normaliser.check(op, o.shape[1], x.E);
        normaliser.check_apart(op);
    }
    index_t longest = x.N;
    if constexpr (std::is_same_v<std::remove_const_t<decltype(sequences)>, packed>) {
        sequences.check(op, x.B, x.N);
        require_shape(q.shape[2] == x.N, op, "packed sequences have ", x.N, " keys and ", q.shape[2], " queries");
        x.B = sequences.sequences();
        longest = 0;
        for (index_t s = 0; s < x.B; ++s) {
            const auto i = static_cast<std::size_t>(s);
            longest = std::max(longest, sequences.offsets[i + 1] - sequences.offsets[i]);
        }
    }
    const form_choice chosen =
        choose_form<Loader, std::remove_const_t<decltype(form)>>(op, form, longest, x.D, write.steps());
    const Loader load{q, k, v, forget, write, observe, features, static_cast<T>(scale_by), x};
    check_state(op, carried, x, load.state_rows());
    check_apart(op, o, {"decay", "update", "read", "features", "normaliser", "packed offsets"}, forget, write, observe,
                features, normaliser, sequences);
    if (carried) {
        const auto held = carried->memory();
        require_shape(!overlap(held, o), op, "o overlaps the state in memory");
        require_shape(!Call::writes || !(overlap(held, q) || overlap(held, k) || overlap(held, v)), op,
                      "the state overlaps q, k or v in memory");
    }
    f(Call{load, o, normaliser, sequences, chosen, carried});
}

template <class Call, class... P>
void run_recurrence(const Call& call, const char* op, const P&... policies) {
    in_scratch(
        op, [&](auto& pool) { return call.scratch_bytes(pool); },
        [&](auto& pool, std::byte* memory) { call.run(pool, memory); }, policies...);
}

}  // namespace detail

/// o_t = scale q_t^T S_t with S_t = A_t S_{t-1} + k_t w_t^T along the tokens of each sequence; see README.md for the
/// policies.
///
/// Shapes: q (B, Hq, N, D), k (B, Hk, N, D), v (B, Hv, N, E), o (B, max(Hq, Hs), N, E); with non_causal{}, k, v and
/// gates may have other tokens than q and o, and another number of them. There are Hs = max(Hk, Hv) states a sequence;
/// Hk, Hv and the heads of gates divide Hs, neighbours sharing a row; Hq divides it, or is a multiple, where several
/// queries read one state. Any strides; elements float, double, bf16 or f16, each operand its own; sums are float
/// (double if any operand is). The default scale is 1/sqrt(D), or 1 with a feature map or complex_rows{}. A state<T>
/// among the policies is where the recurrence starts, and then what it ends with. Throws shape_error or argument_error
/// before anything is written.
template <class A = default_arch, class Q, class K, class V, class O, class... Policies>
void recurrence(const Q& q, const K& k, const V& v, O&& o, Policies&&... policies) {
    static constexpr const char* op = "recurrence";
    detail::with_recurrence<A>(
        op, as_view(q), as_view(k), as_view(v), as_view(o),
        [&](const auto& call) { detail::run_recurrence(call, op, policies...); }, policies...);
}

/// Bytes of scratch that recurrence with the same arguments needs; independent of the data.
template <class A = default_arch, class Q, class K, class V, class O, class... Policies>
std::size_t recurrence_scratch(const Q& q, const K& k, const V& v, O&& o, Policies&&... policies) {
    std::size_t bytes = 0;
    const auto context = detail::pick<roles::context>(detail::calling_thread{}, policies...);
    detail::with_recurrence<A>(
        "recurrence_scratch", as_view(q), as_view(k), as_view(v), as_view(o),
        [&](const auto& call) { bytes = call.scratch_bytes(*context.pool); }, policies...);
    return bytes;
}

/// One token, or a few: recurrence token by token from the state s, which is updated.
template <class A = default_arch, class T, class Q, class K, class V, class O, class... Policies>
void step(state<T>& s, const Q& q, const K& k, const V& v, O&& o, Policies&&... policies) {
    static constexpr const char* op = "step";
    const recurrent form;
    detail::with_recurrence<A>(
        op, as_view(q), as_view(k), as_view(v), as_view(o),
        [&](const auto& call) { detail::run_recurrence(call, op, policies...); }, s, form, policies...);
}

/// The state s past the tokens of k (B, Hk, N, D) and v (B, Hv, N, E), without an output: half the cost of a recurrence.
/// Policies as those of recurrence, but for reads; with a normaliser the sums of keys advance as well.
template <class A = default_arch, class T, class K, class V, class... Policies>
void absorb(state<T>& s, const K& k, const V& v, Policies&&... policies) {
    static constexpr const char* op = "absorb";
    static_assert(((!has_role<Policies, roles::read> && !has_role<Policies, roles::order>)&&...),
                  "heed: absorb reads nothing, first token to last");
    const auto keys = as_view(k);
    const auto values = as_view(v);
    const index_t steps = detail::pick<roles::update>(additive_update{}, policies...).steps();
    const auto q = slice(keys, 2, {0, keys.shape[2] / std::max<index_t>(steps, 1)});
    const index_t heads = std::max(keys.shape[1], values.shape[1]);
    const extents<4> shape{q.shape[0], heads, q.shape[2], values.shape[3]};
    const view<T> none{nullptr, shape, dense_strides(shape)};
    const detail::only_write order;
    detail::with_recurrence<A>(
        op, q, keys, values, none, [&](const auto& call) { detail::run_recurrence(call, op, policies...); }, s, order,
        policies...);
}

/// o_t = scale q_t^T S for a state s that stays as it is; q (B, Hq, N, D), o (B, max(Hq, Hs), N, E). Policies: features,
/// normaliser, scale, on; complex_state{} of a complex state, which complex_rows{} are always of.
template <class A = default_arch, class T, class Q, class O, class... Policies>
void recall(const state<T>& s, const Q& q, O&& o, Policies&&... policies) {
    static constexpr const char* op = "recall";
    static_assert(((has_role<Policies, roles::features> || has_role<Policies, roles::normaliser> ||
                    has_role<Policies, roles::scale> || has_role<Policies, roles::context> ||
                    std::is_same_v<std::remove_cvref_t<Policies>, complex_state>)&&...),
                  "heed: an argument is not a policy of reading a state");
    const auto queries = as_view(q);
    const auto [B, Hs, D, E] = s.shape();
    const view<const T> k{nullptr, {queries.shape[0], Hs, queries.shape[2], queries.shape[3]}, {}};
    const view<const T> v{nullptr, {queries.shape[0], Hs, queries.shape[2], E}, {}};
    const detail::only_read order;
    const chunked form{token_block};
    auto& held = const_cast<state<T>&>(s);  // order says that it is only read
    const auto read = [&](const auto&... more) {
        detail::with_recurrence<A>(
            op, queries, k, v, as_view(o), [&](const auto& call) { detail::run_recurrence(call, op, policies...); },
            held, order, form, policies..., more...);
    };
    constexpr bool paired = (std::is_same_v<std::remove_cvref_t<Policies>, complex_rows> || ...);
    if constexpr (paired && detail::count_of_role<roles::decay, Policies...> == 0)
        read(complex_state{});
    else
        read();
}

}  // namespace heed::inline HEED_ABI
