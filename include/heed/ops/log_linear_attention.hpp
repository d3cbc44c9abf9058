// Log-linear attention: a prefix is cut into O(log N) stretches, each with a state and a weight of its own [85].
//
//   o_t = sum_l scale_t[l] q_t^T S_l     S_0 the token itself, S_l (l > 0) 2^(l-1) tokens: a Fenwick tree, bits of t
//   each S_l as in recurrence: decays of heads or tokens (Mamba-2), and with them the delta rule (Gated DeltaNet)
// No scale, no normaliser. Blocks of C tokens begin at multiples of their length, so C changes roundings only.
// Cost a token: D E (2 + log2(N / C)) + C (D + E) flops (delta: 3 D E log2(N / C)); memory: log2(N) states.
// Guo et al., arXiv:2506.04761.
#pragma once

#include <array>

#include "../engine/recurrence.hpp"
#include "../policy/score.hpp"
#include "../policy/token_views.hpp"
#include "../tile/level_block.hpp"

namespace heed::inline HEED_ABI {

/// The stretches of B sequences so far, for H heads of D rows and E columns: one of 2^b tokens for each set bit b of
/// their number.
template <class T>
class log_linear_state {
public:
    log_linear_state(index_t B, index_t H, index_t D, index_t E) : shape_{B, H, D, E} {
        for (index_t extent : shape_) require_shape(extent >= 0, "log_linear_state", "extent ", extent, " is negative");
    }
    /// In scratch that must outlive it, for so many tokens.
    log_linear_state(carver& from, index_t B, index_t H, index_t D, index_t E, index_t tokens)
        : log_linear_state(B, H, D, E) {
        for (index_t bit = 0; bit < bits(tokens); ++bit) stretch(bit) = state<T>(from, B, H, D, E);
    }
    const extents<4>& shape() const { return shape_; }
    index_t tokens() const { return tokens_; }
    /// No token so far; memory stays.
    void clear() { tokens_ = 0; }
    bool holds(index_t bit) const { return tokens_ >> bit & 1; }
    /// The stretch of 2^bit tokens; holds(bit).
    state<T>& stretch(index_t bit) { return stretches_[static_cast<std::size_t>(bit)]; }

    /// Allocates the stretches that so many tokens have; calls up to there allocate nothing.
    void reserve(index_t tokens) {
        for (index_t bit = 0; bit < bits(tokens); ++bit)
            if (stretch(bit).shape() != shape_) stretch(bit) = state<T>(shape_[0], shape_[1], shape_[2], shape_[3]);
    }
    /// The next 2^bit tokens, a multiple of which went before, are written by write(state), from 0; equal stretches
    /// become one. There must be room for them.
    template <class Write>
    void append(index_t bit, const Write& write) {
        index_t at = bit;
        while (holds(at)) ++at;
        state<T>& last = stretch(at);
        last.clear();
        write(last);
        for (index_t equal = bit; equal < at; ++equal) add(last, stretch(equal));
        tokens_ += index_t(1) << bit;
    }

private:
    static index_t bits(index_t tokens) {
        return static_cast<index_t>(std::bit_width(static_cast<std::size_t>(tokens)));
    }
    static void add(state<T>& to, const state<T>& from) {
        const auto [B, H, D, E] = to.shape();
        for (index_t b = 0; b < B; ++b)
            for (index_t h = 0; h < H; ++h)
                for (index_t d = 0; d < D; ++d) {
                    T* const x = &to.values()(b, h, d, 0);
                    const T* const y = &from.values()(b, h, d, 0);
                    for (index_t e = 0; e < E; ++e) x[e] += y[e];
                }
    }
    extents<4> shape_;
    index_t tokens_ = 0;
    std::array<state<T>, 64> stretches_;
};

namespace detail {

template <class X>
inline constexpr bool is_log_linear_state = false;
template <class T>
inline constexpr bool is_log_linear_state<log_linear_state<T>> = true;

/// A call over its operands; blocks of tokens one after the other.
template <class A, class T, class Q, class K, class V, class O, class S, class Decay, class Update>
struct log_linear_call {
    static constexpr bool delta = Update::kind == update_kind::delta;
    static constexpr const char* op = "log_linear_attention";
    view<const Q> q;
    view<const K> k;
    view<const V> v;
    view<const S> scales;
    view<O> o;
    Decay decay;
    Update update;

    index_t B() const { return o.shape[0]; }
    index_t H() const { return o.shape[1]; }
    index_t states() const { return std::max(k.shape[1], v.shape[1]); }
    index_t N() const { return o.shape[2]; }
    index_t D() const { return q.shape[3]; }
    index_t E() const { return o.shape[3]; }

