// ONNX LinearAttention, opset 27: operands (B, T, H d), heads of k and v shared by groups of query heads.
//
//   S <- exp(decay) S   (gated),   w = v, or beta (v - S^T (erase k)) (delta),   S <- S + k w^T,   o = scale S^T q
#include "recurrence_call.hpp"

namespace conformance {
namespace {

/// An input (B, T, H c) as (b, h, t, c); no data if the case has none, which must be so if it is not `due`.
template <class T>
operand<T> taken(golden_case& g, const std::string& name, index_t heads, bool due, const std::string& rule) {
    const array* a = g.input(name);
    require(!a == !due, "update_rule " + rule + (due ? " needs " : " forbids ") + name);
    if (!a) return {};
    require(a->rank() == 3, name + " has rank " + std::to_string(a->rank()));
    return operand_of<T>(*a, heads, name);
}

/// The delta rule with an erasing gate e (b, h, t, d): S (A - beta k (A e k)^T) + beta k v^T.
template <class T>
void erase(recurrence_call<T>& c, const operand<T>& e) {
    const index_t Hs = c.state_heads();
    const auto [B, H, N, D] = c.k.at.shape;
    const auto beta = [&](index_t b, index_t h, index_t n) {
        return static_cast<double>(c.beta.at(b, c.beta.at.shape[1] == 1 ? 0 : h, n, 0));
    };
    const auto decay = [&](index_t b, index_t h, index_t n, index_t d) {
        return c.decay.at.data ? std::exp(static_cast<double>(c.decay.at(b, h, n, c.decay.at.shape[3] == 1 ? 0 : d)))
                               : 1;
    };
    require(H == Hs, "erase_gate needs a head of k for each state");
    c.a = made_by<T>(c.k.at.shape, [&](index_t b, index_t h, index_t n, index_t d) {
        return -beta(b, h, n) * static_cast<double>(c.k.at(b, h, n, d));
    });
    c.b = made_by<T>(c.k.at.shape, [&](index_t b, index_t h, index_t n, index_t d) {
        return decay(b, h, n, d) * static_cast<double>(e.at(b, h, n, d)) * static_cast<double>(c.k.at(b, h, n, d));
    });
    c.v = made_by<T>(c.v.at.shape, [&](index_t b, index_t h, index_t n, index_t d) {
        return beta(b, h, n) * static_cast<double>(c.v.at(b, h, n, d));
    });
    c.beta = {};
}

template <class T>
double replay(golden_case& g, engine by) {
    using real = accumulator<T>;
    const index_t q_heads = g.integer("q_num_heads", 0), kv_heads = g.integer("kv_num_heads", 0);
    require(q_heads > 0 && kv_heads > 0 && q_heads % kv_heads == 0, "q_num_heads is no multiple of kv_num_heads");
    g.integer("chunk_size", 0);  // a hint without effect on values
    const std::string rule = g.text("update_rule", "gated_delta");
    const bool gated = rule == "gated" || rule == "gated_delta", delta = rule == "delta" || rule == "gated_delta";
    require(gated || delta || rule == "linear", "update_rule is " + rule);

    recurrence_call<T> c;
    c.q = taken<T>(g, "query", q_heads, true, rule);
    c.k = taken<T>(g, "key", kv_heads, true, rule);
    c.v = taken<T>(g, "value", kv_heads, true, rule);
    c.decay = taken<T>(g, "decay", kv_heads, gated, rule);
    const array* beta = g.input("beta");
    c.beta = taken<T>(g, "beta", beta && beta->rank() == 3 && beta->shape[2] == 1 ? 1 : kv_heads, delta, rule);
    if (const array* e = g.input("erase_gate")) {
        require(delta, "update_rule " + rule + " forbids erase_gate");
        erase(c, operand_of<T>(*e, kv_heads, "erase_gate"));
    }
    const auto [B, H, N, D] = c.q.at.shape;
    const double given = g.real("scale").value_or(0);
    c.scale = given != 0 ? given : 1 / std::sqrt(static_cast<double>(D));
    const array* past = g.input("past_state");
    if (past) {
        require(past->rank() == 4, "past_state has rank " + std::to_string(past->rank()));
        c.state = operand_of<real>(*past, 0, "past_state");
    }
    c.finish(true);
    run_recurrence(c, by);

    const array *o = g.output("output"), *state = g.output("present_state");
    const std::string type = g.needed("query").type;
    require(o && o->type == type, "the output is missing, or has another type than the query");
    const index_t E = c.v.at.shape[3];
    double worst = compare("output", {B, N, q_heads * E}, c.o.data, *o, tolerance_of(type));
    if (state) {
        require(state->type == (past ? past->type : type), "present_state has type " + state->type);
        const double tolerance = std::max(tolerance_of(state->type), past ? 0 : tolerance_of(type));
        worst = std::max(worst, compare("present_state", {B, kv_heads, D, E}, c.state.data, *state, tolerance));
    }
    return worst;
}

}  // namespace

double replay_linear_attention(golden_case& c, engine by) {
    return with_type(c.needed("query").type, [&](auto zero) { return replay<decltype(zero)>(c, by); });
}

}  // namespace conformance
