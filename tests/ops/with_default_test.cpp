// A policy of the caller takes the place of an operator's own of the same role, and of no other.
#include <gtest/gtest.h>

#include <heed/ops/with_default.hpp>
#include <heed/policy/score.hpp>

using namespace heed;

namespace {

/// The factor that an operator whose own is scale{7} would use, and how many policies it would hand on.
template <class... P>
std::pair<double, std::size_t> used(P... policies) {
    std::pair<double, std::size_t> out;
    detail::with_default(
        scale{7},
        [&](const auto&... all) {
            out.second = sizeof...(all);
            out.first = detail::pick<roles::scale>(scale{-1}, all...).factor;
        },
        policies...);
    return out;
}

TEST(with_default, a_policy_of_the_role_takes_its_place) {
    EXPECT_EQ(used(), std::pair(7.0, std::size_t{1}));
    EXPECT_EQ(used(scale{3}), std::pair(3.0, std::size_t{1}));
    EXPECT_EQ(used(recurrent{}), std::pair(7.0, std::size_t{2}));
    EXPECT_EQ(used(recurrent{}, scale{3}), std::pair(3.0, std::size_t{2}));
}

TEST(with_default, policies_are_handed_on_as_the_callers_own) {
    chunked form{16};
    detail::with_default(
        scale{7}, [&](const scale&, const chunked& given) { EXPECT_EQ(&given, &form); }, form);
}

}  // namespace
