// heed_test: BUSY LABELS sanitize
#include <heed/policy/masks.hpp>

#include "mask_laws.hpp"

namespace {

using namespace heed;
using test::exactness;
using test::obeys_laws;
using test::same_set;
using test::scene;

constexpr float hidden = -std::numeric_limits<float>::infinity();

template <class T>
std::vector<T> random_table(index_t size, unsigned one_in, T hide, T show) {
    std::mt19937 random(static_cast<unsigned>(size) + one_in);
    std::vector<T> table(static_cast<std::size_t>(size));
    for (auto& x : table) x = random() % one_in == 0 ? show : hide;
    return table;
}

TEST(mask_view, boolean_laws) {
    for (const scene& at : {scene{67, 67, 0, 2, 3}, scene{20, 150, 130, 2, 3}, scene{90, 50, -40, 2, 3}})
        for (unsigned one_in : {1u, 2u, 100u, 5000u}) {
            const auto table = random_table<unsigned char>(6 * at.N * at.M, one_in, 0, 255);
            const unsigned char* p = table.data();
            obeys_laws(boolean(dense(p, {2, 3, at.N, at.M})), at, exactness::exact, "b h n m");
            obeys_laws(boolean(dense(p, {1, 3, at.N, at.M})), at, exactness::exact, "h n m");
            obeys_laws(boolean(dense(p, {2, 1, 1, at.M})), at, exactness::exact, "key padding");
            obeys_laws(boolean(dense(p, {1, 1, at.N, 1})), at, exactness::exact, "rows");
            obeys_laws(boolean(dense(p, {at.N, at.M})), at, exactness::exact, "n m");
            obeys_laws(boolean(view<const unsigned char, 4>{p, {2, 3, at.N, at.M}, {1, 2, 6, 6 * at.N}}), at,
                       exactness::exact, "transposed");
            obeys_laws(boolean(view<const unsigned char, 4>{p, {2, 3, at.N, at.M}, {0, 0, 0, 1}}), at,
                       exactness::exact, "stride 0");
            obeys_laws(boolean(dense(p, {2, 3, at.N, at.M / 2})), at, exactness::exact, "fewer keys");
            obeys_laws(boolean(dense(p, {2, 3, at.N, at.M})) & causal{}, at, exactness::right, "and causal");
            obeys_laws(boolean(dense(p, {2, 3, at.N, at.M})) | window{3}, at, exactness::right, "or window");
        }
}

TEST(mask_view, additive_laws) {
    const scene at{67, 70, 3, 2, 3};
    for (unsigned one_in : {1u, 2u, 100u}) {
        const auto table = random_table<float>(6 * at.N * at.M, one_in, hidden, 0.5f);
        obeys_laws(additive(dense(table.data(), {2, 3, at.N, at.M})), at, exactness::exact, "float");
        std::vector<double> wide(table.begin(), table.end());
        wide[0] = -1e300;  // beyond float, not hidden
        obeys_laws(additive(dense(wide.data(), {1, 3, at.N, at.M})), at, exactness::exact, "double");
        EXPECT_TRUE(additive(dense(wide.data(), {1, 3, at.N, at.M})).allows({0, 0, 0, 0, 0}));
        std::vector<f16> half;
        for (float x : table) half.push_back(static_cast<f16>(x));
        obeys_laws(additive(dense(half.data(), {2, 1, at.N, at.M})), at, exactness::exact, "f16");
    }
}

template <class X>
void adds_what_the_table_holds(const char* name) {
    constexpr index_t N = 21, M = 13;  // not a multiple of the lanes: what lies behind is not read
    std::vector<float> table(2 * N * M);
    for (std::size_t x = 0; x < table.size(); ++x) table[x] = static_cast<float>(x) * 0.25f;
    const view<const float, 4> rows = dense(static_cast<const float*>(table.data()), {2, 1, N, M});
    const view<const float, 4> columns{table.data(), {2, 1, N, M}, {N * M, 0, 1, N}};
    const view<const float, 4> shared{table.data(), {2, 1, 1, M}, {M, 0, 0, 1}};
    for (const auto& v : {rows, columns, shared})
        for (index_t n = 0; n < N; n += static_cast<index_t>(X::size))
            for (index_t j = 0; j < M + 8; ++j) {
                const X sum = additive(v).add(X(1), where{1, 3, n, n + 5, j});
                typename X::value_type at[X::size];
                store(at, sum);
                for (index_t l = 0; l < static_cast<index_t>(X::size) && n + l < N && j < M; ++l)
                    ASSERT_EQ(at[l], 1 + v.data[v.strides[0] + (n + l) * v.strides[2] + j * v.strides[3]])
                        << name << " " << n << " " << l << " " << j;
            }
    EXPECT_EQ(additive(rows).add(1.0f, where{0, 0, 2, 2, 3}), 1 + rows(0, 0, 2, 3));
}

TEST(mask_view, additive_adds) {
    adds_what_the_table_holds<pack<float>>("float");
    adds_what_the_table_holds<pack<double>>("double");
}

TEST(mask_view, says_what_is_wrong) {
    const std::vector<unsigned char> table(2 * 4 * 10 * 10);
    const auto message = [&](extents<4> shape) -> std::string {
        try {
            const view<const unsigned char, 4> v{table.data(), shape, dense_strides(shape)};
            heed::detail::check_policy(causal{} & boolean(v), "attention", {2, 4, 10, 9});
        } catch (const shape_error& e) {
            return e.what();
        }
        return "";
    };
    EXPECT_EQ(message({2, 4, 10, 9}), "");
    EXPECT_EQ(message({1, 1, 1, 1}), "");
    EXPECT_EQ(message({2, 4, 10, 5}), "");
    EXPECT_EQ(message({2, 4, 10, 10}), "attention: boolean has keys 10, the logits have 9");
    EXPECT_EQ(message({2, 4, 9, 9}), "attention: boolean has rows 9, the logits have 10");
    EXPECT_EQ(message({2, 2, 10, 9}), "attention: boolean has heads 2, the logits have 4");
    EXPECT_EQ(message({3, 1, 10, 9}), "attention: boolean has batch 3, the logits have 2");
}

}  // namespace
