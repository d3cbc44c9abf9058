// heed_test: AS_USED LABELS sanitize
// Panels: rows of any type, count, depth and strides into lanes and back, padded with zeros, writing nothing beside.
#include <gtest/gtest.h>

#include <heed/core/context.hpp>
#include <heed/tile/panels.hpp>

#include "guarded.hpp"
#include "random.hpp"

using namespace test;

namespace {

/// Elements of n rows as a (1, 1, n, depth) tensor, and a panel aligned as the kernels want it.
template <class T>
struct panel {
    arena memory;
    index_t depth, width;
    panel(index_t d, index_t w) : memory(static_cast<std::size_t>(d * w + 1) * sizeof(T)), depth(d), width(w) {
        std::fill_n(data(), d * w + 1, poison<T>());
    }
    T* data() { return reinterpret_cast<T*>(memory.data()); }
    T& operator()(index_t t, index_t l) { return data()[t * width + l]; }
    bool ends_in_poison() { return std::isnan(static_cast<double>(data()[depth * width])); }
};

template <class T, class F>
void each_size(F&& f) {
    constexpr index_t L = lanes<T>;
    const layout kinds[] = {layout::heads(), layout::padded(), layout::strided(), layout::channels_first()};
    for (index_t width : {L, 2 * L, 3 * L})
        for (index_t n : {index_t(0), index_t(1), L - 1, L, L + 1, width - 1, width})
            for (index_t depth : {index_t(0), index_t(1), L - 1, L, L + 1, 2 * L + 3})
                for (const layout& kind : kinds)
                    if (n <= width) {
                        SCOPED_TRACE(testing::Message() << n << " rows of " << depth << ", width " << width);
                        f(n, depth, width, kind);
                    }
}

template <class T, class S>
void packs() {
    each_size<T>([](index_t n, index_t depth, index_t width, const layout& kind) {
        const auto rows = normal<S>({1, 1, n, depth}, 1, 1, kind);
        const auto v = rows.v();
        panel<T> to(depth, width);
        const T factor = T(0.3);
        pack_panel<default_arch>(scaled_rows<T, S>{v.data, v.strides[2], v.strides[3], factor}, n, depth, width, to.data());
        for (index_t t = 0; t < depth; ++t)
            for (index_t l = 0; l < width; ++l)
                ASSERT_EQ(to(t, l), l < n ? factor * static_cast<T>(rows(0, 0, l, t)) : T(0)) << t << ", " << l;
        ASSERT_TRUE(to.ends_in_poison());
    });
}

TEST(panels, packs_float) { packs<float, float>(); }
TEST(panels, packs_double) { packs<double, double>(); }
TEST(panels, packs_bf16) { packs<float, bf16>(); }
TEST(panels, packs_f16) { packs<float, f16>(); }
TEST(panels, packs_float_as_double) { packs<double, float>(); }

TEST(panels, packs_pairs_of_bf16) {
    each_size<float>([](index_t n, index_t width_of_rows, index_t width, const layout& kind) {
        const auto rows = normal<bf16>({1, 1, n, width_of_rows}, 1, 1, kind);
        const auto v = rows.v();
        const index_t depth = ceil_div(width_of_rows, 2);
        panel<float> to(depth, width);
        pack_panel<default_arch>(paired_rows{v.data, v.strides[2], v.strides[3], width_of_rows}, n, depth, width, to.data());
        const auto bits = [&](index_t l, index_t d) -> std::uint32_t {
            return l < n && d < width_of_rows ? std::bit_cast<std::uint16_t>(rows(0, 0, l, d)) : 0;
        };
        for (index_t t = 0; t < depth; ++t)
            for (index_t l = 0; l < width; ++l)
                ASSERT_EQ(std::bit_cast<std::uint32_t>(to(t, l)), bits(l, 2 * t) | bits(l, 2 * t + 1) << 16)
                    << t << ", " << l;
        ASSERT_TRUE(to.ends_in_poison());
    });
}

template <class T, class S>
void unpacks() {
    each_size<T>([](index_t n, index_t depth, index_t width, const layout& kind) {
        panel<T> from(depth, width);
        panel<T> factor(1, width);
        const counter_random r(2);
        for (index_t l = 0; l < width; ++l) {
            factor(0, l) = static_cast<T>(0.5 + r.uniform(number(l)));
            for (index_t t = 0; t < depth; ++t) from(t, l) = static_cast<T>(r.normal(number(100 + t * width + l)));
        }
        tensor<S> rows({1, 1, n, depth}, kind);
        const auto v = rows.v();
        unpack_panel<default_arch>(from.data(), width, factor.data(), n, depth, v.data, v.strides[2], v.strides[3]);
        for (index_t l = 0; l < n; ++l)
            for (index_t t = 0; t < depth; ++t)
                ASSERT_EQ(static_cast<T>(rows(0, 0, l, t)), static_cast<T>(static_cast<S>(from(t, l) * factor(0, l))))
                    << l << ", " << t;
        ASSERT_TRUE(rows.poisoned_outside());
    });
}

TEST(panels, unpacks_float) { unpacks<float, float>(); }
TEST(panels, unpacks_double) { unpacks<double, double>(); }
TEST(panels, unpacks_bf16) { unpacks<float, bf16>(); }
TEST(panels, unpacks_f16) { unpacks<float, f16>(); }
TEST(panels, unpacks_double_as_float) { unpacks<double, float>(); }

template <class S>
void stays_between_guards(flush side) {
    each_size<float>([&](index_t n, index_t depth, index_t width, const layout&) {
        guarded<S> rows(n * depth, side);
        std::fill_n(rows.data(), n * depth, S(2.f));
        panel<float> at(depth, width), factor(1, width);
        std::fill_n(factor.data(), width, 1.f);
        pack_panel<default_arch>(scaled_rows<float, S>{rows.data(), depth, 1, 1.f}, n, depth, width, at.data());
        unpack_panel<default_arch>(at.data(), width, factor.data(), n, depth, rows.data(), depth, 1);
        for (index_t i = 0; i < n * depth; ++i) ASSERT_EQ(static_cast<float>(rows.data()[i]), 2.f);
    });
}

TEST(panels, nothing_beyond_the_rows_is_touched) {
    for (flush side : {flush::front, flush::back}) {
        stays_between_guards<float>(side);
        stays_between_guards<bf16>(side);
        stays_between_guards<f16>(side);
    }
}

}  // namespace
