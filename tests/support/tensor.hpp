// An owning (b, h, n, d) tensor for tests, in any layout, with poison between and around its elements.
#pragma once

#include <heed/core/half.hpp>
#include <heed/core/random.hpp>
#include <heed/core/view.hpp>
#include <limits>
#include <vector>

namespace test {

using namespace heed;

/// Where the elements of a tensor stand in memory.
struct layout {
    std::array<int, 4> order{0, 1, 2, 3};    // axes of (b, h, n, d), outermost first
    std::array<index_t, 4> gap{0, 0, 0, 0};  // poison elements after each run of the axis at that place of the order
    index_t step = 1;                        // of the innermost axis
    index_t lead = 0;                        // poison elements before the first

    static layout heads() { return {}; }
    static layout tokens() { return {{0, 2, 1, 3}, {}, 1, 0}; }
    /// Rows a few elements apart, starting at an odd address.
    static layout padded() { return {{0, 1, 2, 3}, {5, 3, 7, 0}, 1, 1}; }
    /// The last axis strided as well.
    static layout strided() { return {{0, 2, 1, 3}, {0, 2, 1, 0}, 3, 2}; }
    /// Channels outside, tokens innermost.
    static layout channels_first() { return {{0, 1, 3, 2}, {0, 0, 1, 0}, 1, 0}; }
};

/// Distance from 1 to the next number. Eigen 3.4's numeric_limits<half> says 2^-13 where 2^-10 is right.
template <class T>
inline constexpr double epsilon = std::is_same_v<T, f16>     ? 0x1p-10
                                  : std::is_same_v<T, bf16>  ? 0x1p-7
                                  : std::is_same_v<T, float> ? 0x1p-23
                                                             : 0x1p-52;

template <class T>
T poison() {
    return static_cast<T>(std::numeric_limits<float>::quiet_NaN());
}

template <class T>
class tensor {
public:
    tensor() = default;
    explicit tensor(const extents<4>& shape, const layout& l = {}) {
        view_.shape = shape;
        index_t step = l.step;
        for (int place = 3; place >= 0; --place) {
            const auto axis = static_cast<std::size_t>(l.order[static_cast<std::size_t>(place)]);
            view_.strides[axis] = step;
            step = step * std::max<index_t>(shape[axis], 1) + l.gap[static_cast<std::size_t>(place)];
        }
        lead_ = l.lead;
        memory_.assign(static_cast<std::size_t>(step + lead_), poison<T>());
    }

    view<T> v() { return {memory_.data() + lead_, view_.shape, view_.strides}; }
    view<const T> v() const { return {memory_.data() + lead_, view_.shape, view_.strides}; }
    operator view<T>() { return v(); }
    operator view<const T>() const { return v(); }
    T& operator()(index_t b, index_t h, index_t n, index_t d) { return v()(b, h, n, d); }
    const T& operator()(index_t b, index_t h, index_t n, index_t d) const { return v()(b, h, n, d); }
    const extents<4>& shape() const { return view_.shape; }
    std::vector<T>& memory() { return memory_; }

    /// Calls f(b, h, n, d) for every element.
    template <class F>
    void each(F&& f) const {
        const auto [B, H, N, D] = view_.shape;
        for (index_t b = 0; b < B; ++b)
            for (index_t h = 0; h < H; ++h)
                for (index_t n = 0; n < N; ++n)
                    for (index_t d = 0; d < D; ++d) f(b, h, n, d);
    }
    /// Sets every element to f(its number in (b, h, n, d) order).
    template <class F>
    tensor& fill(F&& f) {
        index_t i = 0;
        each([&](index_t b, index_t h, index_t n, index_t d) { (*this)(b, h, n, d) = static_cast<T>(f(i++)); });
        return *this;
    }
    /// Whether the poison between and around the elements is intact (NaN), bit pattern aside.
    bool poisoned_outside() {
        auto rest = *this;
        rest.each([&](index_t b, index_t h, index_t n, index_t d) { rest(b, h, n, d) = poison<T>(); });
        for (const T& x : rest.memory_)
            if (!(static_cast<double>(x) != static_cast<double>(x))) return false;
        return true;
    }

private:
    std::vector<T> memory_;
    view<T> view_;
    index_t lead_ = 0;
};

/// The (b, h, n) of a (b, h, n, 1) tensor.
template <class T>
view<T, 3> flat(tensor<T>& t) {
    const auto v = t.v();
    return {v.data, {v.shape[0], v.shape[1], v.shape[2]}, {v.strides[0], v.strides[1], v.strides[2]}};
}

/// A dense tensor of the same elements.
template <class T>
tensor<std::remove_const_t<T>> copied(const view<T>& from) {
    tensor<std::remove_const_t<T>> to(from.shape);
    to.each([&](index_t b, index_t h, index_t n, index_t d) { to(b, h, n, d) = from(b, h, n, d); });
    return to;
}

}  // namespace test

/// A tensor is an operand, as any type of a user's own can be.
template <class T>
struct heed::viewable<test::tensor<T>> {
    static auto view_of(auto& t) { return t.v(); }
};
