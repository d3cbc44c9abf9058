// Mamba-2 against its definition: steps, groups, states, forms; and where it is linear attention.
#include <heed/ops/mamba2.hpp>
#include <heed/ops/mixing_matrix.hpp>
#include <heed/ref/mamba2.hpp>
#include <heed/ref/selective_scan.hpp>

#include "recurs.hpp"
#include "refuses.hpp"

using namespace test;

namespace {

struct sizes {
    index_t B, H, G, N, S, P;
};

template <class T>
view<const T, 1> per_head(const std::vector<T>& x) {
    return dense(x.data(), {static_cast<index_t>(x.size())});
}

template <class T>
struct block {
    sizes s;
    tensor<T> x, dt, in, out;
    std::vector<T> A, bias, skip;

    explicit block(const sizes& n, const layout& l = {})
        : s(n),
          x(normal<T>({n.B, n.H, n.N, n.P}, 1, 1, l)),
          dt(normal<T>({n.B, n.H, n.N, 1}, 2, 1, l)),
          in(normal<T>({n.B, n.G, n.N, n.S}, 3, 1, l)),
          out(normal<T>({n.B, n.G, n.N, n.S}, 4, 1, l)) {
        for (index_t h = 0; h < n.H; ++h) {
            A.push_back(static_cast<T>(-0.2 * static_cast<double>(h + 1)));
            bias.push_back(static_cast<T>(0.3 * static_cast<double>(h) - 1));
            skip.push_back(static_cast<T>(0.5 - static_cast<double>(h)));
        }
    }
    mamba2_options<T> options() const { return {per_head(bias), per_head(skip), true, 0.05, 1.5}; }
    template <class... P>
    tensor<T> run(const mamba2_options<T>& with, P&&... policies) const {
        tensor<T> y(x.shape());
        mamba2(x, numbers(dt), per_head(A), in, out, y, with, policies...);
        return y;
    }
    /// The definition in R, from a state and to it.
    template <class R>
    tensor<R> defined(const mamba2_options<T>& with, tensor<R>& state) const {
        const auto widened = [](const std::vector<T>& v) { return std::vector<R>(v.begin(), v.end()); };
        const auto b = widened(bias), d = widened(skip);
        ref::mamba2_options<R> exactly;
        if (with.bias.data) exactly.bias = per_head(b);
        if (with.skip.data) exactly.skip = per_head(d);
        exactly.softplus = with.softplus;
        exactly.least = static_cast<R>(static_cast<T>(with.least));
        exactly.most = static_cast<R>(static_cast<T>(with.most));
        tensor<R> y(x.shape());
        ref::mamba2<R>(x.v(), numbers(dt), per_head(A), in.v(), out.v(), y.v(), exactly, state.v());
        return y;
    }
    testing::AssertionResult holds(const mamba2_options<T>& with, const auto&... form) const {
        using R = definition_of<T>;
        state<T> carried(s.B, s.H, s.S, s.P);
        auto naive_s = normal<T>({s.B, s.H, s.S, s.P}, 9);
        carried.assign(naive_s.v());
        tensor<R> exact_s(naive_s.shape());
        exact_s.each([&](index_t b, index_t h, index_t i, index_t p) { exact_s(b, h, i, p) = naive_s(b, h, i, p); });
        const auto exact = defined<R>(with, exact_s);
        const auto naive = defined<T>(with, naive_s);
        const auto ok = within_rule<T>(run(with, form..., carried), naive, exact);
        return ok ? within_rule<T>(copied(carried.values()), naive_s, exact_s) << " (state)" : ok;
    }
};

const sizes shapes[] = {
    {1, 1, 1, 0, 8, 8}, {1, 1, 1, 1, 8, 8}, {2, 4, 2, 33, 9, 17}, {1, 4, 1, 70, 16, 8}, {1, 2, 2, 40, 128, 16}};

TEST(mamba2, keeps_to_its_definition) {
    for (const auto& s : shapes) {
        SCOPED_TRACE(testing::Message() << "N" << s.N << " S" << s.S << " P" << s.P);
        const block<float> m(s);
        EXPECT_TRUE(m.holds(m.options()));
        EXPECT_TRUE(m.holds(m.options(), recurrent{}));
        EXPECT_TRUE(m.holds(m.options(), chunked{32}));
        EXPECT_TRUE(m.holds({}));  // no bias, no D, steps as they are, at least 0
        const block<float> far(s, layout::strided());
        EXPECT_TRUE(far.holds(far.options()));
    }
    const block<double> m({1, 2, 2, 40, 9, 12});
    EXPECT_TRUE(m.holds(m.options()));
}

TEST(mamba2, steps_of_any_size_keep_to_it) {
    for (const double spread : {30.0, 1e4}) {
        block<float> m({1, 2, 1, 40, 8, 8});
        m.dt = normal<float>(m.dt.shape(), 2, spread);
        auto with = m.options();
        EXPECT_TRUE(m.holds(with));
        with.most = std::numeric_limits<double>::infinity();
        EXPECT_TRUE(m.holds(with)) << spread;
    }
}

TEST(mamba2, a_step_is_a_token_of_a_sequence) {
    const block<double> m({2, 4, 2, 33, 9, 17});
    state<double> whole(2, 4, 9, 17), stepped = whole;
    const auto y = m.run(m.options(), recurrent{}, whole);
    tensor<double> one(y.shape());
    for (index_t n = 0; n < 33; ++n) {
        const auto at = [&](const auto& v) { return slice(v, 2, {n, n + 1}); };
        mamba2_step(stepped, at(m.x.v()), at(numbers(m.dt)), per_head(m.A), at(m.in.v()), at(m.out.v()), at(one.v()),
                    m.options());
    }
    EXPECT_TRUE(all_near(one, y, 1e-13));
    EXPECT_TRUE(all_near(copied(stepped.values()), copied(whole.values()), 1e-13));
}

TEST(mamba2, groups_are_heads_repeated) {
    for (const index_t G : {1, 2}) {
        const block<float> m({2, 4, G, 20, 8, 8});
        auto wide = m;
        for (auto* x : {&wide.in, &wide.out}) {
            tensor<float> repeated({2, 4, 20, 8});
            repeated.each(
                [&](index_t b, index_t h, index_t n, index_t s) { repeated(b, h, n, s) = (*x)(b, h / (4 / G), n, s); });
            *x = repeated;
        }
        EXPECT_TRUE(same_values(wide.run(wide.options()), m.run(m.options()))) << G << " groups";
    }
}

TEST(mamba2, without_decay_is_linear_attention_over_weighted_values) {
    block<double> m({1, 2, 2, 40, 9, 12});
    for (double& a : m.A) a = 0;
    auto values = m.x;
    values.each(
        [&](index_t b, index_t h, index_t n, index_t p) { values(b, h, n, p) *= std::max(m.dt(b, h, n, 0), 0.0); });
    tensor<double> linear(m.x.shape());
    recurrence(m.out, m.in, values, linear, scale{1});
    EXPECT_TRUE(all_near(m.run({}), linear, 1e-13));
}

TEST(mamba2, with_channels_that_share_a_step_is_the_selective_scan) {
    const index_t H = 3, N = 25, S = 5, P = 4, C = H * P;
    const block<double> m({1, H, H, N, S, P});
    tensor<double> u({1, 1, N, C}), delta(u.shape()), y(u.shape()), A({1, 1, C, S}), per_channel({1, 1, 2, C});
    A.each([&](index_t, index_t, index_t c, index_t s) { A(0, 0, c, s) = m.A[static_cast<std::size_t>(c / P)]; });
    u.each([&](index_t, index_t, index_t n, index_t c) {
        u(0, 0, n, c) = m.x(0, c / P, n, c % P);
        delta(0, 0, n, c) = m.dt(0, c / P, n, 0);
        per_channel(0, 0, 0, c) = m.bias[static_cast<std::size_t>(c / P)];
        per_channel(0, 0, 1, c) = m.skip[static_cast<std::size_t>(c / P)];
    });
    const auto flat = [&](const tensor<double>& x) { return dense(x.v().data, {1, N, C}); };
    const auto groups = [](const tensor<double>& x) {  // (b, n, g, s)
        const auto v = x.v();
        return view<const double>{v.data,
                                  {v.shape[0], v.shape[2], v.shape[1], v.shape[3]},
                                  {v.strides[0], v.strides[2], v.strides[1], v.strides[3]}};
    };
    ref::selective_options<double> with;
    with.bias = dense(&std::as_const(per_channel)(0, 0, 0, 0), {C});
    with.skip = dense(&std::as_const(per_channel)(0, 0, 1, 0), {C});
    with.softplus = true;
    ref::selective_scan<double>(flat(u), flat(delta), dense(std::as_const(A).v().data, {C, S}), groups(m.in),
                                groups(m.out), dense(y.v().data, {1, N, C}), with);
    const auto o = m.run({per_head(m.bias), per_head(m.skip), true});
    o.each([&](index_t, index_t h, index_t n, index_t p) { ASSERT_NEAR(o(0, h, n, p), y(0, 0, n, h * P + p), 1e-13); });
}

TEST(mamba2, its_matrix_is_that_of_segment_sums) {
    const block<double> m({1, 2, 1, 30, 9, 12});
    auto with = m.options();
    with.skip = {};
    tensor<double> M({1, 2, 30, 30});
    mixing_matrix(
        [&](const auto& v, const auto& to) { mamba2(v, numbers(m.dt), per_head(m.A), m.in, m.out, to, with); }, M);
    const auto d = [&](index_t h, index_t n) {
        return std::min(std::max(std::log1p(std::exp(m.dt(0, h, n, 0) + m.bias[static_cast<std::size_t>(h)])), 0.05),
                        1.5);
    };
    M.each([&](index_t, index_t h, index_t i, index_t j) {
        double log = 0, product = 0;
        for (index_t s = j + 1; s <= i; ++s) log += d(h, s) * m.A[static_cast<std::size_t>(h)];
        for (index_t s = 0; s < 9; ++s) product += m.out(0, 0, i, s) * m.in(0, 0, j, s);
        ASSERT_NEAR(M(0, h, i, j), j <= i ? product * std::exp(log) * d(h, j) : 0, 1e-13);
    });
}

TEST(mamba2, of_16_bits_rounds_the_state_s_part_and_the_sum) {
    block<float> m({1, 2, 1, 20, 8, 33});
    tensor<bf16> x(m.x.shape()), y(m.x.shape());
    m.x.each([&](index_t b, index_t h, index_t n, index_t p) {
        x(b, h, n, p) = static_cast<bf16>(m.x(b, h, n, p));
        m.x(b, h, n, p) = static_cast<float>(x(b, h, n, p));
    });
    auto without = m.options();
    without.skip = {};
    const auto exact = m.run(m.options()), part = m.run(without);
    mamba2(x, numbers(m.dt), per_head(m.A), m.in, m.out, y, m.options());
    y.each([&](index_t b, index_t h, index_t n, index_t p) {
        const double bound = 0x1p-8 * (std::abs(exact(b, h, n, p)) + std::abs(part(b, h, n, p))) + 1e-5;
        ASSERT_NEAR(static_cast<double>(static_cast<float>(y(b, h, n, p))), exact(b, h, n, p), 1.01 * bound);
    });
}

TEST(mamba2, computes_nothing_while_it_counts_scratch) {
    const block<float> m({2, 4, 2, 33, 9, 17});
    serial alone;
    std::size_t need = 0;
    const auto y = m.run(m.options(), scratch_size(alone, need));
    EXPECT_TRUE(same_values(y, tensor<float>(y.shape()))) << "was written";
    arena scratch(need);
    EXPECT_TRUE(same_values(m.run(m.options(), on(alone, scratch)), m.run(m.options())));
}

TEST(mamba2, refuses_what_does_not_fit) {
    block<float> m({1, 2, 1, 6, 8, 8});
    const auto with = [&](auto change) {
        auto o = m.options();
        change(o);
        return o;
    };
    refuses<shape_error>([&] { m.run(with([&](auto& o) {
                                   o.bias = slice(o.bias, 0, {0, 1});
                               })); },
                         "bias has 1 heads, x has 2");
    refuses<shape_error>([&] { m.run(with([&](auto& o) {
                                   o.skip = slice(o.skip, 0, {0, 1});
                               })); },
                         "D has 1 heads, x has 2");
    refuses<argument_error>([&] { m.run(with([](auto& o) { o.least = 2; })); }, "limited to [2, 1.5]");
    refuses<argument_error>([&] { m.run(with([](auto& o) { o.least = -1; })); }, "limited to [-1");
    // A negative number is a step, a decay and a D alike.
    std::vector<float> shared(96, -0.5f);
    const auto y = heads(shared.data(), {1, 2, 6, 8});
    const view<const float, 1> in_y = dense(shared.data(), {2});
    const view<const float, 3> steps = numbers(m.dt), in_rows = dense(shared.data(), {1, 2, 6});
    const auto aliases = [&](const auto& dt, const auto& A, const mamba2_options<float>& options) {
        refuses<shape_error>([&] { mamba2(m.x, dt, A, m.in, m.out, y, options); }, "o overlaps the decay in memory");
    };
    aliases(in_rows, per_head(m.A), m.options());
    aliases(steps, in_y, m.options());
    aliases(steps, per_head(m.A), {in_y, per_head(m.skip)});
    aliases(steps, per_head(m.A), {per_head(m.bias), in_y});
    m.A[1] = 0.25f;
    refuses<argument_error>([&] { m.run(m.options()); }, "mamba2: A is 0.25, the most is 0");
    m.dt = tensor<float>({1, 2, 5, 1});
    refuses<shape_error>([&] { m.run(m.options()); }, "dt has tokens 5, x has 6");
}

}  // namespace
