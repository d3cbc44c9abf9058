// heed_test: LABELS sanitize
// Layouts: any strides, any alignment; nothing is read past an operand, nothing beside the output is written.
#include <heed/heed.hpp>

#include "compare.hpp"
#include "guarded.hpp"
#include "random.hpp"

using namespace test;

namespace {

template <class T>
void check_layouts(const layout& lq, const layout& lk, const layout& lv, const layout& lo, const char* name) {
    SCOPED_TRACE(name);
    const extents<4> qs{2, 4, 37, 18}, ks{2, 2, 141, 18}, vs{2, 2, 141, 11}, os{2, 4, 37, 11};
    tensor<T> dense_o(os), o(os, lo);
    attention(normal<T>(qs, 1), normal<T>(ks, 2), normal<T>(vs, 3), dense_o, causal{});
    attention(normal<T>(qs, 1, 1, lq), normal<T>(ks, 2, 1, lk), normal<T>(vs, 3, 1, lv), o, causal{});
    EXPECT_TRUE(same_values(o, dense_o));
    EXPECT_TRUE(o.poisoned_outside());
}

template <class T>
void check_all_layouts() {
    const layout kinds[] = {layout::heads(), layout::tokens(), layout::padded(), layout::strided(),
                            layout::channels_first()};
    for (const layout& x : kinds) {
        check_layouts<T>(x, {}, {}, {}, "q");
        check_layouts<T>({}, x, {}, {}, "k");
        check_layouts<T>({}, {}, x, {}, "v");
        check_layouts<T>({}, {}, {}, x, "o");
        check_layouts<T>(x, x, x, x, "all");
    }
}

TEST(attention_layout, float_bits_do_not_depend_on_strides) { check_all_layouts<float>(); }
TEST(attention_layout, double_bits_do_not_depend_on_strides) { check_all_layouts<double>(); }
TEST(attention_layout, bf16_bits_do_not_depend_on_strides) { check_all_layouts<bf16>(); }

TEST(attention_layout, a_batch_may_be_broadcast) {
    const auto q = normal<float>({3, 2, 20, 8}, 1), k = normal<float>({1, 2, 30, 8}, 2), v = normal<float>({1, 2, 30, 8}, 3);
    tensor<float> o({3, 2, 20, 8}), one({1, 2, 20, 8});
    auto kb = k.v(), vb = v.v();
    kb.shape[0] = vb.shape[0] = 3;
    kb.strides[0] = vb.strides[0] = 0;
    attention(q, kb, vb, o);
    for (index_t b = 0; b < 3; ++b) {
        attention(slice(q.v(), 0, {b, b + 1}), k, v, one);
        one.each([&](index_t, index_t h, index_t n, index_t d) { ASSERT_EQ(o(b, h, n, d), one(0, h, n, d)); });
    }
}

TEST(attention_layout, rows_may_run_backwards) {
    const auto q = normal<float>({1, 1, 20, 8}, 1), k = normal<float>({1, 1, 30, 8}, 2), v = normal<float>({1, 1, 30, 8}, 3);
    auto back = [](view<const float> x) {
        x.data += (x.shape[2] - 1) * x.strides[2];
        x.strides[2] = -x.strides[2];
        return x;
    };
    tensor<float> o({1, 1, 20, 8}), forward({1, 1, 20, 8});
    attention(q, k, v, forward);
    attention(back(q), k, v, o);
    o.each([&](index_t, index_t, index_t n, index_t d) { ASSERT_EQ(o(0, 0, n, d), forward(0, 0, 19 - n, d)); });
}

template <class T>
void check_guarded(index_t N, index_t M, index_t D, index_t E, flush side) {
    const auto q = normal<T>({1, 2, N, D}, 1), k = normal<T>({1, 1, M, D}, 2), v = normal<T>({1, 1, M, E}, 3);
    tensor<T> expected({1, 2, N, E});
    attention(q, k, v, expected, causal{});
    guarded<T> gq(2 * N * D, side), gk(M * D, side), gv(M * E, side), go(2 * N * E, side);
    const auto vq = gq.take(q), vk = gk.take(k), vv = gv.take(v);
    gq.read_only(), gk.read_only(), gv.read_only();
    const auto vo = heads(go.data(), {1, 2, N, E});
    attention(vq, vk, vv, vo, causal{});
    expected.each([&](index_t b, index_t h, index_t n, index_t e) {
        ASSERT_EQ(static_cast<double>(vo(b, h, n, e)), static_cast<double>(expected(b, h, n, e)));
    });
}

template <class T>
void check_guards() {
    for (flush side : {flush::front, flush::back})
        for (index_t N : {1, 17, 48})
            for (index_t M : {1, 9, 128, 131})
                for (index_t D : {1, 15, 16, 19}) check_guarded<T>(N, M, D, D + 2, side);
}

TEST(attention_layout, guard_pages_float) { check_guards<float>(); }
TEST(attention_layout, guard_pages_double) { check_guards<double>(); }
TEST(attention_layout, guard_pages_bf16) { check_guards<bf16>(); }
TEST(attention_layout, guard_pages_f16) { check_guards<f16>(); }

}  // namespace
