// heed_test: AS_USED LABELS threads
// Bits: the same for any executor, any batch neighbours and any grouping of rows; no row feels its suffix.
#include <heed/heed.hpp>
#include <thread>

#include "compare.hpp"
#include "random.hpp"

using namespace test;

namespace {

template <class T, class... P>
tensor<T> attend(const tensor<T>& q, const tensor<T>& k, const tensor<T>& v, const P&... policies) {
    tensor<T> o({q.shape()[0], q.shape()[1], q.shape()[2], v.shape()[3]});
    attention(q, k, v, o, policies...);
    return o;
}

template <class T>
void check_executors() {
    const auto q = normal<T>({2, 4, 301, 24}, 1), k = normal<T>({2, 2, 333, 24}, 2), v = normal<T>({2, 2, 333, 24}, 3);
    const auto alone = attend(q, k, v, causal{});
    for (index_t n : {1, 2, 3, 8}) {
        threads pool(n);
        EXPECT_TRUE(same_values(attend(q, k, v, causal{}, on{pool}), alone)) << n << " threads";
    }
    executor_adapter backwards(4, [](index_t n, task_ref f) {
        for (index_t i = n; i-- > 0;) f(i);
    });
    EXPECT_TRUE(same_values(attend(q, k, v, causal{}, on{backwards}), alone));
    executor_adapter spawning(3, [](index_t n, task_ref f) {
        std::vector<std::thread> crew;
        for (index_t i = 0; i < n; ++i) crew.emplace_back([f, i] { f(i); });
        for (auto& t : crew) t.join();
    });
    EXPECT_TRUE(same_values(attend(q, k, v, causal{}, on{spawning}), alone));
}

TEST(attention_invariance, executors_float) { check_executors<float>(); }
TEST(attention_invariance, executors_bf16) { check_executors<bf16>(); }

TEST(attention_invariance, an_arena_of_the_size_asked_for_is_enough_and_its_contents_do_not_matter) {
    const auto q = normal<float>({2, 4, 101, 24}, 1), k = normal<float>({2, 2, 133, 24}, 2), v = normal<float>({2, 2, 133, 24}, 3);
    tensor<float> o(q.shape()), mine(q.shape());
    attention(q, k, v, o, causal{});
    threads pool(2);
    const std::size_t need = attention_scratch(q, k, v, mine, causal{}, on{pool});
    for (unsigned char poison : {0x00, 0xff, 0x7f}) {
        std::vector<std::byte> memory(need + arena::alignment, std::byte{poison});
        arena scratch{std::span<std::byte>(memory)};
        attention(q, k, v, mine, causal{}, on{pool, scratch});
        EXPECT_TRUE(same_values(mine, o));
    }
    std::vector<std::byte> memory(need / 2);
    arena small{std::span<std::byte>(memory)};
    EXPECT_THROW(attention(q, k, v, mine, on{pool, small}), argument_error);
}

template <class T>
void check_neighbours() {
    const auto q = normal<T>({3, 2, 70, 16}, 1), k = normal<T>({3, 2, 150, 16}, 2), v = normal<T>({3, 2, 150, 16}, 3);
    const auto together = attend(q, k, v, causal{});
    for (index_t b = 0; b < 3; ++b)
        for (index_t h = 0; h < 2; ++h)
            for (range rows : {range{0, 70}, range{0, 13}, range{57, 70}, range{5, 40}, range{48, 61}}) {
                const auto part = [&](const tensor<T>& x) { return slice(slice(x.v(), 0, {b, b + 1}), 1, {h, h + 1}); };
                tensor<T> o({1, 1, rows.size(), 16});
                attention(slice(part(q), 2, rows), part(k), part(v), o, causal{}, offset{80 + rows.first});
                o.each([&](index_t, index_t, index_t n, index_t d) {
                    ASSERT_EQ(static_cast<double>(o(0, 0, n, d)),
                              static_cast<double>(together(b, h, rows.first + n, d)))
                        << "b" << b << " h" << h << " row " << rows.first + n;
                });
            }
}

TEST(attention_invariance, neighbours_float) { check_neighbours<float>(); }
TEST(attention_invariance, neighbours_double) { check_neighbours<double>(); }
TEST(attention_invariance, neighbours_bf16) { check_neighbours<bf16>(); }

template <class T>
void check_suffix() {
    const index_t N = 200;
    const auto q = normal<T>({1, 2, N, 16}, 1), k = normal<T>({1, 2, N, 16}, 2), v = normal<T>({1, 2, N, 16}, 3);
    const auto before = attend(q, k, v, causal{});
    for (index_t t : {1, 8, 47, 48, 100, 128, 131, 199})
        for (double poison : {1e4, std::nan(""), double(INFINITY)}) {
            auto k2 = k, v2 = v;
            k2.each([&](index_t b, index_t h, index_t n, index_t d) {
                if (n >= t) k2(b, h, n, d) = v2(b, h, n, d) = static_cast<T>(poison);
            });
            const auto after = attend(q, k2, v2, causal{});
            before.each([&](index_t b, index_t h, index_t n, index_t d) {
                if (n < t) {
                    ASSERT_EQ(static_cast<double>(before(b, h, n, d)), static_cast<double>(after(b, h, n, d)))
                        << "t" << t << " row " << n << " poison " << poison;
                }
            });
        }
}

TEST(attention_invariance, suffix_float) { check_suffix<float>(); }
TEST(attention_invariance, suffix_double) { check_suffix<double>(); }
TEST(attention_invariance, suffix_bf16) { check_suffix<bf16>(); }

/// Head h reads the keys and values of h / (H / G): the same bits as from G heads that are repeated in memory.
template <class T>
void check_head_map() {
    const index_t B = 2, H = 6, D = 17, E = 24;
    for (index_t G : {1, 2, 3, 6})
        for (const auto& [N, M] : {std::pair<index_t, index_t>{70, 150}, {13, 1}, {3, 150}, {1, 1100}, {1, 7}}) {
            SCOPED_TRACE(testing::Message() << "G" << G << " N" << N << " M" << M);
            const auto q = normal<T>({B, H, N, D}, 1), k = normal<T>({B, G, M, D}, 2), v = normal<T>({B, G, M, E}, 3);
            const auto repeated = [&](const tensor<T>& x) {
                tensor<T> each({B, H, x.shape()[2], x.shape()[3]});
                each.each([&](index_t b, index_t h, index_t m, index_t d) {
                    each(b, h, m, d) = x(b, h / (H / G), m, d);
                });
                return each;
            };
            EXPECT_TRUE(same_values(attend(q, k, v, causal{}), attend(q, repeated(k), repeated(v), causal{})));
        }
}

TEST(attention_invariance, head_map_float) { check_head_map<float>(); }
TEST(attention_invariance, head_map_double) { check_head_map<double>(); }
TEST(attention_invariance, head_map_bf16) { check_head_map<bf16>(); }

}  // namespace
