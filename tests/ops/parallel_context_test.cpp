// Parallel context encoding: pieces apart, the choice of pieces by its definition, positions, entropies.
#include <algorithm>
#include <heed/ops/parallel_context.hpp>
#include <numeric>

#include "compare.hpp"
#include "operands.hpp"
#include "refuses.hpp"
#include "scattered.hpp"

namespace {

using namespace heed;
using test::refuses;
using test::tensor;

using operands = test::operands<float>;
constexpr index_t B = operands::B, H = operands::H;

/// Which pieces each row keeps, from dense weights: kept[(b H + h) N + n][p].
std::vector<std::vector<bool>> chosen(const operands& x, const std::vector<index_t>& pieces,
                                      const piece_choice& choice) {
    const std::size_t P = pieces.size() - 1;
    tensor<double> o(x.rows()), weights({B, H, x.N(), x.M()});
    ref::options<double> with;
    with.visible = [](index_t, index_t, index_t, index_t i, index_t j) { return j <= i; };
    ref::record<double> to;
    to.probability = weights;
    ref::attention(x.q.v(), x.k.v(), x.v.v(), o.v(), with, to);
    std::vector<std::vector<double>> score;
    o.each([&](index_t b, index_t h, index_t n, index_t e) {
        if (e > 0) return;
        auto& row = score.emplace_back();
        for (std::size_t p = 0; p < P; ++p) {
            std::vector<double> inside;
            for (index_t j = pieces[p]; j < pieces[p + 1]; ++j) inside.push_back(weights(b, h, n, j));
            std::sort(inside.begin(), inside.end(), std::greater<>{});
            inside.resize(std::min(inside.size(), static_cast<std::size_t>(choice.largest)));
            row.push_back(std::accumulate(inside.begin(), inside.end(), 0.0));
        }
    });
    const std::size_t of_one = score.size() / B;
    std::vector<std::vector<bool>> kept;
    for (std::size_t r = 0; r < score.size(); ++r) {
        std::vector<double> s(P);
        const std::size_t first = r / of_one * of_one;
        for (std::size_t y = choice.together ? first : r; y < (choice.together ? first + of_one : r + 1); ++y)
            for (std::size_t p = 0; p < P; ++p) s[p] += score[y][p];
        auto& row = kept.emplace_back(P);
        for (std::size_t p = 0; p < P; ++p)
            row[p] = std::count_if(s.begin(), s.end(), [&](double y) { return y > s[p]; }) < choice.keep;
    }
    return kept;
}

TEST(selective_attention, is_the_softmax_over_what_stays) {
    const operands x(5, 60);
    for (const auto& pieces :
         std::vector<std::vector<index_t>>{{3, 20, 30, 47, 55}, {0, 10, 11, 14, 60}, {7, 30}, {12}})
        for (bool together : {true, false})
            for (index_t keep : {0, 1, 2, 9})
                for (index_t largest : {1, 5}) {
                    const piece_choice choice{keep, largest, together};
                    const auto kept = chosen(x, pieces, choice);
                    tensor<float> o(x.rows());
                    selective_attention(x.q, x.k, x.v, o, pieces, choice);
                    EXPECT_TRUE(test::attends(
                        o, x.q, x.k, x.v,
                        [&](auto real) {
                            ref::options<decltype(real)> with;
                            with.visible = [&](index_t b, index_t h, index_t row, index_t i, index_t j) {
                                const auto next = std::upper_bound(pieces.begin(), pieces.end(), j);
                                const bool inside = next != pieces.begin() && next != pieces.end();
                                const auto p = static_cast<std::size_t>(next - pieces.begin() - 1);
                                return j <= i && (!inside || kept[static_cast<std::size_t>((b * H + h) * 5 + row)][p]);
                            };
                            return with;
                        }))
                        << pieces.size() << " " << together << " " << keep << " " << largest;
                }
}

TEST(selective_attention, all_pieces_are_ordinary_attention) {
    const operands x(4, 40);
    tensor<float> o(x.rows()), want(x.rows());
    std::vector<float> sums(B * H * 4), wanted(sums);
    attention(x.q, x.k, x.v, want, causal{}, lse{dense(wanted.data(), {B, H, 4})});
    const std::vector<index_t> pieces{4, 10, 30, 36};
    selective_attention(x.q, x.k, x.v, o, pieces, {3}, lse{dense(sums.data(), {B, H, 4})});
    EXPECT_TRUE(test::all_near(o, want, 2e-6));
    for (std::size_t r = 0; r < sums.size(); ++r) EXPECT_NEAR(sums[r], wanted[r], 2e-6f);
    const test::scattered<float> source(x.k, x.v, {40, 40, 40, 40}, 7);
    tensor<float> of_source(x.rows());
    selective_attention(x.q, source, of_source, pieces, {3});
    EXPECT_TRUE(test::all_near(of_source, o, 2e-6));
}

TEST(selective_attention, bad_arguments_are_named_before_anything_is_written) {
    const operands x(2, 20);
    auto o = test::constant<float>(x.rows(), 7);
    const auto with = [&](std::vector<index_t> pieces, piece_choice choice) {
        return [&, pieces, choice] { selective_attention(x.q, x.k, x.v, o, pieces, choice); };
    };
    refuses<argument_error>(with({}, {}), "selective_attention: the first piece starts where the prefix ends");
    refuses<argument_error>(with({-1, 5}, {}), "selective_attention: the first piece starts");
    refuses<argument_error>(with({2, 9, 5}, {}), "selective_attention: piece 5 stands after 9");
    refuses<shape_error>(with({2, 21}, {}), "the question starts at 21, the keys end at 20");
    refuses<argument_error>(with({2, 9}, {-1}), "-1 pieces stay, the least is 0");
    refuses<argument_error>(with({2, 9}, {1, 0}), "a score sums 0 weights, the least is 1");
    for (float y : o.memory()) EXPECT_EQ(y, 7);
}

TEST(parallel_context, one_piece_is_causal_attention) {
    const operands x(30, 30);
    tensor<float> o(x.rows()), want(x.rows());
    attention(x.q, x.k, x.v, want, causal{});
    for (const auto& pieces : std::vector<std::vector<index_t>>{{4, 20}, {0, 30}, {4, 4}, {30}}) {
        attention(x.q, x.k, x.v, o, parallel_context(pieces));
        EXPECT_TRUE(test::same_values(o, want));
    }
}

TEST(parallel_context, a_piece_moves_no_bit_of_another) {
    operands x(30, 30);
    const std::vector<index_t> pieces{4, 12, 20, 26};
    tensor<float> before(x.rows()), after(x.rows());
    attention(x.q, x.k, x.v, before, parallel_context(pieces));
    for (index_t j = 12; j < 20; ++j) x.k(1, 1, j, 2) = x.v(1, 1, j, 3) = std::nanf("");
    attention(x.q, x.k, x.v, after, parallel_context(pieces));
    before.each([&](index_t b, index_t h, index_t n, index_t e) {
        const bool sees = b == 1 && h >= 2 && ((12 <= n && n < 20) || n >= 26);
        if (!sees)
            EXPECT_EQ(before(b, h, n, e), after(b, h, n, e)) << n;
        else
            EXPECT_TRUE(std::isnan(after(b, h, n, e))) << n;
    });
}

TEST(parallel_context, positions_start_anew_behind_the_prefix) {
    const std::vector<index_t> pieces{3, 5, 9, 9, 10};
    const auto at = [](const auto& by, index_t tokens) {
        std::vector<index_t> all;
        for (index_t n = 0; n < tokens; ++n) all.push_back(by(0, n));
        return all;
    };
    EXPECT_EQ(at(parallel_positions(pieces), 13), (std::vector<index_t>{0, 1, 2, 3, 4, 3, 4, 5, 6, 3, 7, 8, 9}));
    EXPECT_EQ(at(parallel_positions(pieces, 8), 4), (std::vector<index_t>{6, 3, 7, 8}));
    EXPECT_EQ(at(parallel_positions(pieces, 9, 100), 3), (std::vector<index_t>{3, 100, 101}));
    const std::vector<index_t> none, one{2, 7};
    EXPECT_EQ(at(parallel_positions(one), 9), at(parallel_positions(none), 9)) << "one piece is the plain order";
    EXPECT_EQ(at(parallel_positions(none), 4), (std::vector<index_t>{0, 1, 2, 3}));
}

TEST(entropy, of_equal_logits_of_one_key_and_of_logits_moved) {
    operands x(20, 20);
    const auto entropies = [&](const auto&... policies) {
        std::vector<double> out(B * H * 20);
        tensor<float> o(x.rows());
        attention(x.q, x.k, x.v, o, causal{}, entropy{dense(out.data(), {B, H, 20})}, policies...);
        return out;
    };
    const auto plain = entropies(), moved = entropies([](auto y, const where&) { return y + 30.0f; });
    const auto equal = entropies(scale{0});
    for (std::size_t r = 0; r < plain.size(); ++r) {
        const double most = std::log(static_cast<double>(r % 20 + 1));
        EXPECT_NEAR(equal[r], most, 1e-5);
        EXPECT_NEAR(plain[r], moved[r], 1e-4);
        EXPECT_GE(plain[r], -1e-6);
        EXPECT_LE(plain[r], most + 1e-5);
    }
}

}  // namespace
