// heed_test: $<TARGET_OBJECTS:heed_replays>
// Cases of ONNX's LinearAttention, beyond those of tests/data: update rules, shared heads, types of states, scales.
#include "written_rows.hpp"
#include "recurrence_data.hpp"

using namespace test;
using conformance::written_rows;

namespace {

constexpr index_t B = 2, N = 7, D = 6, E = 5;

/// A case of so many heads, its expected outputs those of the definition.
template <class T, class S = T>
void linear_attention(index_t q_heads, index_t kv_heads, const std::string& rule, index_t decays, index_t betas,
                      bool past = true, double scale = 0, const std::string& refusal = "") {
    SCOPED_TRACE(rule);
    const auto q = normal<T>({B, q_heads, N, D}, 1), k = unit_rows(normal<T>({B, kv_heads, N, D}, 2));
    const auto v = normal<T>({B, kv_heads, N, E}, 3);
    const auto decay = uniform<T>({B, kv_heads, N, std::max<index_t>(decays, 1)}, 4, -1, 0);
    const auto beta = uniform<T>({B, std::max<index_t>(betas, 1), N, 1}, 5);
    const auto from = past ? normal<S>({B, kv_heads, D, E}, 6) : constant<S>({B, kv_heads, D, E}, 0);
    ref::recurrence_options<double> with;
    if (decays > 0) with.key_decay = ref::gate_of<double>(decay.v(), kv_heads);
    if (betas > 0) with.beta = ref::gate_of<double>(beta.v(), kv_heads);
    with.scale = scale != 0 ? scale : 1 / std::sqrt(static_cast<double>(D));
    tensor<T> o({B, q_heads, N, E});
    tensor<double> end(from.shape());
    end.each([&](auto... i) { end(i...) = static_cast<double>(from(i...)); });
    ref::recurrence(q.v(), k.v(), v.v(), o.v(), with, end.v());
    tensor<S> present(from.shape());
    present.each([&](auto... i) { present(i...) = static_cast<S>(end(i...)); });

    written_rows c("LinearAttention");
    c.said("q_num_heads", std::to_string(q_heads)).said("kv_num_heads", std::to_string(kv_heads));
    c.said("chunk_size", "16").said("scale", std::to_string(scale));
    if (!rule.empty()) c.said("update_rule", rule);
    c.flat("in", "query", q).flat("in", "key", k).flat("in", "value", v);
    if (decays > 0) c.flat("in", "decay", decay);
    if (betas > 0) c.flat("in", "beta", beta);
    if (past) c.state("in", "past_state", from);
    c.flat("out", "output", o).state("out", "present_state", present);
    c.replay(conformance::replay_linear_attention, refusal);
}

TEST(onnx_cases, update_rules_of_shared_heads) {
    linear_attention<float>(4, 2, "linear", 0, 0);
    linear_attention<float>(4, 1, "gated", D, 0);
    linear_attention<float>(4, 2, "gated", 1, 0, true, 0.5);
    linear_attention<float>(4, 2, "delta", 0, 2, false);
    linear_attention<float>(6, 1, "delta", 0, 1);
    linear_attention<float>(6, 3, "gated_delta", 1, 1, true, -2);
    linear_attention<float>(3, 3, "", D, 3, false);
}

TEST(onnx_cases, a_state_of_a_type_of_its_own) {
    linear_attention<f16, float>(4, 2, "gated_delta", D, 2);
    linear_attention<f16>(4, 2, "linear", 0, 0);
    linear_attention<f16>(4, 2, "gated_delta", 1, 1, false);
}

TEST(onnx_cases, rules_say_which_inputs_there_are) {
    linear_attention<float>(2, 2, "linear", 1, 0, true, 0, "update_rule linear forbids decay");
    linear_attention<float>(2, 2, "gated", 1, 2, true, 0, "update_rule gated forbids beta");
    linear_attention<float>(2, 2, "delta", 0, 0, true, 0, "update_rule delta needs beta");
    linear_attention<float>(2, 2, "sum", 0, 0, true, 0, "update_rule is sum");
    linear_attention<float>(3, 2, "linear", 0, 0, true, 0, "q_num_heads is no multiple of kv_num_heads");
}

}  // namespace
