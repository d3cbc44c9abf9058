// Layers and mixers made of several calls, by length: what a moving average, a codebook or a bank of slots spares of
// causal attention (Mega in chunks of 128 and whole, SeqBoat by its share of active tokens, LongVQ, GAM), and what the
// order of an image costs. Judged by the same layer in double, which the tests compare with its definition.
#include "scanner.hpp"

namespace bench {
namespace {

/// The operands of a layer by number.
template <class S>
struct operands {
    std::vector<sequence_of<S>> all;
    const sequence_of<S>& operator[](std::size_t i) const { return all[i]; }
    operands<double> exactly() const {
        operands<double> x;
        for (const auto& each : all) x.all.push_back(each.exactly());
        return x;
    }
};
/// Collects operands: rows of a sequence, and matrices that keep what they multiply of its size.
struct drawing {
    operands<float> x;
    drawing& tokens(index_t N, index_t C) {
        x.all.emplace_back(N, C, x.all.size(), -1, 1);
        return *this;
    }
    drawing& matrix(index_t inputs, index_t outputs) {
        const double spread = std::sqrt(3.0 / static_cast<double>(inputs));
        x.all.emplace_back(inputs, outputs, x.all.size(), -spread, spread);
        return *this;
    }
    drawing& average(index_t C, index_t S) { return tokens(C, S).tokens(C, S).tokens(C, S).tokens(C, S); }
};
template <class S>
ema_parameters<S> average_of(const operands<S>& x, std::size_t first) {
    return {x[first].rows(), x[first + 1].rows(), x[first + 2].rows(), x[first + 3].rows()};
}
double per_token(std::initializer_list<index_t> multiply_adds) {
    double sum = 0;
    for (index_t n : multiply_adds) sum += 2 * static_cast<double>(n);
    return sum;
}

constexpr index_t Z = 64;  // width of queries and keys; values are twice as wide as the layer

/// In chunks, or of all tokens if Chunk is 0.
template <index_t Chunk>
struct mega_op {
    static constexpr const char* name = Chunk ? "mega.chunk128" : "mega";
    static operands<float> draw(const scan_shape& s) {
        const index_t C = s.C, H = 2 * C;
        drawing d;
        d.tokens(s.N, C).tokens(s.N, C).average(C, s.S).tokens(1, C);
        d.matrix(C, 2 * C + Z + H).tokens(1, 2 * C + Z + H).matrix(C, H).tokens(1, H);
        for (int i = 0; i < 4; ++i) d.tokens(1, Z);
        return d.matrix(H, C).tokens(1, C).x;
    }
    template <class S>
    static void run(const operands<S>& x, const scan_shape&, const view<S, 3>& y, const auto& context) {
        const mega_parameters<S> with{average_of(x, 2), x[6].row(),  x[7].rows(),  x[8].row(),
                                      x[9].rows(),      x[10].row(), x[11].row(),  x[12].row(),
                                      x[13].row(),      x[14].row(), x[15].rows(), x[16].row()};
        if constexpr (Chunk > 0)
            mega(x[0].v(), x[1].v(), with, y, causal{} & chunk{Chunk}, context);
        else
            mega(x[0].v(), x[1].v(), with, y, causal{}, context);
    }
    static double flops(const scan_shape& s) {
        const index_t C = s.C, H = 2 * C, seen = (Chunk ? std::min(Chunk, s.N) : s.N) / 2;
        return per_token({C * (2 * C + Z + H), C * H, H * C, seen * (Z + H), 3 * C * s.S});
    }
};

/// So many percent of the tokens active, a window of 128 of them.
template <int Percent>
struct seqboat_op {
    static constexpr index_t near = 128;
    static inline const std::string title = "seqboat.active" + std::to_string(Percent);
    static constexpr const char* name = nullptr;
    static operands<float> draw(const scan_shape& s) {
        const index_t C = s.C, H = 2 * C;
        drawing d;
        d.tokens(s.N, C).tokens(s.N, C).average(C, s.S).tokens(1, C);
        d.matrix(C, C + 2).tokens(1, C + 2).matrix(C, Z + 2 * H).tokens(1, Z + 2 * H);
        for (int i = 0; i < 4; ++i) d.tokens(1, Z);
        d.matrix(H, C).tokens(1, C);
        // The bias of the gate is the quantile of what it is added to, by halving.
        sequence_of<float> y(s.N, C);
        const view<float, 3> gates = d.x.all[8].v();
        float low = -8, high = 8;
        for (int i = 0; i < 16; ++i) {
            gates(0, 0, 0) = 0, gates(0, 0, 1) = (low + high) / 2;
            const auto counts = seqboat(d.x[0].v(), d.x[1].v(), parameters(d.x), active_window{near}, y.v());
            (100 * counts[0] < Percent * s.N ? low : high) = (low + high) / 2;
        }
        if (Percent == 100) gates(0, 0, 1) = 100;
        return d.x;
    }
    template <class S>
    static seqboat_parameters<S> parameters(const operands<S>& x) {
        return {average_of(x, 2), x[6].row(),  x[7].rows(), x[8].row(),  x[9].rows(),  x[10].row(),
                x[11].row(),      x[12].row(), x[13].row(), x[14].row(), x[15].rows(), x[16].row()};
    }
    template <class S>
    static void run(const operands<S>& x, const scan_shape&, const view<S, 3>& y, const auto& context) {
        seqboat(x[0].v(), x[1].v(), parameters(x), active_window{near}, y, context);
    }
    static double flops(const scan_shape& s) {
        const index_t C = s.C, H = 2 * C;
        return per_token({C * (C + 2), 3 * C * s.S}) +
               per_token({C * (Z + 2 * H), H * C, std::min(near, s.N) * (Z + H)}) * Percent / 100;
    }
};

/// S slots.
struct gam_op {
    static constexpr const char* name = "gated_memory";
    static operands<float> draw(const scan_shape& s) {
        drawing d;
        for (int i = 0; i < 3; ++i) d.tokens(s.N, s.C);
        return d.matrix(s.S, s.C).tokens(s.C, 3).x;
    }
    template <class S>
    static void run(const operands<S>& x, const scan_shape&, const view<S, 3>& y, const auto& context) {
        gated_memory(x[0].v(), x[3].rows(), x[4].rows(), x[1].v(), x[2].v(), y, context);
    }
    static double flops(const scan_shape& s) { return per_token({2 * s.S * s.C, 3 * s.C}); }
};

/// S codes, blocks of 128, heads of 64 channels.
struct vq_op {
    static constexpr const char* name = "vq_attention";
    static constexpr index_t D = 64, block = 128;
    static operands<float> draw(const scan_shape& s) {
        drawing d;
        d.tokens(s.N, s.C).tokens(s.N, s.C).tokens(s.C / D * s.S, D);
        return d.x;
    }
    template <class S>
    static void run(const operands<S>& x, const scan_shape& s, const view<S, 3>& y, const auto& context) {
        static std::vector<index_t> memory;
        const index_t H = s.C / D;
        if (static_cast<index_t>(memory.size()) != H * s.N) {
            memory.clear();
            const counter_random random(9);
            for (index_t i = 0; i < H * s.N; ++i)
                memory.push_back(random.integer(static_cast<std::uint64_t>(i), 0, s.S - 1));
        }
        const auto as_heads = [&](const auto& v) {
            using X = std::remove_reference_t<decltype(*v.data)>;
            return view<X>{v.data, {1, H, s.N, D}, {s.N * s.C, D, s.C, 1}};
        };
        causal_vq_attention(as_heads(x[0].v()), view<const S, 3>{x[2].v().data, {H, s.S, D}, {s.S * D, D, 1}},
                            view<const index_t, 3>(dense(memory.data(), {1, H, s.N})), as_heads(x[1].v()), as_heads(y),
                            block, identity{}, context);
    }
    static double flops(const scan_shape& s) {
        return per_token({2 * s.C * (3 * block / 2 + (s.N > 2 * block ? s.S : 0))});
    }
};

/// N frames over C states, forward and back.
struct hmm_op {
    static constexpr const char* name = "neural_hmm.posteriors";
    static operands<float> draw(const scan_shape& s) { return drawing().tokens(s.N, s.C).tokens(s.N, s.C).x; }
    template <class S>
    static void run(const operands<S>& x, const scan_shape&, const view<S, 3>& y, const auto& context) {
        double log_p = 0;
        neural_hmm_posteriors(x[0].v(), x[1].v(), y, view<double, 1>{&log_p, {1}, {1}}, context);
    }
    static double flops(const scan_shape&) { return 0; }
    /// A rounding of a log: paths that come to the end are far from the likeliest of their frame, by up to 1 a frame.
    static double tolerance(const scan_shape& s) { return static_cast<double>(s.N) * 0x1p-23; }
};

/// What an HMM takes the place of: N steps of a decoder over C states by content and location, 32 filters of 31 taps.
struct location_op {
    static constexpr const char* name = "additive_attention.location";
    static constexpr index_t D = 128, F = 32, R = 31;
    static operands<float> draw(const scan_shape& s) {
        drawing d;
        d.tokens(s.N, D).tokens(s.C, D).tokens(1, D).tokens(F, R).matrix(F, D);
        return d.x;
    }
    template <class S>
    static void run(const operands<S>& x, const scan_shape& s, const view<S, 3>& y, const auto& context) {
        std::vector<S> first(static_cast<std::size_t>(s.C)), read(D);
        view<const S, 2> before = dense(first.data(), {1, s.C});
        for (index_t t = 0; t < s.N; ++t) {
            const auto alpha = dense(&y(0, t, 0), {1, s.C});
            additive_attention(slice(x[0].rows(), 0, {t, t + 1}), x[1].v(), x[1].v(), x[2].row(), alpha,
                               dense(read.data(), {1, D}), location(before, x[3].rows(), x[4].rows()), context);
            before = alpha;
        }
    }
    static double flops(const scan_shape& s) {
        return static_cast<double>(s.C) * per_token({F * R, F * D, D, D});
    }
};

enum class walk { rows, nested_s, hilbert };
/// An image as square as its tokens allow, in another order.
template <walk By>
struct order_op {
    static constexpr const char* name = By == walk::rows       ? "reordered.rows"
                                        : By == walk::nested_s ? "reordered.nested_s"
                                                               : "reordered.hilbert";
    static operands<float> draw(const scan_shape& s) { return drawing().tokens(s.N, s.C).x; }
    template <class S>
    static void run(const operands<S>& x, const scan_shape& s, const view<S, 3>& y, const auto& context) {
        static scan_order order;
        if (static_cast<index_t>(order.size()) != s.N) {
            const auto W = static_cast<index_t>(std::sqrt(static_cast<double>(s.N)));
            order = By == walk::rows       ? row_order(s.N / W, W)
                    : By == walk::nested_s ? nested_s_order(s.N / W, W, 4)
                                           : hilbert_order(s.N / W, W);
        }
        reordered(x[0].v(), order, y, context);
    }
    static double flops(const scan_shape&) { return 0; }
};

template <class Op>
prepared by_heed(const scan_shape& s) {
    struct drawn {
        operands<float> x;
        sequence_of<double> exact;
    };
    const auto k = at_hand(std::string(typeid(Op).name()) + s.name(), [&] {
        drawn all{Op::draw(s), sequence_of<double>(s.N, s.C)};
        threads pool(2);
        Op::run(all.x.exactly(), s, all.exact.v(), on{pool});
        return all;
    });
    const auto y = std::make_shared<sequence_of<float>>(s.N, s.C);
    const auto pool = std::make_shared<threads>(s.threads);
    double bytes = 0;
    for (const auto& each : k->x.all) bytes += static_cast<double>(each.bytes().size());
    double tolerance = scan_tolerance<float>;
    if constexpr (requires { Op::tolerance(s); }) tolerance = Op::tolerance(s);
    return judged(
        *y, k->exact, [=] { Op::run(k->x, s, y->v(), on{*pool}); }, Op::flops(s) * static_cast<double>(s.N),
        bytes + static_cast<double>(y->bytes().size()), tolerance);
}
template <class Op>
void add(std::vector<measurement>& rows, const scan_shape& s) {
    std::string name;
    if constexpr (Op::name != nullptr)
        name = Op::name;
    else
        name = Op::title;
    rows.push_back(measured(scanner{name, "f32", "heed", by_heed<Op>}, s));
}

}  // namespace

/// Layers of 512 channels, averages of 16 states, 512 slots or codes; alignments to 512 states.
std::vector<measurement> layer_rows(const std::vector<index_t>& lengths, int workers) {
    std::vector<measurement> rows;
    for (index_t N : lengths) {
        add<mega_op<0>>(rows, {N, 512, 16, workers});
        add<mega_op<128>>(rows, {N, 512, 16, workers});
        add<seqboat_op<10>>(rows, {N, 512, 16, workers});
        add<seqboat_op<30>>(rows, {N, 512, 16, workers});
        add<seqboat_op<100>>(rows, {N, 512, 16, workers});
        add<gam_op>(rows, {N, 512, 512, workers});
        add<vq_op>(rows, {N, 512, 512, workers});
        add<hmm_op>(rows, {N, std::min<index_t>(N, 512), 1, workers});
        if (N <= 4096) add<location_op>(rows, {N, std::min<index_t>(N, 512), 1, workers});
        add<order_op<walk::rows>>(rows, {N, 512, 1, workers});
        add<order_op<walk::nested_s>>(rows, {N, 512, 1, workers});
        add<order_op<walk::hilbert>>(rows, {N, 512, 1, workers});
    }
    return rows;
}

}  // namespace bench
