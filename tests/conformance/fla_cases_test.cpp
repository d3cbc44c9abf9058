// heed_test: $<TARGET_OBJECTS:heed_replays>
// Cases as flash-linear-attention's naive code has them, beyond those of tests/data: what their lines mean. Expected
// outputs are those of the definition, told what the code does.
#include <heed/ref/log_linear_attention.hpp>
#include <heed/ref/mesa_net.hpp>

#include "written_rows.hpp"
#include "recurrence_data.hpp"

using namespace test;
using conformance::written_rows;

namespace {

const recurrence_sizes sizes{2, 3, 3, 3, 21, 8, 5, 1, 3};

/// Outputs and final states of the definition.
struct expected {
    tensor<float> o, state;
    expected(const tensor<float>& q, const tensor<float>& k, const tensor<float>& v, const tensor<float>& from,
             const ref::recurrence_options<double>& with)
        : o({q.shape()[0], std::max(q.shape()[1], from.shape()[1]), q.shape()[2], v.shape()[3]}), state(from) {
        ref::recurrence(q.v(), k.v(), v.v(), o.v(), with, state.v());
    }
};

tensor<float> some_state(index_t B, const recurrence_sizes& s = sizes) {
    return normal<float>({B, s.Hs(), s.D, s.E}, 50);
}

/// q, k, v and an initial state, and what is expected of them.
written_rows& operands(written_rows& c, const recurrence_data<float>& x, const tensor<float>& from,
                       const ref::recurrence_options<double>& with) {
    const expected to(x.q, x.k, x.v, from, with);
    c.rows("in", "q", x.q).rows("in", "k", x.k).rows("in", "v", x.v).state("in", "h0", from);
    return c.rows("out", "o", to.o).state("out", "ht", to.state);
}

TEST(fla_cases, a_scale_and_a_layout_that_are_not_told_are_the_code_s_own) {
    const recurrence_data<float> x(sizes);
    auto with = x.defined(by_channel | with_bonus)(double{});
    with.scale = 1 / std::sqrt(8.0);
    written_rows c("rwkv6", false, false);
    operands(c, x, some_state(2), with).rows("in", "w", x.channel);
    c.file("in", "u", {3, 8}, std::vector<float>(&x.u(0, 0, 0, 0), &x.u(0, 0, 0, 0) + 24))
        .replay(conformance::replay_recurrence);
}

TEST(fla_cases, scales_remarks_and_hints) {
    const recurrence_data<float> x(sizes);
    auto with = x.defined(by_token | delta)(double{});
    with.scale = 0.25;
    written_rows c("gated_delta_rule", true);
    c.said("scale", "0.25").said("gate", "log").said("beta", "after sigmoid").said("chunk_size", "64");
    c.said("output_final_state", "True").said("use_qk_l2norm_in_kernel", "False");
    operands(c, x, some_state(2), with)
        .rows("in", "g", x.token, true)
        .rows("in", "beta", x.beta, true)
        .replay(conformance::replay_recurrence);
}

TEST(fla_cases, an_unknown_number_is_an_error) {
    const recurrence_data<float> x(sizes);
    written_rows c("gla", true);
    c.said("gate_logit_normalizer", "16");
    operands(c, x, some_state(2), x.defined(by_channel)(double{})).rows("in", "g", x.channel);
    c.replay(conformance::replay_recurrence, "gla does not know: attr gate_logit_normalizer");
}

TEST(fla_cases, rows_of_length_one) {
    recurrence_data<float> x(sizes);
    written_rows c("gated_delta_rule", true);
    c.said("use_qk_l2norm_in_kernel", "1");
    auto y = x;
    y.q = unit_rows(x.q);
    x.k.each([&](index_t b, index_t h, index_t n, index_t d) { x.k(b, h, n, d) *= 3; });
    const expected to(y.q, y.k, y.v, some_state(2), x.defined(by_token | delta)(double{}));
    c.rows("in", "q", x.q).rows("in", "k", x.k).rows("in", "v", x.v).state("in", "initial_state", some_state(2));
    c.rows("in", "g", x.token, true).rows("in", "beta", x.beta, true).rows("out", "o", to.o);
    c.state("out", "final_state", to.state).replay(conformance::replay_recurrence);
}

TEST(fla_cases, gates_of_heads_backwards_over_packed_sequences) {
    auto s = sizes;
    s.B = 1;
    const recurrence_data<float> x(s);
    auto with = x.defined(by_head | backwards)(double{});
    with.offsets = {0, 4, 4, 21};
    written_rows c("simple_gla", true);
    c.said("reverse", "1");
    operands(c, x, some_state(3, s), with).file("in", "g_gamma", {3}, x.head);
    c.file("in", "cu_seqlens", {4}, std::vector<std::int32_t>{0, 4, 4, 21})
        .replay(conformance::replay_recurrence);
}

TEST(fla_cases, gates_of_values) {
    const recurrence_data<float> x(sizes);
    written_rows c("gla", true);
    operands(c, x, some_state(2), x.defined(by_value)(double{}))
        .rows("in", "gv", x.column)
        .replay(conformance::replay_recurrence);
}

TEST(fla_cases, householder_factors_of_packed_sequences) {
    auto s = sizes;
    s.B = 1, s.steps = 3;
    const recurrence_data<float> x(s);
    for (bool gated : {false, true}) {
        auto with = x.defined(delta | (gated ? by_token : plain))(double{});
        with.scale = 1;
        with.offsets = {0, 20, 21};
        written_rows c("gated_delta_product", true);
        c.said("num_householder", "3");
        operands(c, x, some_state(2, s), with).rows("in", "beta", x.beta, true);
        if (gated) c.rows("in", "g", x.token, true);
        c.file("in", "offsets", {3}, std::vector<std::int64_t>{0, 20, 21})
            .replay(conformance::replay_recurrence);
    }
}

TEST(fla_cases, more_heads_of_values_than_of_keys) {
    auto s = sizes;
    s.Hv = 6, s.gates = 6;
    const recurrence_data<float> x(s);
    written_rows c("kda", true);
    operands(c, x, some_state(2, s), x.defined(by_channel | delta)(double{})).rows("in", "g", x.channel);
    c.rows("in", "beta", x.beta, true).replay(conformance::replay_recurrence);
}

TEST(fla_cases, a_beta_for_each_value) {
    const recurrence_data<float> x(sizes);
    const auto beta = uniform<float>({2, 3, 21, 5}, 60, 0, 2);
    tensor<float> o({2, 3, 21, 5}), state = some_state(2);
    for (index_t e = 0; e < 5; ++e) {  // every column is a recurrence of its own
        auto with = x.defined(plain)(double{});
        with.beta = [&](index_t b, index_t h, index_t n) { return static_cast<double>(beta(b, h, n, e)); };
        const auto column = [e](const view<float>& v) { return slice(v, 3, {e, e + 1}); };
        ref::recurrence(x.q.v(), x.k.v(), slice(x.v.v(), 3, {e, e + 1}), column(o.v()), with, column(state.v()));
    }
    written_rows c("delta_rule", false);
    c.rows("in", "q", x.q).rows("in", "k", x.k).rows("in", "v", x.v).rows("in", "beta", beta);
    c.state("in", "h0", some_state(2))
        .rows("out", "o", o)
        .state("out", "ht", state)
        .replay(conformance::replay_recurrence);
}

TEST(fla_cases, decays_of_a_layer) {
    const recurrence_data<float> x(sizes);
    auto with = x.defined(plain)(double{});
    with.key_decay = [](index_t, index_t h, index_t, index_t) { return -8.0 / 3 * (1 - 2.0 / 8) * double(h); };
    written_rows c("lightning_attn", true);
    c.said("layer_idx", "2").said("num_layers", "8");
    operands(c, x, some_state(2), with).replay(conformance::replay_recurrence);
}

TEST(fla_cases, log_linear_attention_on_both_updates) {
    const recurrence_data<float> x(sizes);
    const auto levels = uniform<float>({2, 3, 21, 6}, 70);
    for (unsigned parts : {unsigned{by_token}, by_token | delta}) {
        tensor<float> o({2, 3, 21, 5});
        ref::log_linear_attention<double>(x.q.v(), x.k.v(), x.v.v(), levels.v(), o.v(), x.defined(parts)(double{}));
        written_rows c("log_linear_attn", true);
        c.rows("in", "q", x.q).rows("in", "k", x.k).rows("in", "v", x.v).rows("in", "g", x.token, true);
        if (parts & delta) c.rows("in", "beta", x.beta, true);
        c.rows("in", "level_scales", levels).rows("out", "o", o).replay(conformance::replay_log_linear);
    }
}

TEST(fla_cases, the_mesa_layer_and_its_states) {
    const recurrence_data<float> x(sizes);
    const std::vector<float> lambda(24, 0.75f);
    tensor<float> o({2, 3, 21, 5}), kk = constant<float>({2, 3, 8, 8}, 0), kv = some_state(2);
    for (index_t row = 0; row < 48; ++row) kk(row / 24, row / 8 % 3, row % 8, row % 8) = 0.5f;
    const auto first_kk = kk, first_kv = kv;
    ref::mesa_net<double>(x.q.v(), x.k.v(), x.v.v(), dense(lambda.data(), {3, 8}), o.v(),
                          x.defined(by_token | delta)(double{}), kk.v(), kv.v());
    written_rows c("mesa_net", true);
    c.said("max_CG_iteration", "30").rows("in", "q", x.q).rows("in", "k", x.k).rows("in", "v", x.v);
    c.rows("in", "g", x.token, true)
        .rows("in", "beta", x.beta, true)
        .file("in", "lamb", {3, 8}, lambda);
    c.state("in", "h_kk_init", first_kk).state("in", "h_kv_init", first_kv).rows("out", "o", o);
    c.state("out", "h_kk", kk).state("out", "h_kv", kv).replay(conformance::replay_mesa_net);
}

TEST(fla_cases, normalised_linear_attention_and_its_sums_of_keys) {
    recurrence_data<float> x(sizes);
    for (auto* t : {&x.q, &x.k})
        t->each([&](index_t b, index_t h, index_t n, index_t d) { (*t)(b, h, n, d) = std::abs((*t)(b, h, n, d)); });
    const auto S = some_state(2);
    const auto z = uniform<float>({2, 3, 8, 1}, 80);
    tensor<float> from({2, 3, 8, 6}), o({2, 3, 21, 5});
    from.each(
        [&](index_t b, index_t h, index_t d, index_t e) { from(b, h, d, e) = e < 5 ? S(b, h, d, e) : z(b, h, d, 0); });
    auto with = x.defined(plain)(double{});
    with.normalised = true;
    auto end = from;
    ref::recurrence(x.q.v(), x.k.v(), x.v.v(), o.v(), with, end.v());
    const auto sums = [](const tensor<float>& s) {  // (B, 1, H, D)
        tensor<float> row({2, 1, 3, 8});
        row.each([&](index_t b, index_t, index_t h, index_t d) { row(b, 0, h, d) = s(b, h, d, s.shape()[3] - 1); });
        return row;
    };
    written_rows c("linear_attn", true);
    c.said("normalize", "1").rows("in", "q", x.q).rows("in", "k", x.k).rows("in", "v", x.v);
    c.state("in", "h0", S).state("in", "z0", sums(from)).rows("out", "o", o).state("out", "zt", sums(end));
    c.state("out", "ht", copied(slice(end.v(), 3, {0, 5}))).replay(conformance::replay_features);
}

}  // namespace
