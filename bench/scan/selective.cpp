// The selective scan with all its options, by heed and by plain loops; and exponentials alone, which bound it.
#include <heed/ref/selective_scan.hpp>

#include "../support/crew.hpp"
#include "scanner.hpp"

namespace bench {
namespace {

/// Operands of one sequence, steps of about 0.1 as trained models have them, and what is exact.
template <class S>
struct selective_operands {
    sequence_of<S> u, delta, gate, in, out;
    sequence_of<float> decay, skip, bias;
    sequence_of<double> exact;

    explicit selective_operands(const scan_shape& s)
        : u(s.N, s.C, 1, -1, 1),
          delta(s.N, s.C, 2, -4, -1),
          gate(s.N, s.C, 3, -2, 2),
          in(s.N, s.S, 4, -1, 1),
          out(s.N, s.S, 5, -1, 1),
          decay(s.C, s.S),
          skip(1, s.C, 6, -1, 1),
          bias(1, s.C, 7, -0.5, 0.5),
          exact(s.N, s.C) {
        for (index_t i = 0; i < s.C * s.S; ++i) decay.v().data[i] = -static_cast<float>(i % s.S + 1);
        const auto du = u.exactly(), dd = delta.exactly(), dz = gate.exactly(), db = in.exactly(), dc = out.exactly(),
                   da = decay.exactly(), dk = skip.exactly(), dp = bias.exactly();
        const auto read = [](const sequence_of<double>& x) { return x.v(); };
        const auto shared = [&](const sequence_of<double>& x) {
            return view<const double, 4>{x.v().data, {1, s.N, 1, s.S}, {0, s.S, 0, 1}};
        };
        ref::selective_options<double> with;
        with.bias = dp.row(), with.skip = dk.row(), with.gate = read(dz), with.softplus = true;
        ref::selective_scan<double>(read(du), read(dd), da.rows(), shared(db), shared(dc), exact.v(), with);
    }
};
template <class S>
std::shared_ptr<selective_operands<S>> operands_of(const scan_shape& s) {
    return at_hand("selective " + std::string(typeid(S).name()) + std::to_string(s.N) + " " + std::to_string(s.C) +
                       " " + std::to_string(s.S),
                   [&] { return selective_operands<S>(s); });
}
double amount(const scan_shape& s) { return static_cast<double>(s.N) * static_cast<double>(s.C * s.S); }
template <class S>
double bytes_moved(const scan_shape& s) {
    return static_cast<double>((4 * s.N * s.C + 2 * s.N * s.S) * static_cast<index_t>(sizeof(S)));
}

template <class S, class... P>
prepared heed_in_form(const scan_shape& s, const P&... form) {
    const auto x = operands_of<S>(s);
    const auto y = std::make_shared<sequence_of<S>>(s.N, s.C);
    const auto pool = std::make_shared<threads>(s.threads);
    const auto run = [=] {
        const auto& k = std::as_const(*x);
        selective_scan(k.u.v(), k.delta.v(), k.decay.rows(), k.in.v(), k.out.v(), y->v(), softplus_step{},
                       step_bias{k.bias.row()}, skip{k.skip.row()}, gate{k.gate.v()}, on{*pool}, form...);
    };
    return judged(*y, x->exact, run, 6 * amount(s), bytes_moved<S>(s));
}
template <class S>
prepared heed(const scan_shape& s) {
    return heed_in_form<S>(s);
}
/// A segment for each of the crew, as one narrow sequence wants it.
prepared segments(const scan_shape& s) { return heed_in_form<float>(s, chunked{ceil_div(s.N, s.threads)}); }

prepared naive(const scan_shape& s) {
    const auto x = operands_of<float>(s);
    const auto y = std::make_shared<sequence_of<float>>(s.N, s.C);
    constexpr index_t block = 64;
    const job run = over_tasks<float>(s.threads, ceil_div(s.C, block), block * s.S, [x, y, s](index_t task, float* h) {
        std::fill_n(h, block * s.S, 0.0f);
        const auto& k = std::as_const(*x);
        for (index_t t = 0; t < s.N; ++t)
            for (index_t c = task * block; c < std::min(s.C, (task + 1) * block); ++c) {
                const float u = k.u.v()(0, t, c), z = k.gate.v()(0, t, c);
                const float d = std::log1p(std::exp(k.delta.v()(0, t, c) + k.bias.row()(c)));
                float sum = k.skip.row()(c) * u;
                for (index_t n = 0; n < s.S; ++n) {
                    float& state = h[(c - task * block) * s.S + n];
                    state = std::exp(d * k.decay.rows()(c, n)) * state + d * k.in.v()(0, t, n) * u;
                    sum += k.out.v()(0, t, n) * state;
                }
                y->v()(0, t, c) = sum * z / (1 + std::exp(-z));
            }
    });
    return judged(*y, x->exact, run, 6 * amount(s), bytes_moved<float>(s));
}

/// As many exponentials as a selective scan has, of numbers in the first-level cache: what the machine can do at best.
prepared exponentials(const scan_shape& s) {
    using P = pack<float>;
    constexpr index_t at_once = 2048;
    const auto x = std::make_shared<std::vector<float>>(static_cast<std::size_t>(at_once));
    for (index_t i = 0; i < at_once; ++i) (*x)[static_cast<std::size_t>(i)] = -static_cast<float>(i % 64);
    const job run = over_tasks<float>(s.threads, ceil_div(s.N * s.C * s.S, at_once), at_once, [x](index_t, float* y) {
        for (index_t i = 0; i < at_once; i += 4 * P::size)
            unroll<4>([&](auto j) HEED_INLINE_LAMBDA {
                const auto at = i + j * static_cast<index_t>(P::size);
                store(y + at, exp2_nonpositive(load<P>(x->data() + at)));
            });
    });
    return {.run = run, .flops = amount(s)};
}

}  // namespace

std::vector<scanner> selective_scanners() {
    return {{"selective", "f32", "heed", heed<float>},
            {"selective", "bf16", "heed", heed<bf16>},
            {"selective.segments", "f32", "heed", segments},
            {"selective", "f32", "naive", naive},
            {"exponentials", "f32", "heed", exponentials}};
}

}  // namespace bench
