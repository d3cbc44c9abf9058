// A prompt fed to a cache in pieces, each attended to as it comes, gives the rows of the whole prompt.
#include "cache_policies.hpp"
#include "scratch_folder.hpp"

using namespace test;

namespace {

using list = std::vector<index_t>;

constexpr index_t B = 2, H = 4, G = 2, M = 90, D = 24, E = 36;

struct prompt {
    tensor<float> q = normal<float>({B, H, M, D}, 1, 2), k = normal<float>({B, G, M, D}, 2),
                  v = normal<float>({B, G, M, E}, 3);

    template <class Cache>
    tensor<float> feed(Cache& cache, const list& cuts) const {
        tensor<float> o({B, H, M, E});
        const auto rows = [](auto& x, range tokens) { return slice(x.v(), 2, tokens); };
        for (std::size_t c = 1; c < cuts.size(); ++c) {
            const range piece{cuts[c - 1], cuts[c]};
            cache.append(rows(k, piece), rows(v, piece));
            attention(rows(q, piece), cache, rows(o, piece), any_mask(causal{}));
        }
        return o;
    }
};

/// The rows by the definition over what the cache holds at the end; where every piece is prefilled, the bits of one.
template <class Make>
void expect_any_pieces(const Make& make, const std::vector<list>& all_cuts) {
    const prompt x;
    auto whole = make();
    const auto at_once = x.feed(whole, {0, M});
    const auto defined = [&]<class Real>(Real, index_t b) {
        ref::options<Real> with;
        with.visible = [](index_t, index_t, index_t, index_t i, index_t j) { return j <= i; };
        return by_definition<Real>(whole, b, x.q, with).o;
    };
    for (const list& cuts : all_cuts) {
        auto cache = make();
        const auto o = x.feed(cache, cuts);
        index_t shortest = M;
        for (std::size_t c = 1; c < cuts.size(); ++c) shortest = std::min(shortest, cuts[c] - cuts[c - 1]);
        SCOPED_TRACE(testing::Message() << cuts.size() - 1 << " pieces, the shortest of " << shortest);
        if (shortest > index_t(lanes<float>) / 2) EXPECT_TRUE(same_values(o, at_once));
        for (index_t b = 0; b < B; ++b)
            EXPECT_TRUE(
                within_rule<float>(copied(slice(o.v(), 0, {b, b + 1})), defined(float{}, b), defined(double{}, b)));
    }
}
const std::vector<list> any_cuts{{0, 90},     {0, 1, 2, 90},   {0, 13, 26, 39, 52, 65, 90},
                                 {0, 89, 90}, {0, 47, 47, 90}, {0, 32, 64, 90}};

template <class K, class V>
auto quantised(const K& keys, const V& values, hadamard turned = {}) {
    return [=] { return quantised_cache<K, V>({B, G, D, E}, keys, values, turned); };
}

TEST(prefill, of_pages) {
    for (index_t page : {1, 16, 40}) {
        const cache_shape shape{B, G, D, E};
        expect_any_pieces([&] { return paged_cache<float>(shape, page, 200); }, any_cuts);
    }
}
TEST(prefill, of_a_file) {
    const scratch_folder folder;
    int files = 0;
    const auto make = [&] { return mapped_cache<float>::create(folder / std::to_string(files++), {B, G, D, E}, 25); };
    expect_any_pieces(make, any_cuts);
}
TEST(prefill, of_bytes_by_token) { expect_any_pieces(quantised(int8_per_token{}, int8_per_token{}), any_cuts); }
TEST(prefill, of_four_bits_by_group) {
    const hadamard both{.keys = true, .values = true};
    expect_any_pieces(quantised(int4_per_group<32>{}, int4_per_group<32>{}, both), any_cuts);
}
/// The factors of a channel are known when their block is full: pieces of whole blocks.
TEST(prefill, of_channels_in_whole_blocks) {
    const std::vector<list> cuts{{0, 90}, {0, 15, 90}, {0, 30, 45, 60, 75, 90}};
    expect_any_pieces(quantised(int8_per_channel{15}, int8_per_channel{5}), cuts);
}

}  // namespace
