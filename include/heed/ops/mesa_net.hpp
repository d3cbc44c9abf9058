// The Mesa layer: each query meets the least-squares fit of all values so far.
//
//   H_t = a_t H_{t-1} + beta_t k_t k_t^T (D, D),   G_t = a_t G_{t-1} + beta_t k_t v_t^T (D, E)
//   o_t = G_t^T x_t,   (H_t + diag lambda) x_t = q_t by `steps` conjugate gradients from x = q / diag(H_t + lambda)
// D steps solve exactly but for rounding; the paper trains with about 30 and stops early when decoding. No scale.
// Cost: 2 D^2 (steps + 2) + 4 D E flops a token and head. von Oswald et al., MesaNet, arXiv:2506.05233.
#pragma once

#include "../engine/recurrence.hpp"

namespace heed::inline HEED_ABI {

/// H and G of B sequences, `heads` each, for keys of width D and values of width E; zero at first.
template <class T>
struct mesa_state {
    state<T> keys, values;
    mesa_state(index_t B, index_t heads, index_t D, index_t E) : keys(B, heads, D, D), values(B, heads, D, E) {}
};

namespace detail {

/// One head of one sequence. Rows are whole packs, padded with zeros.
template <class A, class T>
class mesa_head {
    using P = pack<T, A>;
    static constexpr index_t L = lanes<T, A>;

public:
    mesa_head(carver& from, index_t D, index_t E) : D_(D), row_(round_up(D, L)), column_(round_up(E, L)) {
        for (T** x : {&q, &k, &lambda, &x_, &r_, &p_, &y_}) *x = from.take<T>(row_);
        v = from.take<T>(column_);
        o = from.take<T>(column_);
    }
    index_t row() const { return row_; }
    index_t column() const { return column_; }

    /// S = a S + b k w^T for S (D, width) in rows `stride` apart.
    void write(T* S, index_t stride, T a, T b, const T* w, index_t width) const {
        const P decay(a);
        for (index_t d = 0; d < D_; ++d, S += stride) {
            const P by(b * k[d]);
            for (index_t e = 0; e < width; e += L)
                store_aligned(S + e, fma(by, load_aligned<P>(w + e), decay * load_aligned<P>(S + e)));
        }
    }
    /// o = G^T x, x the solution for q.
    void read(const T* H, index_t h_stride, const T* G, index_t g_stride, index_t steps) const {
        solve(H, h_stride, steps);
        times(G, g_stride, x_, o, column_);
    }

    T *q, *k, *lambda, *v, *o;

private:
    /// y = S^T x; of H, which is symmetric, H x.
    void times(const T* S, index_t stride, const T* x, T* y, index_t width) const {
        constexpr index_t together = 4;
        index_t e = 0;
        const auto columns = [&](auto packs) HEED_INLINE_LAMBDA {
            P sum[packs];
            unroll<packs>([&](auto c) HEED_INLINE_LAMBDA { sum[c] = P(T(0)); });
            const T* at = S + e;
            for (index_t d = 0; d < D_; ++d, at += stride) {
                const P by(x[d]);
                unroll<packs>([&](auto c)
                                  HEED_INLINE_LAMBDA { sum[c] = fma(by, load_aligned<P>(at + c * L), sum[c]); });
            }
            unroll<packs>([&](auto c) HEED_INLINE_LAMBDA { store_aligned(y + e + c * L, sum[c]); });
            e += packs * L;
        };
        while (e + together * L <= width) columns(std::integral_constant<int, together>{});
        while (e < width) columns(std::integral_constant<int, 1>{});
    }
    T dot(const T* x, const T* y) const {
        P sum(T(0));
        for (index_t d = 0; d < row_; d += L) sum = fma(load_aligned<P>(x + d), load_aligned<P>(y + d), sum);
        return reduce_add(sum);
    }
    /// y = (H + diag lambda) x.
    void apply(const T* H, index_t stride, const T* x, T* y) const {
        times(H, stride, x, y, row_);
        for (index_t d = 0; d < row_; d += L)
            store_aligned(y + d, fma(load_aligned<P>(lambda + d), load_aligned<P>(x + d), load_aligned<P>(y + d)));
    }
    /// to = x + by y.
    void add(const T* x, T by, const T* y, T* to) const {
        for (index_t d = 0; d < row_; d += L)
            store_aligned(to + d, fma(P(by), load_aligned<P>(y + d), load_aligned<P>(x + d)));
    }
    void solve(const T* H, index_t stride, index_t steps) const {
        std::fill_n(x_, row_, T(0));
        for (index_t d = 0; d < D_; ++d) x_[d] = q[d] / (H[d * stride + d] + lambda[d]);
        apply(H, stride, x_, y_);
        add(q, T(-1), y_, r_);
        std::copy_n(r_, row_, p_);
        T left = dot(r_, r_);
        for (index_t step = 0; step < steps && left != 0; ++step) {
            apply(H, stride, p_, y_);
            const T curvature = dot(p_, y_);
            if (curvature == 0) break;  // what is left is too small for its square
            const T by = left / curvature;
            add(x_, by, p_, x_);
            add(r_, -by, y_, r_);
            const T next = dot(r_, r_);
            add(r_, next / left, p_, p_);
            left = next;
        }
    }

