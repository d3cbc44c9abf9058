// heed_test: LABELS sanitize
// Infini-attention against its definition, the limits of its gate, and properties of its memory.
#include <heed/ops/infini_attention.hpp>
#include <heed/ops/rotary.hpp>
#include <heed/policy/mask_segment.hpp>
#include <heed/ref/infini_attention.hpp>

#include "compare.hpp"
#include "random.hpp"
#include "refuses.hpp"

namespace {

using namespace heed;
using namespace test;

struct data {
    tensor<float> q, k, v;
    explicit data(index_t N, index_t D = 9, index_t E = 19, index_t G = 2)
        : q(normal<float>({2, 2, N, D}, 1)), k(normal<float>({2, G, N, D}, 2)), v(normal<float>({2, G, N, E}, 3)) {}
    infini_memory<float> memory() const { return {2, k.shape()[1], k.shape()[3], v.shape()[3]}; }
    tensor<float> out() const { return tensor<float>({2, 2, q.shape()[2], v.shape()[3]}); }
};

tensor<float> attended(const data& x, index_t C, const std::vector<float>& gate,
                       infini_update by = infini_update::linear) {
    auto memory = x.memory();
    auto o = x.out();
    infini_attention(memory, x.q, x.k, x.v, o, C, gate, by);
    return o;
}

TEST(infini_attention, is_the_definition) {
    const std::vector<float> gate{0.4f, -1.2f};
    for (index_t N : {0, 1, 7, 16, 37})
        for (index_t C : {1, 5, 16, 50})
            for (auto by : {infini_update::linear, infini_update::delta}) {
                SCOPED_TRACE(testing::Message()
                             << N << " tokens by " << C << (by == infini_update::delta ? ", delta" : ""));
                const data x(N);
                tensor<double> exact(x.out().shape());
                tensor<float> naive(exact.shape());
                const bool delta = by == infini_update::delta;
                ref::infini_attention<double>(x.q.v(), x.k.v(), x.v.v(), exact.v(), C, {0.4f, -1.2f}, delta);
                ref::infini_attention<float>(x.q.v(), x.k.v(), x.v.v(), naive.v(), C, gate, delta);
                EXPECT_TRUE(within_rule<float>(attended(x, C, gate, by), naive, exact));
            }
}

TEST(infini_attention, with_its_gate_shut_is_attention_within_segments) {
    const data x(37);
    tensor<float> local = x.out();
    attention(x.q, x.k, x.v, local, causal{} & chunk{8});
    EXPECT_TRUE(all_near(attended(x, 8, {-1000, -1000}), local, 1e-5));
}

TEST(infini_attention, with_its_gate_open_is_linear_attention_over_the_segments_before) {
    const data x(37);
    const auto o = attended(x, 8, {1000, 1000});
    for (index_t first : {0, 8, 32}) {
        const range before{0, first}, segment{first, std::min<index_t>(first + 8, 37)};
        state<float> s(2, 2, 9, 19);
        absorb(s, slice(x.k.v(), 2, before), slice(x.v.v(), 2, before), elu_plus_one{}, sum_of_keys{});
        tensor<float> read({2, 2, segment.size(), 19});
        recall(s, slice(x.q.v(), 2, segment), read, elu_plus_one{}, sum_of_keys{});
        EXPECT_TRUE(all_near(copied(slice(o.v(), 2, segment)), read, 1e-5)) << first;
    }
}

TEST(infini_attention, decodes_token_by_token) {
    const data x(21);
    const std::vector<float> gate{0.4f, -1.2f};
    const auto whole = attended(x, 8, gate, infini_update::delta);
    auto memory = x.memory();
    auto o = x.out();
    for (index_t t = 0, first = 0; t < 21; ++t) {
        const range open{first, t + 1}, now{t, t + 1};
        const auto k = slice(x.k.v(), 2, open), v = slice(x.v.v(), 2, open);
        infini_segment(memory, slice(x.q.v(), 2, now), k, v, slice(o.v(), 2, now), gate);
        if (open.size() == 8) memory.fold(k, v, infini_update::delta), first = t + 1;
    }
    EXPECT_TRUE(all_near(o, whole, 1e-5));
}

TEST(infini_attention, queries_share_the_memories_of_keys) {
    data x(21, 9, 19, 1);
    const std::vector<float> gate{0.4f, -1.2f};
    const auto shared = attended(x, 8, gate);
    data y(21);
    y.k.each([&](index_t b, index_t h, index_t n, index_t d) { y.k(b, h, n, d) = x.k(b, 0, n, d); });
    y.v.each([&](index_t b, index_t h, index_t n, index_t d) { y.v(b, h, n, d) = x.v(b, 0, n, d); });
    EXPECT_TRUE(all_near(shared, attended(y, 8, gate), 1e-5));
}

TEST(infini_memory, recalls_a_constant) {
    data x(24);
    x.v.fill([](index_t) { return 3.5; });
    auto memory = x.memory();
    memory.fold(x.k, x.v);
    auto o = x.out();
    memory.recall(x.q, o);
    EXPECT_TRUE(all_near(o, constant<float>(o.shape(), 3.5), 1e-5));
}

TEST(infini_memory, halves_what_a_delta_segment_repeats) {
    const data x(1);
    auto memory = x.memory();
    tensor<float> once = x.out(), twice = x.out();
    memory.fold(x.k, x.v, infini_update::delta);
    memory.recall(x.q, once);
    memory.fold(x.k, x.v, infini_update::delta);
    memory.recall(x.q, twice);
    once.each([&](index_t b, index_t h, index_t n, index_t e) { once(b, h, n, e) /= 2; });
    EXPECT_TRUE(all_near(once, twice, 1e-5));
}

TEST(infini_attention, refuses_before_it_writes) {
    const data x(8);
    auto memory = x.memory();
    auto o = x.out();
    const std::vector<float> gate{0, 0};
    refuses<shape_error>([&] { infini_attention(memory, x.q, x.k, x.v, o, 4, std::vector<float>{0}); },
                         "there are 1 gates");
    refuses<argument_error>([&] { infini_attention(memory, x.q, x.k, x.v, o, 0, gate); }, "segments have 0 tokens");
    const std::span<const float> in_o(o.v().data, 2);
    refuses<shape_error>([&] { infini_attention(memory, x.q, x.k, x.v, o, 4, in_o); }, "o overlaps the gates");
    infini_memory<float> narrow(2, 2, 8, 19);
    refuses<shape_error>([&] { infini_attention(narrow, x.q, x.k, x.v, o, 4, gate); }, "the state has 8 rows");
    o.each(
        [&](index_t b, index_t h, index_t n, index_t e) { EXPECT_TRUE(std::isnan(o(b, h, n, e))) << "was written"; });
}

/// Positions turn the rows of the softmax; the memory knows none.
TEST(infini_attention, turns_local_rows_only) {
    const data x(37, 8);
    auto q = x.q, k = x.k;
    rotary(q, q, interleaved{}), rotary(k, k, interleaved{});
    const std::vector<float> gate{0.4f, -1.2f};
    auto memory = x.memory();
    auto o = x.out();
    infini_attention(memory, x.q, x.k, x.v, o, 8, gate, infini_update::delta, local_rows(q.v(), k.v()));
    const auto turn = [](auto row, index_t t) {
        using R = typename decltype(row)::value_type;
        for (std::size_t d = 0; d < row.size(); d += 2) {
            const R angle = static_cast<R>(t) * std::pow(R(10000), -static_cast<R>(d) / static_cast<R>(row.size()));
            const R a = row[d], b = row[d + 1];
            row[d] = a * std::cos(angle) - b * std::sin(angle), row[d + 1] = a * std::sin(angle) + b * std::cos(angle);
        }
        return row;
    };
    tensor<double> exact(o.shape());
    tensor<float> naive(o.shape());
    ref::infini_attention<double>(x.q.v(), x.k.v(), x.v.v(), exact.v(), 8, {0.4f, -1.2f}, true, turn);
    ref::infini_attention<float>(x.q.v(), x.k.v(), x.v.v(), naive.v(), 8, gate, true, turn);
    EXPECT_TRUE(within_rule<float>(o, naive, exact));
    refuses<shape_error>(
        [&] {
            infini_attention(memory, x.q, x.k, x.v, o, 8, gate, infini_update::linear,
                             local_rows(slice(q.v(), 2, {0, 36}), k.v()));
        },
        "infini_attention: local q has tokens 36, q has 37");
}

TEST(infini_attention, of_sequences_side_by_side_is_that_of_each) {
    const std::vector<index_t> offsets{0, 5, 5, 21, 37};
    const std::vector<float> gate{0.4f, -1.2f};
    data x(37);
    for (auto* t : {&x.q, &x.k, &x.v}) *t = copied(slice(t->v(), 0, {0, 1}));
    tensor<float> o({1, 2, 37, 19}), one(o.shape());
    infini_memory<float> memory(4, 2, 9, 19);
    memory.fold(normal<float>({4, 2, 3, 9}, 7), normal<float>({4, 2, 3, 19}, 8));  // where sequences start from
    auto whole = memory;
    const auto positions = local_rows(x.q.v(), x.k.v());
    infini_attention(whole, x.q, x.k, x.v, o, 6, gate, infini_update::delta, packed{offsets}, positions);
    for (index_t s = 0; s < 4; ++s) {
        const auto i = static_cast<std::size_t>(s);
        const auto cut = [&](const tensor<float>& y) { return slice(y.v(), 2, {offsets[i], offsets[i + 1]}); };
        infini_memory<float> own(1, 2, 9, 19);
        heed::detail::copy_sequence(memory.held(), s, own.held(), 0);
        infini_attention(own, cut(x.q), cut(x.k), cut(x.v), slice(one.v(), 2, {offsets[i], offsets[i + 1]}), 6, gate,
                         infini_update::delta);
        const auto of = [&](const infini_memory<float>& m, index_t b) {
            return copied(slice(m.held().values(), 0, {b, b + 1}));
        };
        EXPECT_TRUE(same_values(of(whole, s), of(own, 0))) << s;
    }
    EXPECT_TRUE(same_values(o, one));
    infini_memory<float> few(3, 2, 9, 19);
    refuses<shape_error>(
        [&] { infini_attention(few, x.q, x.k, x.v, one, 6, gate, infini_update::linear, packed{offsets}); },
        "infini_attention: the state has 3 sequences, the call needs 4");
    EXPECT_TRUE(same_values(o, one));
}

}  // namespace
