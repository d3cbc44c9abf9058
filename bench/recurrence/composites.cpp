// Operators that are more than one recurrence, or features of their own: heed, and their definitions in float.
#include <heed/ref/hybrid_attention.hpp>
#include <heed/ref/infini_attention.hpp>
#include <heed/ref/log_linear_attention.hpp>
#include <heed/ref/mesa_net.hpp>
#include <heed/ref/mlstm.hpp>
#include <heed/ref/slot_attention.hpp>
#include <heed/ref/taylor_shift.hpp>
#include <numbers>
#include <numeric>

#include "../support/crew.hpp"
#include "contestants.hpp"

namespace bench {
namespace {

// An operator is made for a task. run(x, context) writes x.o; define<R>(x, o) is the definition in the arithmetic of R;
// flops are those of a token and head. sees_all_keys: define is given every key and value of its heads.

template <class R>
ref::recurrence_options<R> decaying(const sequence_views& x) {
    ref::recurrence_options<R> with;
    with.key_decay = [x](index_t b, index_t h, index_t n, index_t) { return static_cast<R>(x.token_logs(b, h, n)); };
    return with;
}
template <class R>
ref::recurrence_options<R> erasing(const sequence_views& x) {
    auto with = decaying<R>(x);
    with.beta = [x](index_t b, index_t h, index_t n) { return static_cast<R>(x.beta(b, h, n)); };
    return with;
}
/// Of rows that fade channel by channel, at scale 1.
template <class R>
ref::recurrence_options<R> fading_by_channel(const sequence_views& x) {
    ref::recurrence_options<R> with;
    with.key_decay = ref::gate_of<R>(x.channel_logs, x.k.shape[1]);
    with.scale = R(1);
    return with;
}
double state_size(const recurrence_task& t) { return static_cast<double>(t.D * t.E); }

/// An operator that is the same for every task, of one state that is written and read.
struct any_task_op {
    explicit any_task_op(const recurrence_task&) {}
    double flops(const recurrence_task& t) const { return 4 * state_size(t); }
};

struct mlstm_op : any_task_op {
    using any_task_op::any_task_op;
    void run(const sequence_views& x, const auto& context) const {
        mlstm(x.q, x.k, x.v, x.o, x.beta, x.token_logs, context);
    }
    template <class R>
    void define(const sequence_views& x, const auto& o) const {
        ref::mlstm<R>(x.q, x.k, x.v, x.beta, x.token_logs, o);
    }
};

/// D slots.
struct gsa_op : any_task_op {
    using any_task_op::any_task_op;
    void run(const sequence_views& x, const auto& context) const {
        gated_slot_attention(x.q, x.k, x.v, x.o, x.b, x.channel_logs, context);
    }
    template <class R>
    void define(const sequence_views& x, const auto& o) const {
        ref::gated_slot_attention<R>(x.q, x.k, x.v, x.b, x.channel_logs, o);
    }
    double flops(const recurrence_task& t) const { return 4 * static_cast<double>(t.D * (t.D + t.E)); }
};

struct mesa_net_op : any_task_op {
    using any_task_op::any_task_op;
    static constexpr index_t steps = 30;  // the paper's
    float one = 1;
    view<const float, 2> lambda(const sequence_views& x) const { return {&one, {x.q.shape[1], x.q.shape[3]}, {}}; }

