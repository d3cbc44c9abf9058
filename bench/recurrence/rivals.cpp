// Others, token by token: plain loops as a compiler takes them, and Eigen's products and rank-one updates.
#include "../support/crew.hpp"
#include "contestants.hpp"

namespace bench {
namespace {

bool is_delta(const recurrence_task& t) { return t.op == "deltanet" || t.op == "gated_deltanet" || t.op == "kda"; }

/// The gates of one token: multipliers of the state's rows, and of what is written.
void gates_of(const recurrence_task& t, const sequence& x, index_t h, index_t n, float* decay, float& beta) {
    const bool by_channel = t.op == "gla" || t.op == "kda";
    float alike = 0;
    if (t.op == "retention") alike = x.head_logs[static_cast<std::size_t>(h)];
    if (t.op == "simple_gla" || t.op == "gated_deltanet") alike = x.token_logs(0, h, n);
    if (t.op == "mamba2") alike = x.beta(0, h, n) * x.head_logs[static_cast<std::size_t>(h)];
    for (index_t d = 0; d < t.D; ++d) decay[d] = std::exp(by_channel ? x.channel_logs(0, h, n, d) : alike);
    beta = is_delta(t) || t.op == "mamba2" ? x.beta(0, h, n) : 1.0f;
}
float scale_of(const recurrence_task& t) { return t.op == "mamba2" ? 1.0f : 1 / std::sqrt(static_cast<float>(t.D)); }

/// rwkv6 and rwkv7 have definitions of their own, which rivals leave out.
void require_common(const recurrence_task& t) {
    if (t.op.starts_with("rwkv")) throw std::invalid_argument("no rival computes " + t.op);
}

prepared naive(const recurrence_task& t) {
    require_common(t);
    const auto x = sequence_of(t);
    const job run = over_tasks<float>(t.threads, t.H, t.D * t.E + t.D + t.E, [x, t](index_t h, float* S) {
        float *decay = S + t.D * t.E, *r = decay + t.D;
        const float scale = scale_of(t);
        std::fill_n(S, t.D * t.E, 0.0f);
        for (index_t n = 0; n < t.N; ++n) {
            const float *q = &x->q(0, h, n, 0), *k = &x->k(0, h, n, 0), *v = &x->v(0, h, n, 0);
            float *o = &x->o(0, h, n, 0), beta;
            gates_of(t, *x, h, n, decay, beta);
            for (index_t d = 0; d < t.D; ++d)
                for (index_t e = 0; e < t.E; ++e) S[d * t.E + e] *= decay[d];
            for (index_t e = 0; e < t.E; ++e) r[e] = v[e];
            for (index_t d = 0; is_delta(t) && d < t.D; ++d)
                for (index_t e = 0; e < t.E; ++e) r[e] -= k[d] * S[d * t.E + e];
            for (index_t e = 0; e < t.E; ++e) r[e] *= beta;
            for (index_t e = 0; e < t.E; ++e) o[e] = 0;
            for (index_t d = 0; d < t.D; ++d)
                for (index_t e = 0; e < t.E; ++e) {
                    S[d * t.E + e] += k[d] * r[e];
                    o[e] += scale * q[d] * S[d * t.E + e];
                }
        }
    });
    return judged_recurrence(t, x, run);
}

prepared eigen(const recurrence_task& t) {
    using matrix = Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
    using row = Eigen::RowVectorXf;
    require_common(t);
    const auto x = sequence_of(t);
    const job run = over_tasks<float>(t.threads, t.H, t.D, [x, t](index_t h, float* decay) {
        matrix S = matrix::Zero(t.D, t.E);
        row w(t.E);
        const float scale = scale_of(t);
        for (index_t n = 0; n < t.N; ++n) {
            const Eigen::Map<const row> q(&x->q(0, h, n, 0), t.D), k(&x->k(0, h, n, 0), t.D), v(&x->v(0, h, n, 0), t.E);
            Eigen::Map<row> o(&x->o(0, h, n, 0), t.E);
            float beta;
            gates_of(t, *x, h, n, decay, beta);
            S.array().colwise() *= Eigen::Map<const Eigen::ArrayXf>(decay, t.D);
            w = v;
            if (is_delta(t)) w -= k * S;
            w *= beta;
            S.noalias() += k.transpose() * w;
            o.noalias() = scale * q * S;
        }
    });
    return judged_recurrence(t, x, run);
}

}  // namespace

std::vector<recurrence_contestant> rival_recurrences() { return {{"naive", naive}, {"eigen", eigen}}; }

const std::vector<recurrence_contestant>& recurrence_contestants() {
    static const auto all = [] {
        auto everyone = heed_recurrences();
        for (auto& rival : rival_recurrences()) everyone.push_back(std::move(rival));
        return everyone;
    }();
    return all;
}

measurement measured(const recurrence_task& task, const std::string& by) {
    for (const recurrence_contestant& c : recurrence_contestants())
        if (c.name == by) return {task.name("f32") + "/" + by, task.threads, [=] { return c.prepare(task); }};
    throw std::out_of_range("no recurrence by " + by);
}

}  // namespace bench
