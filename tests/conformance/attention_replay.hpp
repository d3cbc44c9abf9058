// ONNX Attention, opsets 23 to 25: a case becomes a call, the call runs, its outputs are compared.
#pragma once

#include "attention_call.hpp"
#include "attention_engines.hpp"

namespace conformance {

/// The sequence b of a call, which stands at its own offset.
template <class T>
call<T> sequence(const call<T>& c, index_t b) {
    const auto only = [b](auto v) { return v.data ? slice(v, 0, {b, b + 1}) : v; };
    call<T> one = c;
    one.q = only(c.q), one.k = only(c.k), one.v = only(c.v), one.o = only(c.o);
    one.bias = only(c.bias), one.visible = only(c.visible), one.logits = only(c.logits);
    one.keys = {c.keys[static_cast<std::size_t>(b)]};
    return one;
}

template <class T>
void run(const call<T>& c, engine by) {
    by == engine::heed ? run_heed(c) : run_reference(c);
}

template <class T>
double replay_attention_of(golden_case& g, engine by) {
    using real = accumulator<T>;
    const array &Q = g.needed("Q"), &K = g.needed("K"), &V = g.needed("V");
    require(Q.rank() == K.rank() && Q.rank() == V.rank(), "Q, K and V differ in rank");
    const index_t q_heads = g.integer("q_num_heads", 0), kv_heads = g.integer("kv_num_heads", 0);
    auto q = operand_of<T>(Q, q_heads, "Q");
    auto k = operand_of<T>(K, kv_heads, "K"), v = operand_of<T>(V, kv_heads, "V");

    const array *past_key = g.input("past_key"), *past_value = g.input("past_value");
    require(!past_key == !past_value, "past_key and past_value come together");
    index_t past = 0;
    if (past_key) {
        require(past_key->rank() == 4 && past_value->rank() == 4, "past_key and past_value have rank 4");
        past = past_key->shape[2];
        k = joined(operand_of<T>(*past_key, 0, "past_key"), k, "key");
        v = joined(operand_of<T>(*past_value, 0, "past_value"), v, "value");
    }
    const index_t B = q.at.shape[0], H = q.at.shape[1], N = q.at.shape[2], D = q.at.shape[3];
    const index_t M = k.at.shape[2], E = v.at.shape[3];

    call<T> c;
    c.q = q.at, c.k = k.at, c.v = v.at;
    operand<T> o{std::vector<T>(static_cast<std::size_t>(B * H * N * E)), {}};
    o.at = Q.rank() == 4 ? heads(o.data.data(), {B, H, N, E}) : tokens(o.data.data(), {B, N, H, E});
    c.o = o.at;
    c.scale = g.real("scale").value_or(1 / std::sqrt(static_cast<double>(D)));
    c.softcap = std::max(0.0, g.real("softcap").value_or(0));  // ONNX applies a positive one only
    c.causal = g.integer("is_causal", 0) != 0;
    c.left = g.integer("left_window_size", -1);
    c.right = g.integer("right_window_size", -1);
    require(c.left >= -1 && c.right >= -1, "a window size is below -1");
    c.offset = past;
    c.keys.assign(static_cast<std::size_t>(B), M);

    const array* nonpad = g.input("nonpad_kv_seqlen");
    if (nonpad) {
        require(nonpad->shape == std::vector<index_t>{B}, "nonpad_kv_seqlen is not one number a sequence");
        c.keys = nonpad->template as<index_t>();
    }
    mask_input<real> mask;
    if (const array* a = g.input("attn_mask")) {
        mask = mask_of<real>(*a, {B, H, N, M});
        if (mask.boolean)
            c.visible = mask.as_boolean();
        else
            c.bias = mask.as_bias();
    }
    c.mode = static_cast<int>(g.integer("qk_matmul_output_mode", 0));
    require(c.mode >= 0 && c.mode <= 3, "qk_matmul_output_mode is " + std::to_string(c.mode));
    const array* logits_wanted = g.output("qk_matmul_output");
    std::vector<T> logits;
    if (logits_wanted) {
        logits.resize(static_cast<std::size_t>(B * H * N * M));
        c.logits = heads(logits.data(), {B, H, N, M});
    }

    if (nonpad)
        for (index_t b = 0; b < B; ++b) {
            auto one = sequence(c, b);
            if (!past_key) one.offset = one.keys[0] - N;
            one.keys[0] = std::clamp<index_t>(one.keys[0], 0, M);
            run(one, by);
        }
    else
        run(c, by);

    // Softmax in a type narrower than the output's is not imitated: that type's tolerance holds then.
    double least = 0;
    const auto precision = g.integer("softmax_precision", 0);
    require(precision == 0 || precision == 1 || precision == 10 || precision == 11 || precision == 16,
            "softmax_precision is " + std::to_string(precision));
    if (precision == 1) least = tolerance_of("float32");
    if (precision == 10) least = tolerance_of("float16");
    if (precision == 16) least = tolerance_of("bfloat16");

    double worst = 0;
    const auto check = [&](const char* name, const array* want, const std::vector<index_t>& shape,
                           const std::vector<T>& got, const std::string& type, double at_least) {
        if (!want) return;
        require(want->type == type, std::string(name) + " has type " + want->type + ", expected " + type);
        worst = std::max(worst, compare(name, shape, got, *want, std::max(at_least, tolerance_of(type))));
    };
    const array* Y = g.output("Y");
    require(Y, "output Y is missing");
    const std::vector<index_t> packed{B, N, H * E}, full{B, H, N, E};
    check("Y", Y, Q.rank() == 3 ? packed : full, o.data, Q.type, least);
    check("present_key", g.output("present_key"), {B, k.at.shape[1], M, D}, in_order(k.at), K.type, 0);
    check("present_value", g.output("present_value"), {B, v.at.shape[1], M, E}, in_order(v.at), V.type, 0);
    check("qk_matmul_output", logits_wanted, {B, H, N, M}, logits, Q.type, c.mode == 3 ? least : 0);
    return worst;
}

}  // namespace conformance
