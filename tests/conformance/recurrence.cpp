// Recurrences of flash-linear-attention's naive code: each op says how its inputs become operands of one recurrence.
#include "fla_inputs.hpp"

namespace conformance {
namespace {

using filled = recurrence_call<float>;

/// f(b, h, n, d) of every element of x.
template <class F>
operand<float> like(const operand<float>& x, F&& f) {
    return made_by<float>(x.at.shape, f);
}
/// The elements of a gate, one channel or all.
auto channels(const operand<float>& x) {
    return [at = x.at](index_t b, index_t h, index_t n, index_t d) { return at(b, h, n, at.shape[3] == 1 ? 0 : d); };
}

/// A transition A - x (A y)^T for a decay A: what the delta rule becomes when it erases along another key.
void erase(filled& c, const operand<float>& x, const operand<float>& y) {
    const auto erased = channels(x), decay = channels(c.decay), key = channels(y);
    c.a = like(c.k, [&](auto... i) { return -erased(i...); });
    c.b = like(c.k, [&](auto... i) { return std::exp(decay(i...)) * key(i...); });
}

void gated(filled& c, fla_inputs& in) { c.decay = in({"g", "gk"}); }
void delta(filled& c, fla_inputs& in) { c.beta = in({"beta"}); }
void gated_delta(filled& c, fla_inputs& in) {
    c.beta = in({"beta"});
    c.decay = in.maybe({"g", "gk"});
}
void retention(filled& c, fla_inputs&) {
    for (index_t h = 0; h < c.q.at.shape[1]; ++h)
        c.head_decay.push_back(static_cast<float>(std::log1p(-std::exp2(-5.0 - static_cast<double>(h)))));
}
void rwkv6(filled& c, fla_inputs& in) {
    const array& u = in.of().needed("u");
    require(u.rank() == 2, "u has rank " + std::to_string(u.rank()));
    c.decay = in({"w"});
    c.bonus.data = u.as<float>();
    c.bonus.at = heads(c.bonus.data.data(), {1, u.shape[0], 1, u.shape[1]});
}
void low_rank(filled& c, fla_inputs& in) {
    c.b = in({"alpha", "a"});
    c.a = in({"beta", "b"});
    c.decay = in.maybe({"gk", "g", "w"});
}
/// S = g S, then S += k (beta (v - S^T p))^T.
void comba(filled& c, fla_inputs& in) {
    const auto p = in({"p"}), beta = in({"beta"});
    const auto step = channels(beta), key = channels(c.k), value = channels(c.v);
    c.decay = in({"g"});
    erase(c, like(c.k, [&](auto... i) { return step(i...) * key(i...); }), p);
    c.v = like(c.v, [&](auto... i) { return step(i...) * value(i...); });
}
/// S = g S, then S += k (w v - S^T (b k))^T.
void gated_delta_2(filled& c, fla_inputs& in) {
    const auto b = in({"b"}), w = in({"w"});
    const auto erased = channels(b), written = channels(w), key = channels(c.k), value = channels(c.v);
    c.decay = in({"g"});
    erase(c, c.k, like(c.k, [&](auto... i) { return erased(i...) * key(i...); }));
    c.v = like(c.v, [&](auto... i) { return written(i...) * value(i...); });
}
void delta_product(filled& c, fla_inputs& in) {
    gated_delta(c, in);
    const index_t steps = in.of().integer("num_householder", c.k.at.shape[2] / c.q.at.shape[2]);
    require(steps * c.q.at.shape[2] == c.k.at.shape[2], "num_householder is not the rows of k of a token");
}

struct rule {
    void (*fill)(filled&, fla_inputs&);
    bool scaled = true;  // by 1 / sqrt(K), where the case does not say
};
const std::map<std::string, rule> rules = {
    {"simple_gla", {gated}},
    {"gla", {gated}},
    {"retention", {retention}},
    {"rwkv6", {rwkv6}},
    {"delta_rule", {delta}},
    {"gated_delta_rule", {gated_delta}},
    {"kda", {gated_delta}},
    {"iplr", {low_rank}},
    {"iplr_delta_rule", {low_rank}},
    {"dplr", {low_rank}},
    {"dplr_delta_rule", {low_rank}},
    {"rwkv7", {low_rank, false}},
    {"comba", {comba}},
    {"gdn2", {gated_delta_2}},
    {"gated_delta_product", {delta_product, false}},
};

}  // namespace

double replay_recurrence(golden_case& g, engine by) {
    fla_inputs in(g);
    const rule& op = rules.at(g.op());
    filled c;
    in.qkv(c, op.scaled);
    op.fill(c, in);
    c.state = in.state({"h0", "initial_state"});
    c.finish(in.tokens_first());
    run_recurrence(c, by);
    return std::max(in.compare("o", c.o), in.compare("ht", c.state, true));
}

}  // namespace conformance
