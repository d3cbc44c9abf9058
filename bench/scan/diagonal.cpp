// Gated diagonal recurrences, a state a channel: what they move decides.
#include <heed/ref/modes.hpp>

#include "../support/crew.hpp"
#include "scanner.hpp"

namespace bench {
namespace {

/// Inputs x, r, i, gates g <= 0 and a constant of each channel.
template <class S>
struct diagonal_operands {
    sequence_of<S> x, r, i, g;
    sequence_of<float> lambda, ones;
    explicit diagonal_operands(const scan_shape& s)
        : x(s.N, s.C, 1, -1, 1),
          r(s.N, s.C, 2, -3, 3),
          i(s.N, s.C, 3, -3, 3),
          g(s.N, s.C, 4, -1, 0),
          lambda(1, s.C, 5, -3, 1),
          ones(1, s.C, 6, 1, 1) {}
};

/// An operator: how heed runs it, what defines it, and how many sequences it moves.
struct hgrn_op {
    static constexpr const char* name = "hgrn";
    static constexpr int moves = 3;
    static void run(const auto& k, const auto& y, const auto&... more) { hgrn(k.x.v(), k.g.v(), y, more...); }
    template <class R>
    static ref::linear_step<R> step(const auto& k, index_t t, index_t c) {
        return ref::hgrn(static_cast<R>(k.x.v()(0, t, c)), static_cast<R>(k.g.v()(0, t, c)));
    }
};
struct rg_lru_op {
    static constexpr const char* name = "rg_lru";
    static constexpr int moves = 4;
    static void run(const auto& k, const auto& y, const auto&... more) {
        rg_lru(k.x.v(), k.r.v(), k.i.v(), k.lambda.row(), y, more...);
    }
    template <class R>
    static ref::linear_step<R> step(const auto& k, index_t t, index_t c) {
        return ref::rg_lru(static_cast<R>(k.x.v()(0, t, c)), static_cast<R>(k.r.v()(0, t, c)),
                           static_cast<R>(k.i.v()(0, t, c)), static_cast<R>(k.lambda.row()(c)));
    }
};

/// The average of one state, whose parameters are the constant of the channel, read as it is.
struct ema_op {
    static constexpr const char* name = "ema";
    static constexpr int moves = 2;
    static void run(const auto& k, const auto& y, const auto&... more) {
        const auto column = [](const view<const float, 1>& x) {
            return view<const float, 2>{x.data, {x.shape[0], 1}, {1, 1}};
        };
        const auto p = column(k.lambda.row());
        ema(k.x.v(), ema_parameters{p, p, p, column(k.ones.row())}, y, more...);
    }
    template <class R>
    static ref::linear_step<R> step(const auto& k, index_t t, index_t c) {
        const R p = static_cast<R>(k.lambda.row()(c));
        const auto m = ref::ema_mode<R>(p, p, p, 1, 1);
        return {m.a, m.b * static_cast<R>(k.x.v()(0, t, c))};
    }
};

template <class Op, class S>
auto operands_of(const scan_shape& s) {
    struct with_exact {
        diagonal_operands<S> k;
        sequence_of<double> exact;
    };
    return at_hand(std::string(Op::name) + typeid(S).name() + s.name(), [&] {
        with_exact all{diagonal_operands<S>(s), sequence_of<double>(s.N, s.C)};
        ref::diagonal<double>(all.exact.v(),
                              [&](index_t, index_t t, index_t c) { return Op::template step<double>(all.k, t, c); });
        return all;
    });
}
template <class Op, class S>
double bytes_moved(const scan_shape& s) {
    return static_cast<double>(Op::moves * s.N * s.C * static_cast<index_t>(sizeof(S)));
}
double amount(const scan_shape& s) { return 2 * static_cast<double>(s.N) * static_cast<double>(s.C); }

template <class Op, class S>
prepared heed(const scan_shape& s) {
    const auto x = operands_of<Op, S>(s);
    const auto y = std::make_shared<sequence_of<S>>(s.N, s.C);
    const auto pool = std::make_shared<threads>(s.threads);
    const auto run = [=] { Op::run(std::as_const(x->k), y->v(), on{*pool}); };
    return judged(*y, x->exact, run, amount(s), bytes_moved<Op, S>(s));
}

template <class Op>
prepared naive(const scan_shape& s) {
    const auto x = operands_of<Op, float>(s);
    const auto y = std::make_shared<sequence_of<float>>(s.N, s.C);
    const index_t block = ceil_div(s.C, s.threads);
    const job run = over_tasks<float>(s.threads, s.threads, block, [x, y, s, block](index_t task, float* h) {
        std::fill_n(h, block, 0.0f);
        const range own{task * block, std::min(s.C, (task + 1) * block)};
        for (index_t t = 0; t < s.N; ++t)
            for (index_t c = own.first; c < own.last; ++c) {
                const auto by = Op::template step<float>(x->k, t, c);
                float& state = h[c - own.first];
                y->v()(0, t, c) = state = by.a * state + by.b;
            }
    });
    return judged(*y, x->exact, run, amount(s), bytes_moved<Op, float>(s));
}

template <class Op>
void add(std::vector<scanner>& list) {
    list.push_back({Op::name, "f32", "heed", heed<Op, float>});
    list.push_back({Op::name, "bf16", "heed", heed<Op, bf16>});
    list.push_back({Op::name, "f32", "naive", naive<Op>});
}

}  // namespace

std::vector<scanner> diagonal_scanners() {
    std::vector<scanner> list;
    add<hgrn_op>(list);
    add<rg_lru_op>(list);
    add<ema_op>(list);
    return list;
}

}  // namespace bench
