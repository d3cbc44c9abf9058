// heed_test: LABELS sanitize
// Monoids are monoids: identity, associativity, and the action of a product is that of its factors in turn.
#include <gtest/gtest.h>

#include <heed/core/random.hpp>
#include <heed/policy/monoid.hpp>
#include <vector>

using namespace heed;

namespace {

constexpr double inf = std::numeric_limits<double>::infinity();

template <class X>
void expect_like(const X& a, const X& b) {
    for (std::size_t i = 0; i < a.size(); ++i)
        if (a[i] != b[i]) EXPECT_NEAR(a[i], b[i], 1e-12 * std::max(1.0, std::abs(a[i]))) << "number " << i;
}

template <class M>
class monoids : public testing::Test {
public:
    using element = numbers<double, M::elements>;
    using state = numbers<double, M::states>;

    element draw(std::uint64_t seed) const {
        const counter_random r(seed);
        element x;
        for (std::size_t i = 0; i < x.size(); ++i) x[i] = r.normal(i);
        if constexpr (std::is_same_v<M, softmax_prefix>) x[1] = r.uniform(7);  // a mass
        if (seed % 5 == 4) M::identity(x);
        return x;
    }
    static element product(element x, const element& y) {
        M::multiply(x, y);
        return x;
    }
};
using all = testing::Types<running_sum, running_log_sum, running_max, affine, log_affine, max_plus, complex_affine,
                           softmax_prefix>;
TYPED_TEST_SUITE(monoids, all);

TYPED_TEST(monoids, laws) {
    using M = TypeParam;
    for (std::uint64_t i = 0; i < 60; ++i) {
        const auto a = this->draw(3 * i), b = this->draw(3 * i + 1), c = this->draw(3 * i + 2);
        expect_like(this->product(this->product(a, b), c), this->product(a, this->product(b, c)));
        typename TestFixture::element one;
        M::identity(one);
        expect_like(this->product(one, a), a);
        expect_like(this->product(a, one), a);
        expect_like(this->product(one, one), one);
        typename TestFixture::state s, t;
        M::start(s);
        M::act(s, c);  // some state
        t = s;
        M::act(s, a);
        M::act(s, b);
        M::act(t, this->product(a, b));
        expect_like(s, t);
    }
}

TEST(softmax_prefix, is_softmax) {
    const counter_random r(2);
    for (double spread : {1.0, 1e4}) {
        numbers<double, 3> s;
        softmax_prefix::start(s);
        EXPECT_EQ(softmax_prefix::read(s)[0], 0);
        std::vector<double> logit, value;
        for (std::uint64_t i = 0; i < 40; ++i) {
            logit.push_back(i % 7 == 3 || i == 0 ? -inf : spread * r.normal(i));
            value.push_back(i % 7 == 3 ? inf : r.normal(100 + i));  // what is masked is not touched
            softmax_prefix::act(s, numbers<double, 3>{logit.back(), 1, value.back()});
            double top = -inf, l = 0, o = 0;
            for (double x : logit) top = std::max(top, x);
            for (std::size_t j = 0; j < logit.size(); ++j)
                if (logit[j] != -inf) l += std::exp(logit[j] - top), o += std::exp(logit[j] - top) * value[j];
            EXPECT_NEAR(softmax_prefix::read(s)[0], l > 0 ? o / l : 0, 1e-12);
        }
    }
}

TEST(monoids, infinities_are_the_zero_of_paths_and_logs) {
    numbers<double, 1> path{-inf}, logs{-inf};
    max_plus::act(path, numbers<double, 2>{3, -inf});
    log_affine::act(logs, numbers<double, 2>{3, -inf});
    EXPECT_EQ(path[0], -inf);
    EXPECT_EQ(logs[0], -inf);
    max_plus::act(path, numbers<double, 2>{3, 5});
    log_affine::act(logs, numbers<double, 2>{3, 5});
    EXPECT_EQ(path[0], 5);
    EXPECT_EQ(logs[0], 5);
}

}  // namespace