    index_t D_, row_, column_;
    T *x_, *r_, *p_, *y_;
};

}  // namespace detail

/// q (B, Hq, N, D), k (B, Hk, N, D), v (B, Hv, N, E), o (B, max(Hq, H), N, E), H = max(Hk, Hv) states, shared as in
/// recurrence; beta (B, heads, N), heads dividing H; lambda (H, D), above 0; s is where it starts, and then what it
/// ends with. Policies: no_decay, head_decay or token_decay; reversed; packed, with as many states; on. Bits do not
/// depend on how calls cut the tokens. Throws shape_error or argument_error before anything is written.
template <class A = default_arch, class T, class Q, class K, class V, class Beta, class Lambda, class O, class... P>
void mesa_net(mesa_state<T>& s, const Q& q, const K& k, const V& v, const view<Beta, 3>& beta,
              const view<Lambda, 2>& lambda, O&& o, index_t steps, const P&... policies) {
    static constexpr const char* op = "mesa_net";
    static_assert(((has_role<P, roles::decay> || has_role<P, roles::packed> || has_role<P, roles::context> ||
                    std::is_same_v<P, reversed>)&&...),
                  "heed: an argument is not a policy of the Mesa layer");
    const auto queries = as_view(q);
    const auto keys = as_view(k);
    const auto values = as_view(v);
    const auto out = as_view(o);
    using q_type = typename decltype(queries)::value_type;
    using k_type = typename decltype(keys)::value_type;
    using v_type = typename decltype(values)::value_type;
    static_assert(std::is_same_v<T, accumulator<q_type, k_type, v_type, typename decltype(out)::value_type>>,
                  "heed: the state is of another type than the recurrence sums in");
    const auto decay = detail::pick<roles::decay>(no_decay{}, policies...);
    static_assert(decltype(decay)::kind == decay_kind::none || decltype(decay)::kind == decay_kind::scalar,
                  "heed: the Mesa layer decays by a number a token");
    const auto context = detail::pick<roles::context>(detail::calling_thread{}, policies...);
    const auto order = detail::pick<roles::order>(causal_order{}, policies...);
    const auto sequences = detail::pick<roles::packed>(not_packed{}, policies...);
    const index_t N = queries.shape[2], D = queries.shape[3], E = values.shape[3];
    const index_t H = std::max(keys.shape[1], values.shape[1]);
    const delta_rule update{beta};
    detail::with_recurrence<A>(
        op, queries, keys, values, out, [](const auto&) {}, decay, update, sequences);
    const index_t B = detail::count_sequences(queries.shape[0], policies...);
    const index_t reads = H > 0 ? out.shape[1] / H : 1;
    detail::check_state(op, &s.keys, {B, H, N, D, D}, D);
    detail::check_state(op, &s.values, {B, H, N, D, E}, D);
    require_shape(lambda.shape[0] == H && lambda.shape[1] == D, op, "lambda is (", lambda.shape[0], ", ",
                  lambda.shape[1], "), expected (", H, ", ", D, ")");
    require_argument(steps >= 0, op, steps, " steps, the least is 0");
    for (index_t h = 0; h < H; ++h)
        for (index_t d = 0; d < D; ++d)
            require_argument(static_cast<double>(lambda(h, d)) > 0, op, "lambda is ", static_cast<double>(lambda(h, d)),
                             ", it must be above 0");

    const view<const q_type> from_q = queries;
    const view<const k_type> from_k = keys;
    const view<const v_type> from_v = values;
    carver need;
    detail::mesa_head<A, T>(need, D, E);
    need.take<T>(lanes<T, A>);
    const auto body = [&](std::byte* memory) {
        for_tasks(*context.pool, B * H, [&](index_t task, index_t worker) {
            const index_t b = task / H, h = task % H;
            carver from(memory + static_cast<std::size_t>(worker) * need.used());
            const detail::mesa_head<A, T> head(from, D, E);
            T* const a = from.take<T>(lanes<T, A>);
            for (T* x : {head.q, head.k, head.lambda}) std::fill_n(x, head.row(), T(0));
            std::fill_n(head.v, head.column(), T(0));
            for (index_t d = 0; d < D; ++d) head.lambda[d] = static_cast<T>(lambda(h, d));
            T* const kk = s.keys.values().data + (b * H + h) * s.keys.plane();
            T* const kv = s.values.values().data + (b * H + h) * s.values.plane();
            const token_walk all = detail::walk_of<std::remove_const_t<decltype(order)>>(sequences, b, N);
            const auto of_head = [&](index_t x, index_t heads) { return detail::serving(x, out.shape[1], heads); };
            for (index_t t = 0; t < all.count; ++t) {
                const token_walk one = all.part(t, 1);
                const index_t n = one[0];
                detail::load_row<A>(from_k, one.b, detail::serving(h, H, keys.shape[1]), n, head.k);
                detail::load_row<A>(from_v, one.b, detail::serving(h, H, values.shape[1]), n, head.v);
                a[0] = T(1);
                decay.template load<A>(one, h, H, a, 0);
                const T by = static_cast<T>(beta(one.b, detail::serving(h, H, beta.shape[1]), n));
                head.write(kk, s.keys.stride(), a[0], by, head.k, head.row());
                head.write(kv, s.values.stride(), a[0], by, head.v, head.column());
                for (index_t x = h * reads; x < (h + 1) * reads; ++x) {
                    detail::load_row<A>(from_q, one.b, of_head(x, queries.shape[1]), n, head.q);
                    head.read(kk, s.keys.stride(), kv, s.values.stride(), steps);
                    narrow_row<A>(head.o, E, &out(one.b, x, n, 0), out.strides[3]);
                }
            }
        });
    };
    detail::with_scratch(op, context, need.used() * static_cast<std::size_t>(workers(*context.pool, B * H)), body);
}

}  // namespace heed::inline HEED_ABI