    void run(const sequence_views& x, const auto& context) const {
        mesa_state<float> s(1, x.k.shape[1], x.k.shape[3], x.v.shape[3]);
        mesa_net(s, x.q, x.k, x.v, x.beta, lambda(x), x.o, steps, token_decay{x.token_logs}, context);
    }
    template <class R>
    void define(const sequence_views& x, const auto& o) const {
        ref::mesa_net<R>(x.q, x.k, x.v, lambda(x), o, erasing<R>(x));
    }
    double flops(const recurrence_task& t) const {
        return 2 * static_cast<double>(t.D * t.D * (steps + 2)) + 4 * state_size(t);
    }
};

/// Stretches of Mamba-2's states, or of gated DeltaNet's; all weights are 1/2.
template <bool Delta>
struct log_linear_op : any_task_op {
    using any_task_op::any_task_op;
    float half = 0.5f;
    view<const float> scales(const sequence_views& x) const {
        const auto levels = 1 + static_cast<index_t>(std::bit_width(static_cast<std::size_t>(x.q.shape[2])));
        return {&half, {1, x.q.shape[1], x.q.shape[2], levels}, {}};
    }
    void run(const sequence_views& x, const auto& context) const {
        const token_decay decay(x.token_logs);
        if constexpr (Delta)
            log_linear_attention(x.q, x.k, x.v, scales(x), x.o, decay, delta_rule{x.beta}, context);
        else
            log_linear_attention(x.q, x.k, x.v, scales(x), x.o, decay, context);
    }
    template <class R>
    void define(const sequence_views& x, const auto& o) const {
        ref::log_linear_attention<R>(x.q, x.k, x.v, scales(x), o, Delta ? erasing<R>(x) : decaying<R>(x));
    }
    double flops(const recurrence_task& t) const {  // as in the header, of blocks of 64
        const double stretches = std::max(0.0, std::log2(static_cast<double>(t.N) / 64));
        return state_size(t) * (2 + (Delta ? 3 : 1) * stretches) + 64 * static_cast<double>(t.D + t.E);
    }
};

struct infini_op : any_task_op {
    using any_task_op::any_task_op;
    static constexpr index_t segment = 2048;  // the paper's
    void run(const sequence_views& x, const auto& context) const {
        infini_memory<float> memory(1, x.k.shape[1], x.k.shape[3], x.v.shape[3]);
        infini_attention(memory, x.q, x.k, x.v, x.o, segment, gates<float>(x), infini_update::linear, context);
    }
    template <class R>
    void define(const sequence_views& x, const auto& o) const {
        ref::infini_attention<R>(x.q, x.k, x.v, o, segment, gates<R>(x));
    }
    double flops(const recurrence_task& t) const {
        return static_cast<double>(std::min(segment, t.N) * (t.D + t.E)) + 4 * state_size(t);
    }

private:
    template <class R>
    static std::vector<R> gates(const sequence_views& x) {
        return std::vector<R>(static_cast<std::size_t>(x.q.shape[1]), R(0.5));
    }
};

/// One key in eight is met by softmax.
struct hybrid_op {
    static constexpr bool sees_all_keys = true;
    std::vector<index_t> exact;
    explicit hybrid_op(const recurrence_task& t) {
        for (index_t j = 0; j < t.N; j += 8) exact.push_back(j);
    }
    void run(const sequence_views& x, const auto& context) const {
        hybrid_attention(x.q, x.k, x.v, x.o, std::span<const index_t>(exact), elu_plus_one{}, 1e-6, context);
    }
    template <class R>
    void define(const sequence_views& x, const auto& o) const {
        ref::hybrid_attention<R>(
            x.q, x.k, x.v, o, [](index_t j) { return j % 8 == 0; }, ref::elu_plus_one<R>);
    }
    double flops(const recurrence_task& t) const {
        return 2 * static_cast<double>(exact.size()) * static_cast<double>(t.D + t.E) + 4 * state_size(t);
    }
};

/// One sequence in eight parts.
struct lasp_op : any_task_op {
    using any_task_op::any_task_op;
    void run(const sequence_views& x, const auto& context) const {
        lasp(x.q, x.k, x.v, x.o, 8, token_decay{x.token_logs}, context);
    }
    template <class R>
    void define(const sequence_views& x, const auto& o) const {
        ref::naive_recurrence<R>(x.q, x.k, x.v, o, decaying<R>(x));
    }
};

/// Token by token, the last eight undoable.
struct rollback_op : any_task_op {
    using any_task_op::any_task_op;
    void run(const sequence_views& x, const auto& context) const {
        const state<float> none(1, x.k.shape[1], x.k.shape[3], x.v.shape[3]);
        const auto token = [&](index_t n) { return x.cut({0, x.q.shape[1]}, {n, n + 1}); };
        const auto first = token(0);
        rollback undo(none, 8, first.k, first.v, token_decay{first.token_logs}, context);
        for (index_t n = 0; n < x.q.shape[2]; ++n) {
            const auto one = token(n);
            undo.step(one.q, one.k, one.v, one.o, token_decay{one.token_logs}, context);
        }
    }
    template <class R>
    void define(const sequence_views& x, const auto& o) const {
        ref::naive_recurrence<R>(x.q, x.k, x.v, o, decaying<R>(x));
    }
};

/// D positive features.
struct performer_op {
    std::vector<float> directions;
    view<const float, 3> w;
    explicit performer_op(const recurrence_task& t)
        : directions(orthogonal_directions(1, t.D, t.D, 5)), w(dense(directions.data(), {1, t.D, t.D})) {}
    void run(const sequence_views& x, const auto& context) const { performer(x.q, x.k, x.v, x.o, w, context); }
    template <class R>
    void define(const sequence_views& x, const auto& o) const {
        ref::recurrence_options<R> with;
        with.query_features = with.key_features = [this](const std::vector<R>& row, index_t) {
            const R scale = std::pow(static_cast<R>(row.size()), R(-0.25));
            R half = 0;
            for (R one : row) half += scale * scale * one * one / 2;
            std::vector<R> y(row.size());
            for (index_t i = 0; i < w.shape[2]; ++i) {
                R sum = -half;
                for (index_t d = 0; d < w.shape[1]; ++d)
                    sum += scale * row[static_cast<std::size_t>(d)] * static_cast<R>(w(0, d, i));
                y[static_cast<std::size_t>(i)] = std::exp(sum);
            }
            return y;
        };
        with.normalised = true;
        ref::naive_recurrence<R>(x.q, x.k, x.v, o, with);
    }
    double flops(const recurrence_task& t) const { return 4 * static_cast<double>(t.D * (t.D + t.E)); }
};

/// o_i = sum over j <= i of w(h, i, j) v_j over the larger of the weights' sum and the floor.
template <class R>
void average(const sequence_views& x, const auto& o, R floor, const auto& w) {
    for (index_t h = 0; h < o.shape[1]; ++h)
        for (index_t i = 0; i < o.shape[2]; ++i) {
            std::vector<R> sum(static_cast<std::size_t>(o.shape[3]));
            R weights = 0;
            for (index_t j = 0; j <= i; ++j) {
                const R weight = w(h, i, j);
                weights += weight;
                for (index_t e = 0; e < o.shape[3]; ++e)
                    sum[static_cast<std::size_t>(e)] += weight * static_cast<R>(x.v(0, h, j, e));
            }
            for (index_t e = 0; e < o.shape[3]; ++e)
                o(0, h, i, e) = sum[static_cast<std::size_t>(e)] / std::max(weights, floor);
        }
}

/// D / 2 directions, so D features; gated: e^g of a token is kept, 1 - e^g of the next written.
template <bool Gated>
struct rfa_op {
    std::vector<float> directions;
    view<const float, 3> w;
    explicit rfa_op(const recurrence_task& t)
        : directions(normal_directions(1, t.D, t.D / 2, 5)), w(dense(directions.data(), {1, t.D, t.D / 2})) {}
    void run(const sequence_views& x, const auto& context) const {
        if constexpr (Gated)
            gated_rfa(x.q, x.k, x.v, x.o, w, x.token_logs, context);
        else
            rfa(x.q, x.k, x.v, x.o, w, context);
    }
    template <class R>
    void define(const sequence_views& x, const auto& o) const {
        const index_t H = x.q.shape[1], N = x.q.shape[2];
        std::vector<std::vector<R>> q, k;
        std::vector<R> kept;  // log of what is left of the first token
        for (index_t h = 0; h < H; ++h)
            for (index_t n = 0; n < N; ++n) {
                q.push_back(features<R>(&x.q(0, h, n, 0)));
                k.push_back(features<R>(&x.k(0, h, n, 0)));
                kept.push_back((n ? kept.back() : R(0)) + (Gated ? static_cast<R>(x.token_logs(0, h, n)) : R(0)));
            }
        average<R>(x, o, 1, [&](index_t h, index_t i, index_t j) {
            const auto at = static_cast<std::size_t>(h * N + i), from = static_cast<std::size_t>(h * N + j);
            const R dot = std::inner_product(q[at].begin(), q[at].end(), k[from].begin(), R(0));
            return Gated ? -dot * std::exp(kept[at] - kept[from]) * std::expm1(static_cast<R>(x.token_logs(0, h, j)))
                         : dot;
        });
    }
    double flops(const recurrence_task& t) const { return 4 * state_size(t) + 2 * static_cast<double>(t.D * t.D); }

private:
    template <class R>
    std::vector<R> features(const float* row) const {
        const index_t D = w.shape[1], m = w.shape[2];
        R squares = 0;
        for (index_t d = 0; d < D; ++d) squares += static_cast<R>(row[d]) * static_cast<R>(row[d]);
        const R length = std::sqrt(squares) + R(1e-3);
        std::vector<R> y(static_cast<std::size_t>(2 * m));
        for (index_t i = 0; i < m; ++i) {
            R sum = 0;
            for (index_t d = 0; d < D; ++d) sum += static_cast<R>(row[d]) / length * static_cast<R>(w(0, d, i));
            y[static_cast<std::size_t>(i)] = std::sin(sum), y[static_cast<std::size_t>(m + i)] = std::cos(sum);
        }
        return y;
    }
};

struct linear_attention_op : any_task_op {
    using any_task_op::any_task_op;
    void run(const sequence_views& x, const auto& context) const { linear_attention(x.q, x.k, x.v, x.o, context); }
    template <class R>
    void define(const sequence_views& x, const auto& o) const {
        ref::naive_recurrence<R>(x.q, x.k, x.v, o, options<R>(true));
    }

protected:
    template <class R>
    static ref::recurrence_options<R> options(bool normalised) {
        ref::recurrence_options<R> with;
        with.query_features = with.key_features = [](const std::vector<R>& x, index_t) { return ref::elu_plus_one(x); };
        with.normalised = normalised;
        return with;
    }
};

/// TransNormer, its norm over the channels of a head.
struct norm_attention_op : linear_attention_op {
    using linear_attention_op::linear_attention_op;
    static constexpr double eps = 1e-6;
    void run(const sequence_views& x, const auto& context) const {
        norm_attention(x.q, x.k, x.v, x.o, rms(eps), context);
    }
    template <class R>
    void define(const sequence_views& x, const auto& o) const {
        ref::naive_recurrence<R>(x.q, x.k, x.v, o, options<R>(false));
        for (index_t h = 0; h < o.shape[1]; ++h)
            for (index_t n = 0; n < o.shape[2]; ++n) {
                R squares = 0;
                for (index_t e = 0; e < o.shape[3]; ++e) squares += o(0, h, n, e) * o(0, h, n, e);
                const R length = std::sqrt(squares / static_cast<R>(o.shape[3]) + R(eps));
                for (index_t e = 0; e < o.shape[3]; ++e) o(0, h, n, e) /= length;
            }
    }
};

struct cosformer_op {
    index_t length;
    explicit cosformer_op(const recurrence_task& t) : length(t.N) {}
    void run(const sequence_views& x, const auto& context) const {
        linear_attention(x.q, x.k, x.v, x.o, cosformer_features(length), context);
    }
    template <class R>
    void define(const sequence_views& x, const auto& o) const {
        average<R>(x, o, 0, [&](index_t h, index_t i, index_t j) {
            R dot = 0;
            for (index_t d = 0; d < x.q.shape[3]; ++d)
                dot +=
                    std::max(static_cast<R>(x.q(0, h, i, d)), R(0)) * std::max(static_cast<R>(x.k(0, h, j, d)), R(0));
            return dot * std::cos(std::numbers::pi_v<R> / 2 * static_cast<R>(i - j) / static_cast<R>(length));
        });
    }
    double flops(const recurrence_task& t) const { return 8 * state_size(t); }
};

struct rebased_op {
    std::vector<float> gamma, beta;
    explicit rebased_op(const recurrence_task& t)
        : gamma(static_cast<std::size_t>(t.D), 1.0f), beta(static_cast<std::size_t>(t.D), 0.0f) {}
    void run(const sequence_views& x, const auto& context) const {
        rebased(x.q, x.k, x.v, x.o, rebased_features(std::span(gamma), std::span(beta)), context);
    }
    template <class R>
    void define(const sequence_views& x, const auto& o) const {
        ref::recurrence_options<R> with;
        with.query_features = with.key_features = [](std::vector<R> row, index_t) {
            const R D = static_cast<R>(row.size()), mean = std::accumulate(row.begin(), row.end(), R(0)) / D;
            R spread = 0;
            for (R one : row) spread += (one - mean) * (one - mean);
            for (R& one : row) one = (one - mean) / std::sqrt(spread / D + R(1e-5));
            std::vector<R> y;
            for (R one : row)
                for (R other : row) y.push_back(one * other / std::sqrt(D));
            return y;
        };
        with.normalised = true;
        ref::naive_recurrence<R>(x.q, x.k, x.v, o, with);
    }
    double flops(const recurrence_task& t) const { return 2 * static_cast<double>(t.D * (t.D + 1) * t.E); }
};

/// The complex decay turns by small angles.
struct gateloop_op : any_task_op {
    using any_task_op::any_task_op;
    void run(const sequence_views& x, const auto& context) const {
        gateloop(x.q, x.k, x.v, x.o, x.channel_logs, x.a, context);
    }
    template <class R>
    void define(const sequence_views& x, const auto& o) const {
        auto with = fading_by_channel<R>(x);
        with.phase = ref::gate_of<R>(x.a, x.k.shape[1]);
        ref::naive_recurrence<R>(x.q, x.k, x.v, o, with);
    }
    double flops(const recurrence_task& t) const { return 10 * state_size(t); }
};

struct hgrn2_op : any_task_op {
    using any_task_op::any_task_op;
    void run(const sequence_views& x, const auto& context) const { hgrn2(x.q, x.v, x.o, x.channel_logs, context); }
    template <class R>
    void define(const sequence_views& x, const auto& o) const {
        auto with = fading_by_channel<R>(x);
        with.key_features = [](std::vector<R> g, index_t) {
            for (R& one : g) one = -std::expm1(one);
            return g;
        };
        ref::naive_recurrence<R>(x.q, x.channel_logs, x.v, o, with);
    }
};

/// What an operator has beside the operands of a sequence lies by heads: the first head of a part of them.
index_t first_head(const sequence_views& whole, const sequence_views& part) {
    return (part.q.data - whole.q.data) / whole.q.strides[1];
}

/// Two updates a token: its own key and value, and those of the token after it; keys are of length 1, beta below 1.
struct gated_delta_product_op {
    std::shared_ptr<const sequence> whole;
    std::vector<float> memory;
    view<float> k, v;
    view<float, 3> beta;
    explicit gated_delta_product_op(const recurrence_task& t)
        : whole(sequence_of(t)), memory(static_cast<std::size_t>(2 * t.H * t.N * (t.D + t.E + 1))) {
        k = heads(memory.data(), {1, t.H, 2 * t.N, t.D});
        v = heads(k.data + k.size(), {1, t.H, 2 * t.N, t.E});
        beta = dense(v.data + v.size(), {1, t.H, 2 * t.N});
        for (index_t h = 0; h < t.H; ++h)
            for (index_t n = 0; n < 2 * t.N; ++n) {
                const index_t from = (n / 2 + n % 2) % t.N;
                std::copy_n(&whole->k(0, h, from, 0), t.D, &k(0, h, n, 0));
                std::copy_n(&whole->v(0, h, from, 0), t.E, &v(0, h, n, 0));
                beta(0, h, n) = whole->beta(0, h, from);
            }
    }
    void run(const sequence_views& x, const auto& context) const {
        gated_delta_product(x.q, k, v, x.o, x.token_logs, beta, 2, context);
    }
    template <class R>
    void define(const sequence_views& x, const auto& o) const {
        const index_t first = first_head(*whole, x);
        const auto part = [&](const auto& y) {
            return slice(slice(y, 1, {first, first + x.q.shape[1]}), 2, {0, 2 * x.q.shape[2]});
        };
        auto with = decaying<R>(x);
        with.beta = [own = part(beta)](index_t b, index_t h, index_t row) { return static_cast<R>(own(b, h, row)); };
        ref::naive_recurrence<R>(x.q, part(k), part(v), o, with);
    }
    double flops(const recurrence_task& t) const { return 10 * state_size(t); }
};

struct lightning_op {
    std::shared_ptr<const sequence> whole;
    std::vector<float> decays;
    explicit lightning_op(const recurrence_task& t) : whole(sequence_of(t)), decays(lightning_decays(t.H, 0, 12)) {}
    void run(const sequence_views& x, const auto& context) const {
        lightning_attention(x.q, x.k, x.v, x.o, std::span<const float>(decays), context);
    }
    template <class R>
    void define(const sequence_views& x, const auto& o) const {
        ref::recurrence_options<R> with;
        with.key_decay = [this, first = first_head(*whole, x)](index_t, index_t h, index_t, index_t) {
            return static_cast<R>(decays[static_cast<std::size_t>(first + h)]);
        };
        with.scale = R(1);
        ref::naive_recurrence<R>(x.q, x.k, x.v, o, with);
    }
    double flops(const recurrence_task& t) const { return 4 * state_size(t); }
};

/// In the form that it chooses; queries are made of length 1 before.
struct taylor_shift_op {
    static constexpr bool sees_all_keys = true;
    std::vector<float> rows;
    view<float> q;
    explicit taylor_shift_op(const recurrence_task& t) : rows(static_cast<std::size_t>(t.H * t.N * t.D)) {
        q = heads(rows.data(), {1, t.H, t.N, t.D});
        unit_rows(sequence_of(t)->q, q);
    }
    void run(const sequence_views& x, const auto& context) const {
        taylor_shift(q, x.k, x.v, x.o, true, taylor_form::fastest, context);
    }
    template <class R>
    void define(const sequence_views& x, const auto& o) const {
        ref::taylor_shift<R>(x.q, x.k, x.v, o, std::vector<R>(static_cast<std::size_t>(x.q.shape[1]), R(1)));
    }
    double flops(const recurrence_task& t) const {
        return t.N > taylor_shift_crossover(t.D) ? 4 * static_cast<double>(taylor_features{}.width(t.D) * t.E)
                                                 : 2 * static_cast<double>(t.N * (t.D + t.E));
    }
};

/// What a row of the operator is, given what runs it.
template <class Op>
prepared judged(const recurrence_task& t, const std::shared_ptr<const Op>& op, job run) {
    const auto x = sequence_of(t);
    auto ready = judged_recurrence(t, x, std::move(run), [=](sequence_views part, const view<double>& o) {
        if constexpr (requires { Op::sees_all_keys; }) {
            const auto all = x->cut({0, part.q.shape[1]}, {0, t.N});
            part.k = all.k, part.v = all.v;
        }
        op->template define<double>(part, o);
    });
    ready.flops = op->flops(t) * static_cast<double>(t.H * t.N);
    return ready;
}
template <class Op>
prepared by_heed(const recurrence_task& t) {
    const auto op = std::make_shared<const Op>(t);
    const auto pool = std::make_shared<threads>(t.threads);
    return judged(t, op, [=, x = sequence_of(t)] { op->run(*x, on{*pool}); });
}
template <class Op>
prepared naive(const recurrence_task& t) {
    const auto op = std::make_shared<const Op>(t);
    return judged(t, op, over_tasks<float>(t.threads, t.H, 0, [=, x = sequence_of(t)](index_t h, float*) {
                      const auto head = x->cut({h, h + 1}, {0, t.N});
                      op->template define<float>(head, head.o);
                  }));
}

template <class Op>
void add(std::vector<composite>& list, const std::string& op) {
    list.push_back({op, "heed", by_heed<Op>});
    list.push_back({op, "naive", naive<Op>});
}

}  // namespace

const std::vector<composite>& composites() {
    static const auto all = [] {
        std::vector<composite> list;
        add<mlstm_op>(list, "mlstm");
        add<gsa_op>(list, "gsa");
        add<mesa_net_op>(list, "mesa_net");
        add<log_linear_op<false>>(list, "log_linear_attention.mamba2");
        add<log_linear_op<true>>(list, "log_linear_attention.gated_deltanet");
        add<infini_op>(list, "infini_attention");
        add<hybrid_op>(list, "hybrid_attention");
        add<lasp_op>(list, "lasp");
        add<performer_op>(list, "performer");
        add<rfa_op<false>>(list, "rfa");
        add<rfa_op<true>>(list, "gated_rfa");
        add<linear_attention_op>(list, "linear_attention");
        add<norm_attention_op>(list, "norm_attention");
        add<cosformer_op>(list, "cosformer");
        add<rebased_op>(list, "rebased");
        add<gateloop_op>(list, "gateloop");
        add<hgrn2_op>(list, "hgrn2");
        add<gated_delta_product_op>(list, "gated_delta_product");
        add<lightning_op>(list, "lightning_attention");
        add<taylor_shift_op>(list, "taylor_shift");
        add<rollback_op>(list, "rollback");
        return list;
    }();
    return all;
}

}  // namespace bench
