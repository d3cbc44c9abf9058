// flash-linear-attention's log_linear_attn and mesa_net, by name or by their definitions.
#include <heed/ops/log_linear_attention.hpp>
#include <heed/ops/mesa_net.hpp>
#include <heed/ref/log_linear_attention.hpp>
#include <heed/ref/mesa_net.hpp>

#include "fla_inputs.hpp"

namespace conformance {
namespace {

ref::recurrence_options<double> gates(const operand<float>& g, const operand<float>& beta, index_t H) {
    ref::recurrence_options<double> with;
    with.key_decay = ref::gate_of<double>(g.at, H);
    if (beta.at.data) with.beta = ref::gate_of<double>(beta.at, H);
    return with;
}

/// (b, h, n) of (b, h, n, 1).
view<const float, 3> numbers(const operand<float>& x) {
    require(x.at.shape[3] == 1, "a gate has several channels");
    return {
        x.at.data, {x.at.shape[0], x.at.shape[1], x.at.shape[2]}, {x.at.strides[0], x.at.strides[1], x.at.strides[2]}};
}

operand<float> taken(const state<float>& s) {
    return made_by<float>(s.shape(), [x = s.values()](auto... i) { return x(i...); });
}

}  // namespace

double replay_log_linear(golden_case& c, engine by) {
    fla_inputs in(c);
    const auto q = in({"q"}), k = in({"k"}), v = in({"v"}), g = in({"g"}), levels = in({"level_scales"});
    const auto beta = in.maybe({"beta"});
    require(in.scale(false, 1) == 1, "log-linear attention has no scale");
    auto o = made<float>(v.at.shape, in.tokens_first());
    const token_decay decay{numbers(g)};
    if (by == engine::reference)
        ref::log_linear_attention<double>(q.at, k.at, v.at, levels.at, o.at, gates(g, beta, v.at.shape[1]));
    else if (beta.at.data)
        log_linear_attention(q.at, k.at, v.at, levels.at, o.at, decay, delta_rule{numbers(beta)});
    else
        log_linear_attention(q.at, k.at, v.at, levels.at, o.at, decay);
    return in.compare({"o"}, o);
}

double replay_mesa_net(golden_case& c, engine by) {
    fla_inputs in(c);
    const auto q = in({"q"}), k = in({"k"}), v = in({"v"}), g = in({"g"}), beta = in({"beta"});
    require(in.scale(false, 1) == 1, "the Mesa layer has no scale");
    const array& lambda = c.needed("lamb");
    const auto [B, H, N, D] = q.at.shape;
    const index_t E = v.at.shape[3], steps = c.integer("max_CG_iteration", std::max<index_t>(30, 2 * D));
    require(lambda.shape == std::vector<index_t>{H, D}, "lamb is not (H, D)");
    const auto l = lambda.as<float>();
    auto kk = in.state({"h_kk_init", "h_kk"}), kv = in.state({"h_kv_init", "h_kv"});
    if (!kk.at.data) kk = made<float>({B, H, D, D});
    if (!kv.at.data) kv = made<float>({B, H, D, E});
    auto o = made<float>(v.at.shape, in.tokens_first());
    if (by == engine::reference) {
        ref::mesa_net<double>(q.at, k.at, v.at, dense(l.data(), {H, D}), o.at, gates(g, beta, H), kk.at, kv.at);
    } else {
        mesa_state<float> carried(B, H, D, E);
        carried.keys.assign(kk.at), carried.values.assign(kv.at);
        mesa_net(carried, q.at, k.at, v.at, numbers(beta), dense(l.data(), {H, D}), o.at, steps,
                 token_decay{numbers(g)});
        kk = taken(carried.keys), kv = taken(carried.values);
    }
    return std::max({in.compare({"o"}, o), in.compare({"h_kk"}, kk, true), in.compare({"h_kv"}, kv, true)});
}

}  // namespace conformance
