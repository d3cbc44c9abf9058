// Over 1,048,576 tokens a recurrence in float stays as close to double as after the first of them, and no further from
// it than the rule for values allows.
#include "recurs.hpp"

using namespace test;

namespace {

constexpr index_t D = 8, E = 8, piece = 16384, pieces = 64, rows = 2048;  // of a piece are compared, its last ones
constexpr float head_log = -1.0f / 64;

/// The recurrence of one head in plain loops: S (D, E) goes on from piece to piece.
template <class Real>
struct plain_loops {
    unsigned parts;
    Real S[D][E] = {};
    tensor<Real> o{{1, 1, piece, E}};

    void run(const recurrence_data<float>& x) {
        const auto gate = [&](index_t n, index_t d) {
            if (parts & by_channel) return std::exp(static_cast<Real>(x.channel(0, 0, n, d)));
            return std::exp(static_cast<Real>(parts & by_token ? x.token(0, 0, n, 0) : head_log));
        };
        const Real scale = 1 / std::sqrt(static_cast<Real>(D));
        for (index_t n = 0; n < piece; ++n) {
            Real q[D], k[D], v[E], held[E] = {}, read[E] = {}, a = gate(n, 0);
            for (index_t d = 0; d < D; ++d) {
                q[d] = static_cast<Real>(x.q(0, 0, n, d)), k[d] = static_cast<Real>(x.k(0, 0, n, d));
                if (parts & by_channel) a = gate(n, d);
                for (index_t e = 0; e < E; ++e) held[e] += k[d] * (S[d][e] *= a);
            }
            for (index_t e = 0; e < E; ++e) {
                v[e] = static_cast<Real>(x.v(0, 0, n, e));
                if (parts & delta) v[e] = static_cast<Real>(x.beta(0, 0, n, 0)) * (v[e] - held[e]);
            }
            for (index_t d = 0; d < D; ++d)
                for (index_t e = 0; e < E; ++e) read[e] += q[d] * (S[d][e] += k[d] * v[e]);
            for (index_t e = 0; e < E; ++e) o(0, 0, n, e) = scale * read[e];
        }
    }
};

template <class T>
tensor<std::remove_const_t<T>> last_rows(const tensor<T>& t) {
    return copied(slice(t.v(), 2, {piece - rows, piece}));
}

/// A form of the engine, its state and its largest error in each piece.
struct contest {
    const char* name;
    state<float> carried{1, 1, D, E};
    std::vector<double> errors = {};

    template <class... P>
    tensor<float> run(const recurrence_data<float>& x, const plain_loops<double>& exact, const P&... policies) {
        tensor<float> o({1, 1, piece, E});
        recurrence(x.q, x.k, x.v, o, carried, policies...);
        const auto got = last_rows(o);
        const auto wanted = last_rows(exact.o);
        double worst = 0;
        got.each([&](index_t b, index_t h, index_t n, index_t e) {
            const double off = std::abs(double(got(b, h, n, e)) - wanted(b, h, n, e));
            worst = off > worst || off != off ? off : worst;  // a NaN stays
        });
        EXPECT_FALSE(std::isnan(worst));
        errors.push_back(worst);
        return got;
    }
    /// The errors of the last quarter are those of the first.
    void stays_bounded() const {
        SCOPED_TRACE(name);
        const auto worst = [&](std::size_t first) {
            return *std::max_element(errors.begin() + static_cast<index_t>(first),
                                     errors.begin() + static_cast<index_t>(first + pieces / 4));
        };
        EXPECT_LT(worst(pieces - pieces / 4), 2 * worst(0));
        EXPECT_LT(worst(pieces - pieces / 4), 1e-4);
    }
};

/// A kind of recurrence: token by token, within the rule, and in chunks, which another loop would be the measure of.
struct kind {
    unsigned parts;
    contest stepped, blocks;
    plain_loops<float> naive{parts};
    plain_loops<double> exact{parts};

    template <class... P>
    void run(const recurrence_data<float>& x, const P&... policies) {
        naive.run(x), exact.run(x);
        SCOPED_TRACE(testing::Message() << stepped.name << ", piece " << stepped.errors.size());
        const auto got = stepped.run(x, exact, policies..., recurrent{});
        EXPECT_TRUE(within_rule<float>(got, last_rows(naive.o), last_rows(exact.o)));
        blocks.run(x, exact, policies..., chunked{64});
    }
};

TEST(recurrence_length, a_million_tokens_are_as_near_to_double_as_the_first) {
    kind head{by_head, {"a number a head"}, {"a number a head, chunks"}};
    kind token{by_token, {"a number a token"}, {"a number a token, chunks"}};
    kind channel{by_channel, {"a number a channel"}, {"a number a channel, chunks"}};
    kind erasing{by_token | delta, {"gated delta rule"}, {"gated delta rule, chunks"}};
    const std::vector<float> logs{head_log};
    std::vector<recurrence_data<float>> tokens;  // in turns
    for (std::uint64_t seed : {100, 200, 300}) {
        auto& x = tokens.emplace_back(recurrence_sizes{1, 1, 1, 1, piece, D, E}, seed);
        for (auto* g : {&x.token, &x.channel})  // memories of some hundred tokens
            g->each([&](index_t b, index_t h, index_t n, index_t d) { (*g)(b, h, n, d) /= 64; });
    }
    for (index_t i = 0; i < pieces; ++i) {
        const auto& x = tokens[static_cast<std::size_t>(i) % tokens.size()];
        head.run(x, head_decay{logs});
        token.run(x, x.token_gate());
        channel.run(x, x.channel_gate());
        erasing.run(x, x.token_gate(), x.delta_update());
    }
    for (const kind* one : {&head, &token, &channel, &erasing}) {
        one->stepped.stays_bounded();
        one->blocks.stays_bounded();
    }
}

}  // namespace
