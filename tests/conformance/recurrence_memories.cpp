// flash-linear-attention's log_linear_attn and mesa_net, by their definitions.
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

}  // namespace

double replay_log_linear(golden_case& c) {
    fla_inputs in(c);
    const auto q = in({"q"}), k = in({"k"}), v = in({"v"}), g = in({"g"}), levels = in({"level_scales"});
    require(in.scale(false, 1) == 1, "log-linear attention has no scale");
    auto o = made<float>(v.at.shape, in.tokens_first());
    ref::log_linear_attention<double>(q.at, k.at, v.at, levels.at, o.at, gates(g, in.maybe({"beta"}), v.at.shape[1]));
    return in.compare("o", o);
}

double replay_mesa_net(golden_case& c) {
    fla_inputs in(c);
    const auto q = in({"q"}), k = in({"k"}), v = in({"v"}), g = in({"g"}), beta = in({"beta"});
    require(in.scale(false, 1) == 1, "the Mesa layer has no scale");
    const array& lambda = c.needed("lamb");
    const auto [B, H, N, D] = q.at.shape;
    require(lambda.shape == std::vector<index_t>{H, D}, "lamb is not (H, D)");
    const auto l = lambda.as<float>();
    auto kk = in.state({"h_kk_init", "h_kk"}), kv = in.state({"h_kv_init", "h_kv"});
    if (!kk.at.data) kk = made<float>({B, H, D, D});
    if (!kv.at.data) kv = made<float>({B, H, D, v.at.shape[3]});
    auto o = made<float>(v.at.shape, in.tokens_first());
    ref::mesa_net<double>(q.at, k.at, v.at, dense(l.data(), {H, D}), o.at, gates(g, beta, H), kk.at, kv.at);
    return std::max({in.compare("o", o), in.compare("h_kk", kk, true), in.compare("h_kv", kv, true)});
}

}  // namespace conformance
