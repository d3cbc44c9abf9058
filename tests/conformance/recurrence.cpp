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

void gated(filled& c, fla_inputs& in) {
    c.decay = in.maybe({"g", "gk"});
    c.value_decay = in.maybe({"gv"});
    if (const array* of_heads = in.of().input("g_gamma")) c.head_decay = of_heads->as<float>();
    require((c.decay.at.data != nullptr) + (c.value_decay.at.data != nullptr) + !c.head_decay.empty() == 1,
            "there is not one gate");
}
void delta(filled& c, fla_inputs& in) { c.beta = in({"beta"}); }
void gated_delta(filled& c, fla_inputs& in) {
    c.beta = in({"beta"});
    c.decay = in.maybe({"g", "gk"});
}
void retention(filled& c, fla_inputs&) {
    for (index_t h = 0; h < c.q.at.shape[1]; ++h)
        c.head_decay.push_back(static_cast<float>(std::log1p(-std::exp2(-5.0 - static_cast<double>(h)))));
}
void lightning(filled& c, fla_inputs& in) {
    const auto layer = static_cast<double>(in.of().integer("layer_idx", 0));
    const auto layers = static_cast<double>(in.of().integer("num_layers", 1));
    const index_t H = c.q.at.shape[1];
    for (index_t h = 0; h < H; ++h)
        c.head_decay.push_back(static_cast<float>(-8.0 / static_cast<double>(H) * (1 - layer / layers) * double(h)));
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
    {"lightning_attn", {lightning}},
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

/// f(x) in place of each view x with rows of tokens.
template <class F>
void change_tokens(filled& c, F&& f) {
    for (operand<float>* x : {&c.q, &c.k, &c.v, &c.o, &c.decay, &c.value_decay, &c.beta, &c.a, &c.b})
        if (x->at.data) x->at = f(x->at);
}

/// Runs a call column by column of its values, if beta has a number for each: recurrences of their own.
void run_columns(filled& c, engine by) {
    const index_t E = c.beta.at.data ? c.beta.at.shape[3] : 1;
    if (E == 1) return run_recurrence(c, by);
    require(E == c.v.at.shape[3], "beta has another width than v");
    for (index_t e = 0; e < E; ++e) {
        filled column = c;  // its views are of the elements of c
        for (operand<float>* x : {&column.v, &column.o, &column.beta, &column.state})
            x->at = slice(x->at, 3, {e, e + 1});
        run_recurrence(column, by);
    }
}

/// Runs sequences by themselves, from the first token to the last or from the last to the first.
void run_sequences(filled& c, engine by, const std::vector<index_t>& offsets, bool reverse) {
    if (offsets.empty()) {
        if (reverse) change_tokens(c, [](const view<float>& x) { return flipped(x, 2); });
        run_columns(c, by);
        if (reverse) change_tokens(c, [](const view<float>& x) { return flipped(x, 2); });
        return;
    }
    const index_t N = c.q.at.shape[2];
    require(c.q.at.shape[0] == 1 && offsets.front() == 0 && offsets.back() == N, "offsets do not go over one row");
    for (std::size_t s = 0; s + 1 < offsets.size(); ++s) {
        require(offsets[s] <= offsets[s + 1], "offsets fall");
        filled one = c;
        change_tokens(one, [&](const view<float>& x) {
            const index_t rows = x.shape[2] / N;  // of a token
            return slice(x, 2, {rows * offsets[s], rows * offsets[s + 1]});
        });
        const auto at = static_cast<index_t>(s);
        one.state.at = slice(one.state.at, 0, {at, at + 1});
        run_sequences(one, by, {}, reverse);
    }
}

}  // namespace

double replay_recurrence(golden_case& g, engine by) {
    fla_inputs in(g);
    const rule& op = rules.at(g.op());
    filled c;
    in.qkv(c, op.scaled);
    op.fill(c, in);
    c.state = in.state({"h0", "initial_state"});
    const auto offsets = in.offsets();
    const bool reverse = g.flag("reverse", false);
    require(!reverse || c.k.at.shape[2] == c.q.at.shape[2], "reverse goes with one row of k a token");
    c.finish(in.tokens_first(), offsets.empty() ? c.q.at.shape[0] : static_cast<index_t>(offsets.size()) - 1);
    run_sequences(c, by, offsets, reverse);
    return std::max(in.compare({"o"}, c.o), in.compare({"ht", "final_state"}, c.state, true));
}

}  // namespace conformance
