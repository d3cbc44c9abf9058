// A score behind a call a pack, so that one instantiation of the engine serves every score under test.
#pragma once

#include <functional>

#include <heed/policy/score.hpp>

namespace test {

using namespace heed;

/// A score of float packs. (A sanitized build takes a minute and more an engine.)
struct any_score {
    using role = roles::score;
    std::function<pack<float>(pack<float>, const where&)> on_pack;
    std::function<double(double, const where&)> on_number;

    template <class S>
        requires(!std::same_as<S, any_score>)
    any_score(const S& s)
        : on_pack([s](pack<float> x, const where& w) { return s(x, w); }),
          on_number([s](double x, const where& w) { return static_cast<double>(s(x, w)); }) {}
    template <class A>
    pack<float, A> operator()(const pack<float, A>& x, const where& w) const {
        return on_pack(x, w);
    }
    double operator()(double x, const where& w) const { return on_number(x, w); }
};

}  // namespace test
