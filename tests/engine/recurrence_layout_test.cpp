// heed_test: LABELS sanitize
// Layouts and storage: any strides, any alignment, any element type; nothing is read past an operand, nothing beside
// the output is written.
#include "guarded.hpp"
#include "recurs.hpp"

using namespace test;

namespace {

constexpr recurrence_sizes sizes{2, 4, 2, 2, 37, 9, 19, 1, 2};

template <class T>
void check_layouts() {
    const recurrence_data<T> x(sizes);
    const auto run = [&](const recurrence_data<T>& d, const layout& l, const auto&... policies) {
        tensor<T> o({2, 4, 37, 19}, l);
        recurrence(d.q.v(), d.k.v(), d.v.v(), o.v(), policies...);
        EXPECT_TRUE(o.poisoned_outside());
        return o;
    };
    for (const layout& l : {layout::tokens(), layout::padded(), layout::strided(), layout::channels_first()}) {
        const recurrence_data<T> y(sizes, 1, l);
        EXPECT_TRUE(same_values(run(x, {}, x.token_gate()), run(y, l, y.token_gate())));
        EXPECT_TRUE(
            same_values(run(x, {}, x.channel_gate(), x.delta_update()), run(y, l, y.channel_gate(), y.delta_update())));
    }
}

TEST(recurrence_layout, float_bits_do_not_depend_on_strides) { check_layouts<float>(); }
TEST(recurrence_layout, bf16_bits_do_not_depend_on_strides) { check_layouts<bf16>(); }

template <class T, class... P>
void check_guarded(const recurrence_sizes& s, flush side, const P&... form) {
    const recurrence_data<T> x(s);
    tensor<T> expected({s.B, s.Ho(), s.N, s.E});
    recurrence(x.q, x.k, x.v, expected, x.channel_gate(), x.delta_update(), form...);
    guarded<T> q(x.q.v().size(), side), k(x.k.v().size(), side), v(x.v.v().size(), side), g(x.channel.v().size(), side),
        beta(x.beta.v().size(), side), o(expected.v().size(), side);
    const auto vq = q.take(x.q), vk = k.take(x.k), vv = v.take(x.v), vg = g.take(x.channel), vb = beta.take(x.beta);
    for (auto* memory : {&q, &k, &v, &g, &beta}) memory->read_only();
    const auto vo = heads(o.data(), {s.B, s.Ho(), s.N, s.E});
    const view<const T, 3> b3{vb.data, {vb.shape[0], vb.shape[1], vb.shape[2]}, {vb.strides[0], vb.strides[1], 1}};
    recurrence(vq, vk, vv, vo, channel_decay{vg}, delta_rule{b3}, form...);
    expected.each([&](index_t b, index_t h, index_t n, index_t e) {
        ASSERT_EQ(static_cast<double>(vo(b, h, n, e)), static_cast<double>(expected(b, h, n, e)));
    });
}

template <class T>
void check_guards() {
    for (flush side : {flush::front, flush::back})
        for (index_t N : {1, 9, 16, 33})
            for (index_t D : {1, 15, 16, 19}) {
                check_guarded<T>({1, 2, 1, 2, N, D, D + 2}, side);
                check_guarded<T>({1, 2, 1, 2, N, D, D + 2}, side, chunked{16});
            }
}

TEST(recurrence_layout, guard_pages_float) { check_guards<float>(); }
TEST(recurrence_layout, guard_pages_bf16) { check_guards<bf16>(); }

}  // namespace
