// heed_test: LABELS sanitize
// The probe relation_mass: weights by relation, against the weights themselves and their definition.
#include <heed/heed.hpp>

#include "any_mask.hpp"
#include "compare.hpp"
#include "random.hpp"
#include "refuses.hpp"

using namespace test;

namespace {

/// id(b, n, j) of extents (B or 1, N or 1, M or 1).
struct id_table {
    extents<3> shape;
    std::vector<std::uint8_t> ids;
    id_table(const extents<3>& s, index_t P) : shape(s) {
        const counter_random r(9);
        for (index_t i = 0; i < s[0] * s[1] * s[2]; ++i)
            ids.push_back(static_cast<std::uint8_t>(r.bits(number(i)) % static_cast<std::uint64_t>(P)));
    }
    view<const std::uint8_t, 3> v() const { return dense(ids.data(), {shape[0], shape[1], shape[2]}); }
    index_t operator()(index_t b, index_t n, index_t j) const {
        return v()(shape[0] == 1 ? 0 : b, shape[1] == 1 ? 0 : n, shape[2] == 1 ? 0 : j);
    }
};

constexpr index_t B = 2, H = 4, G = 2, N = 53, M = 141, P = 5;

/// Weights, summed by relation in the arithmetic of R.
template <class R>
tensor<R> histogram(const tensor<R>& weights, const id_table& id, index_t count = P) {
    tensor<R> mass({B, H, N, count});
    mass.fill([](index_t) { return 0; });
    weights.each([&](index_t b, index_t h, index_t n, index_t j) {
        mass(b, h, n, id(b, n, j)) += weights(b, h, n, j);
    });
    return mass;
}

template <class R>
tensor<R> defined_weights(const tensor<float>& q, const tensor<float>& k, const any_mask& mask,
                          std::span<const float> sinks) {
    tensor<R> weights({B, H, N, M}), none({B, H, N, 0});
    ref::options<R> with;
    with.visible = [&](index_t b, index_t h, index_t row, index_t i, index_t j) {
        return mask.allows({b, h, row, i, j});
    };
    with.sink.assign(sinks.begin(), sinks.end());
    ref::record<R> record;
    record.probability = weights;
    ref::naive_attention<R>(q.v(), k.v(), slice(k.v(), 3, {0, 0}), none.v(), with, record);
    return weights;
}

TEST(relation_mass, is_the_weights_by_relation) {
    const auto q = normal<float>({B, H, N, 6}, 1), k = normal<float>({B, G, M, 6}, 2);
    const std::vector<float> sinks{0.5f, -1, 2, 0};
    const any_mask mask = (causal{} & window{30}) | first{2};
    const auto defined = defined_weights<float>(q, k, mask, sinks);
    const auto exact = defined_weights<double>(q, k, mask, sinks);
    for (const extents<3>& shape : {extents<3>{B, N, M}, {1, N, M}, {B, 1, M}, {1, N, 1}, {1, 1, 1}}) {
        const id_table id(shape, P);
        tensor<float> o(q.shape()), plain(q.shape()), mass({B, H, N, P}), weights({B, H, N, M});
        attention(q, k, k, o, mask, sink{sinks}, relation_mass(mass.v(), id.v()),
                  logits(weights.v(), stage::probability));
        EXPECT_TRUE(same_values(mass, histogram(weights, id)));  // keys add up in order
        EXPECT_TRUE(within_rule<float>(mass, histogram(defined, id), histogram(exact, id)));
        attention(q, k, k, plain, mask, sink{sinks});
        EXPECT_TRUE(same_values(o, plain));
    }
}

TEST(relation_mass, tells_a_relation_nobody_has_from_one_without_weight) {
    const auto q = constant<float>({1, 1, 2, 1}, 1), k = constant<float>({1, 1, 3, 1}, 0);
    auto far = k;
    far(0, 0, 2, 0) = -1000;  // seen, with a weight of 0
    const std::vector<int> ids{0, 1, 2, 0, 1, 2};
    tensor<float> o(q.shape()), mass({1, 1, 2, 4});
    attention(q, far, k, o, causal{}, relation_mass(mass.v(), dense(ids.data(), {1, 2, 3})));
    const float expected[2][4] = {{0.5f, 0.5f, -0.0f, -0.0f}, {0.5f, 0.5f, 0.0f, -0.0f}};
    mass.each([&](index_t, index_t, index_t n, index_t p) {
        EXPECT_EQ(mass(0, 0, n, p), expected[n][p]);
        EXPECT_EQ(std::signbit(mass(0, 0, n, p)), std::signbit(expected[n][p])) << n << ", " << p;
    });
}

TEST(relation_mass, errors) {
    const auto q = normal<float>({1, 1, 2, 1}, 1), k = normal<float>({1, 1, 3, 1}, 2);
    std::vector<int> ids{0, 1, 2, 0, 1, 2};
    tensor<float> o(q.shape()), mass({1, 1, 2, 3}), wrong({1, 2, 2, 3});
    const auto fails = [&](tensor<float>& to, const extents<3>& shape, const std::string& sentence) {
        const auto ids3 = dense(ids.data(), {shape[0], shape[1], shape[2]});
        refuses<std::invalid_argument>([&] { attention(q, k, k, o, causal{}, relation_mass(to.v(), ids3)); }, sentence);
        for (auto* t : {&o, &to})
            for (float x : t->memory()) EXPECT_TRUE(std::isnan(x));  // untouched
    };
    fails(wrong, {1, 2, 3}, "attention: relation_mass has rows (1, 2, 2), the rows are (1, 1, 2)");
    fails(mass, {1, 3, 2}, "attention: relation_mass: the ids have extent 3 on axis 1, the logits have 2");
    ids[4] = 3;
    fails(mass, {1, 2, 3}, "attention: relation_mass: id 3 of 3");
    ids[4] = -1;
    fails(mass, {1, 2, 3}, "attention: relation_mass: id -1 of 3");
}

}  // namespace