    void check(const log_linear_state<T>& s, index_t C) const {
        with_recurrence<A>(
            op, q, k, v, o, [](const auto&) {}, decay, update);
        require_shape(s.shape() == extents<4>{B(), states(), D(), E()}, op, "the state is of (", s.shape()[0], ", ",
                      s.shape()[1], ", ", s.shape()[2], ", ", s.shape()[3], "), the call of (", B(), ", ", states(),
                      ", ", D(), ", ", E(), ")");
        const auto last = static_cast<std::size_t>(std::max<index_t>(s.tokens() + N() - 1, 0));
        const index_t levels = static_cast<index_t>(std::bit_width(last)) + 1;
        for (std::size_t axis = 0; axis < 3; ++axis)
            require_shape(scales.shape[axis] == o.shape[axis], op, "the scales have extent ", scales.shape[axis],
                          " on axis ", axis, ", o has ", o.shape[axis]);
        require_shape(N() == 0 || scales.shape[3] >= levels, op, "there are ", scales.shape[3],
                      " scales a token, token ", last, " has ", levels, " levels");
        require_shape(!overlap(o, scales), op, "o overlaps the scales in memory");
        require_argument(C >= 1 && std::has_single_bit(static_cast<std::size_t>(C)), op, "blocks of ", C,
                         " tokens, it must be a power of two");
    }

    template <class Context>
    void run(log_linear_state<T>& s, index_t C, carver& from, const Context& context) const {
        const index_t column = round_up(E(), level_block<A, T>::unit), longest = std::min(C, std::max<index_t>(N(), 1));
        T* const sums = from.take<T>(B() * H() * longest * column);
        T* const parts = from.take<T>(B() * H() * longest * column);
        carver one;
        level_block<A, T>(one, longest, D(), E(), delta);
        const auto crew = static_cast<std::size_t>(workers(*context.pool, B() * H()));
        const scratch own{from.take<std::byte>(static_cast<index_t>(one.used() * crew)), one.used()};
        const auto rows = [&](T* data, index_t n) {
            return view<T>{data, {B(), H(), n, E()}, {H() * n * column, n * column, column, 1}};
        };
        if (from.counts()) {
            carver nothing;
            state<T> like(nothing, B(), states(), D(), E());
            for (index_t n = 1; n <= std::min(C, N()); n *= 2) {
                read(like, {0, n}, rows(parts, n), context);
                write(like, {0, n}, context);
            }
            return;
        }
        s.reserve(s.tokens() + N());
        for (index_t t = 0; t < N();) {
            const auto at = static_cast<std::size_t>(s.tokens()), left = static_cast<std::size_t>(N() - t);
            index_t n = std::min(C, static_cast<index_t>(std::bit_floor(left)));
            if (at > 0) n = std::min(n, index_t(1) << std::countr_zero(at));
            block(s, {t, t + n}, rows(sums, n), rows(parts, n), own, context);
            t += n;
        }
    }

private:
    struct scratch {
        std::byte* memory;
        std::size_t of_worker;
    };
    template <class X>
    static X cut(const X& x, range tokens) {
        return slice(x, 2, tokens);
    }
    /// part = what the tokens read from a stretch.
    template <class Context>
    void read(state<T>& held, range tokens, const view<T>& part, const Context& context) const {
        if constexpr (delta) {  // the tokens write nothing, but erase and decay
            const T zero = 0;
            const view<const T> nothing{&zero, {B(), states(), tokens.size(), E()}, {}};
            recurrence<A>(cut(q, tokens), cut(k, tokens), nothing, part, held, at_tokens(decay, tokens),
                          at_tokens(update, tokens), scale{1}, context);
        } else {
            recall<A>(held, cut(q, tokens), part, scale{1}, context);
        }
    }
    template <class Context>
    void write(state<T>& own, range tokens, const Context& context) const {
        absorb<A>(own, cut(k, tokens), cut(v, tokens), at_tokens(decay, tokens), at_tokens(update, tokens), context);
    }
    template <class Context>
    void block(log_linear_state<T>& s, range tokens, const view<T>& sum, const view<T>& part, const scratch& own,
               const Context& context) const {
        meet_own(tokens, sum, own, *context.pool);
        for (index_t bit = 0; s.tokens() >> bit > 0; ++bit) {
            if (!s.holds(bit)) continue;
            read(s.stretch(bit), tokens, part, context);
            add_level(tokens, bit + 1, sum, part, s.stretch(bit));
        }
        s.append(std::countr_zero(static_cast<std::size_t>(tokens.size())),
                 [&](state<T>& last) { write(last, tokens, context); });
        for (index_t b = 0; b < B(); ++b)
            for (index_t h = 0; h < H(); ++h)
                for (index_t n = 0; n < tokens.size(); ++n)
                    narrow_row<A>(&sum(b, h, n, 0), E(), &o(b, h, tokens.first + n, 0), o.strides[3]);
    }

