// A recurrence to be measured: an operator, its shape and its operands.
#pragma once

#include <heed/heed.hpp>

#include "../support/measurement.hpp"

namespace bench {

using namespace heed;

struct recurrence_task {
    std::string op;
    index_t D = 64, E = 64, N = 2048, H = 8;
    int threads = 1;

    std::string name(const std::string& dtype) const;  // recurrence/<op>/<dtype>/d:D/e:E/n:N/h:H/threads:T
    index_t rows() const { return op == "based" ? taylor_features{}.width(D) : D; }  // of a state
    /// Multiply-adds' flops that the operator's definition asks for: 4 rows E a token and head, delta rules 6.
    double flops() const;
};

/// Operands every operator finds its own among: normal q and v, keys of length 1, gates as trained models have them.
struct sequence_views {
    view<float> q, k, v, o;           // (1, H, N, D), (1, H, N, E)
    view<float> channel_logs, a, b;   // (1, H, N, D): log decays; the factors of a low-rank update
    view<float, 3> token_logs, beta;  // (1, H, N)

    /// Some of the heads and tokens.
    sequence_views cut(range heads, range tokens) const {
        sequence_views y = *this;
        const auto all = [&](auto&... x) { ((x = slice(slice(x, 1, heads), 2, tokens)), ...); };
        all(y.q, y.k, y.v, y.o, y.channel_logs, y.a, y.b, y.token_logs, y.beta);
        return y;
    }
};
class sequence : public sequence_views {
    aligned_vector<float> memory_;
    template <class V>
    V carve(const extents<V::rank>& shape, float*& at);

public:
    view<float, 2> own;            // (H, D): RWKV-6's bonus
    std::vector<float> head_logs;  // (H)

    explicit sequence(const recurrence_task&);
};
std::shared_ptr<const sequence> sequence_of(const recurrence_task&);

/// The output is compared with the definition over the first tokens of the first heads; causal operators do not know
/// how many come later. define(part, o): o of these heads and tokens.
using definition = std::function<void(const sequence_views& part, const view<double>& o)>;
prepared judged_recurrence(const recurrence_task& task, std::shared_ptr<const sequence> x, job run,
                           const definition& define);
/// The same by the definition of recurrences with the policies of the operator.
prepared judged_recurrence(const recurrence_task& task, std::shared_ptr<const sequence> x, job run);

/// Mamba-2 itself, its steps the betas and A the logs of the heads.
void run_mamba2(const sequence& x, auto&&... policies) {
    const view<const float, 1> A = dense(x.head_logs.data(), {x.q.shape[1]});
    mamba2(x.v, x.beta, A, x.k, x.q, x.o, mamba2_options<float>{}, policies...);
}
/// Calls f with the policies of the operator, (decay), (update), ...; "additive" is the engine without any.
template <class F>
void with_policies(const std::string& op, const sequence& x, const F& f) {
    if (op == "additive") return f();
    if (op == "based") return f(taylor_features{}, sum_of_keys{});
    if (op == "retention") return f(head_decay(x.head_logs));
    if (op == "simple_gla") return f(token_decay(x.token_logs));
    if (op == "gla") return f(channel_decay(x.channel_logs));
    if (op == "deltanet") return f(delta_rule(x.beta));
    if (op == "gated_deltanet") return f(token_decay(x.token_logs), delta_rule(x.beta));
    if (op == "kda") return f(channel_decay(x.channel_logs), delta_rule(x.beta));
    if (op == "rwkv6") return f(channel_decay(x.channel_logs), bonus(x.own));
    if (op == "rwkv7") return f(channel_decay(x.channel_logs), low_rank(x.a, x.b));
    throw std::invalid_argument("no recurrence " + op);
}

/// A form of heed's, or a rival.
measurement measured(const recurrence_task& task, const std::string& by = "heed");

}  // namespace bench