    /// Decays of a block's tokens, as factors; to holds whole packs.
    void factors(index_t b, index_t h, range tokens, T* to) const {
        std::fill_n(to, tokens.size(), T(1));
        decay.template load<A>(token_walk{b, tokens.first, 1, tokens.size()}, h, H(), to, 0);
    }
    auto scales_at(index_t b, index_t h, index_t token) const {
        return [this, b, h, token](index_t level) { return static_cast<T>(scales(b, h, token, level)); };
    }

    /// sum = what the tokens of a block make of each other.
    template <executor Pool>
    void meet_own(range tokens, const view<T>& sum, const scratch& mine, Pool& pool) const {
        const index_t n = tokens.size();
        for_tasks(pool, B() * H(), [&](index_t task, index_t worker) {
            const index_t b = task / H(), h = task % H();
            carver from(mine.memory + static_cast<std::size_t>(worker) * mine.of_worker);
            const level_block<A, T> own(from, n, D(), E(), delta);
            const auto load = [&](const auto& x, T* to, index_t width) {
                for (index_t i = 0; i < n; ++i, to += width) {
                    load_row<A>(x, b, serving(h, H(), x.shape[1]), tokens.first + i, to);
                    std::fill(to + x.shape[3], to + width, T(0));
                }
            };
            load(q, own.q, own.row()), load(k, own.k, own.row()), load(v, own.v, own.column());
            factors(b, h, tokens, own.a);
            if constexpr (delta)
                load_numbers(update.beta, {b, tokens.first, 1, n}, serving(h, H(), update.beta.shape[1]), own.beta);
            own.run(
                n, delta, [&](index_t i) { return scales_at(b, h, tokens.first + i); }, &sum(b, h, 0, 0),
                sum.strides[2]);
        });
    }
    /// sum += scale[level] part, with the decays since the block began; additive stretches forget the block as well.
    void add_level(range tokens, index_t level, const view<T>& sum, const view<T>& part, state<T>& held) const {
        constexpr bool forgets = !delta && Decay::kind != decay_kind::none;
        const index_t reads = H() > 0 ? H() / states() : 1;
        for (index_t b = 0; b < B(); ++b)
            for (index_t h = 0; h < H(); ++h) {
                T kept = 1;
                for (index_t n = 0; n < tokens.size(); ++n) {
                    if constexpr (forgets) {
                        alignas(64) T a[level_block<A, T>::unit];
                        factors(b, h, {tokens.first + n, tokens.first + n + 1}, a);
                        kept *= a[0];
                    }
                    const T by = kept * static_cast<T>(scales(b, h, tokens.first + n, level));
                    T* const to = &sum(b, h, n, 0);
                    const T* const from = &part(b, h, n, 0);
                    for (index_t e = 0; e < E(); ++e) to[e] += by * from[e];
                }
                for (index_t d = 0; forgets && h % reads == 0 && d < D(); ++d)
                    for (T *x = &held.values()(b, h / reads, d, 0), *end = x + E(); x != end; ++x) *x *= kept;
            }
    }
};

}  // namespace detail

/// q (B, Hq, N, D), k (B, Hk, N, D), v (B, Hv, N, E), o (B, H, N, E), H = max(Hq, Hs), with Hs = max(Hk, Hv) states a
/// sequence, shared as in recurrence; scales (B, H, N, L), L at least 1 + the bits of the last token's number. Continues
/// from s, which may be empty.
/// Policies: no_decay, head_decay or token_decay; delta_rule; chunked{C}, C a power of two (64); on or scratch_size. A
/// step of decoding is a call with N 1. Scratch beside: two outputs of C tokens; s grows, unless it was reserved.
/// Throws shape_error or argument_error before anything is written.
template <class A = default_arch, class T, class Q, class K, class V, class S, class O, class... P>
void log_linear_attention(log_linear_state<T>& s, const Q& q, const K& k, const V& v, const S& level_scales, O&& o,
                          const P&... policies) {
    static_assert(((has_role<P, roles::decay> || has_role<P, roles::update> || has_role<P, roles::form> ||
                    has_role<P, roles::context>)&&...),
                  "heed: an argument is not a policy of log-linear attention");
    const auto queries = as_view(q);
    const auto keys = as_view(k);
    const auto values = as_view(v);
    const auto scales = as_view(level_scales);
    const auto out = as_view(o);
    using q_type = typename decltype(queries)::value_type;
    using k_type = typename decltype(keys)::value_type;
    using v_type = typename decltype(values)::value_type;
    using s_type = typename decltype(scales)::value_type;
    using o_type = typename decltype(out)::value_type;
    static_assert(std::is_same_v<T, accumulator<q_type, k_type, v_type, o_type>>,
                  "heed: the state is of another type than the recurrence sums in");
    const auto decay = detail::pick<roles::decay>(no_decay{}, policies...);
    const auto update = detail::pick<roles::update>(additive_update{}, policies...);
    const auto form = detail::pick<roles::form>(chunked{64}, policies...);
    using Decay = std::remove_const_t<decltype(decay)>;
    using Update = std::remove_const_t<decltype(update)>;
    static_assert(Decay::kind == decay_kind::none || Decay::kind == decay_kind::scalar,
                  "heed: log-linear attention decays by a number a token");
    static_assert(std::is_same_v<std::remove_const_t<decltype(form)>, chunked>,
                  "heed: log-linear attention has the form chunked{C} only; a step of decoding is a call of one token");
    static_assert(std::is_same_v<Update, additive_update> || Update::kind == update_kind::delta,
                  "heed: log-linear attention has additive and delta updates");
    const detail::log_linear_call<A, T, q_type, k_type, v_type, o_type, s_type, Decay, Update> call{
        queries, keys, values, scales, out, decay, update};
    call.check(s, form.tokens);
    const auto context = detail::pick<roles::context>(detail::calling_thread{}, policies...);
    detail::in_shared_scratch(
        call.op, [&](carver& from, const auto& inner) { call.run(s, form.tokens, from, inner); }, context);
}

/// The same from an empty state, which is forgotten; with packed{offsets} among the policies, from one for each
/// sequence.
template <class A = default_arch, class Q, class K, class V, class S, class O, class... P>
    requires(!detail::is_log_linear_state<Q>)
void log_linear_attention(const Q& q, const K& k, const V& v, const S& level_scales, O&& o, const P&... policies) {
    const auto queries = as_view(q);
    const auto keys = as_view(k);
    const auto values = as_view(v);
    const auto scales = as_view(level_scales);
    const auto out = as_view(o);
    using T = accumulator<typename decltype(queries)::value_type, typename decltype(keys)::value_type,
                          typename decltype(values)::value_type, typename decltype(out)::value_type>;
    const index_t H = std::max(keys.shape[1], values.shape[1]);
    const auto sequences = detail::pick<roles::packed>(not_packed{}, policies...);
    if constexpr (detail::count_of_role < roles::packed, P... >> 0) {  // what sequences by themselves do not show
        const auto check = [&](const auto&... gates) {
            detail::with_recurrence<A>(
                "log_linear_attention", queries, keys, values, out, [](const auto&) {}, sequences, gates...);
        };
        std::apply(check, std::tuple_cat(detail::pick_all<roles::decay>(policies...),
                                         detail::pick_all<roles::update>(policies...)));
        require_shape(scales.shape[2] == queries.shape[2], "log_linear_attention", "the scales have ", scales.shape[2],
                      " tokens, q has ", queries.shape[2]);
    }
    detail::in_shared_scratch(
        "log_linear_attention",
        [&](carver& from, const auto&... with) {
            log_linear_state<T> s(from, keys.shape[0], H, keys.shape[3], values.shape[3], queries.shape[2]);
            if constexpr (detail::count_of_role<roles::packed, P...> == 0) {
                log_linear_attention<A>(s, queries, keys, values, scales, out, with...);
            } else {
                const auto each_sequence = [&](const auto&... each) {
                    for (std::size_t i = 1; i < sequences.offsets.size(); ++i) {
                        const range tokens{sequences.offsets[i - 1], sequences.offsets[i]};
                        const auto cut = [&](const auto& x) { return slice(x, 2, tokens); };
                        s.clear();
                        log_linear_attention<A>(s, cut(queries), cut(keys), cut(values), cut(scales), cut(out),
                                                detail::at_tokens(each, tokens)...);
                    }
                };
                std::apply(each_sequence, detail::leave_out<roles::packed>(with...));
            }
        },
        policies...);
}

}  // namespace heed::inline HEED_ABI
