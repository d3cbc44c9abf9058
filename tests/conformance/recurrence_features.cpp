// Ops of flash-linear-attention's naive code that map q and k, or divide by what values of one would give:
//   o = sum_j a_ij v_j / (sum_j a_ij + eps),  a = x (linear_attn), 1 + x + x^2 / 2 (based), x^2 (rebased); x = scale
//   q.k
#include "fla_inputs.hpp"

namespace conformance {
namespace {

using filled = recurrence_call<float>;

/// Rows f(row), of `width` numbers.
template <class F>
operand<float> mapped(const operand<float>& x, index_t width, F&& f) {
    auto y = made<float>({x.at.shape[0], x.at.shape[1], x.at.shape[2], width});
    for (index_t b = 0; b < x.at.shape[0]; ++b)
        for (index_t h = 0; h < x.at.shape[1]; ++h)
            for (index_t n = 0; n < x.at.shape[2]; ++n) f(&x.at(b, h, n, 0), &y.at(b, h, n, 0));
    return y;
}

/// phi(x) . phi(y) = 1 + x.y + (x.y)^2 / 2, or its last term, doubled.
operand<float> powers(const operand<float>& x, bool all) {
    const index_t D = x.at.shape[3];
    return mapped(x, all ? 1 + D + D * D : D * D, [=](const float* row, float* y) {
        if (all) {
            *y++ = 1;
            y = std::copy(row, row + D, y);
        }
        const double part = all ? std::sqrt(0.5) : 1.0;
        for (index_t d = 0; d < D; ++d)
            for (index_t e = 0; e < D; ++e) *y++ = static_cast<float>(part * static_cast<double>(row[d]) * row[e]);
    });
}

operand<float> with_a_column(const operand<float>& x, const std::function<float(index_t, index_t, index_t)>& column) {
    const index_t E = x.at.shape[3];
    return made_by<float>(
        {x.at.shape[0], x.at.shape[1], x.at.shape[2], E + 1},
        [&](index_t b, index_t h, index_t n, index_t e) { return e < E ? x.at(b, h, n, e) : column(b, h, n); });
}

}  // namespace

double replay_features(golden_case& g, engine by) {
    fla_inputs in(g);
    filled c;
    in.qkv(c);
    const bool linear = g.op() == "linear_attn";
    const bool divides = linear ? g.integer("normalize", 0) != 0 : g.integer("use_norm", 1) != 0;
    if (!linear) {
        const double scale = c.scale;
        for (float& x : c.q.data) x = static_cast<float>(scale * static_cast<double>(x));
        c.scale = 1;
        c.q = powers(c.q, g.op() == "based");
        c.k = powers(c.k, g.op() == "based");
    }
    c.state = in.state({"h0", "initial_state"});
    const index_t E = c.v.at.shape[3];
    if (divides) {
        const auto z = in.state({"z0", "z_init"});
        c.v = with_a_column(c.v, [](index_t, index_t, index_t) { return 1.0f; });
        if (c.state.at.data)
            c.state = with_a_column(c.state, [&](index_t b, index_t h, index_t d) {
                return z.at.data ? z.at(b, 0, h, d) : 0.0f;  // (B, 1, H, D)
            });
    }
    c.finish(in.tokens_first());
    run_recurrence(c, by);

    const double eps = linear ? 1e-10 : 1e-6;
    const auto shape = c.o.at.shape;
    auto o = made<float>({shape[0], shape[1], shape[2], E}, in.tokens_first());
    for (index_t b = 0; b < shape[0]; ++b)
        for (index_t h = 0; h < shape[1]; ++h)
            for (index_t n = 0; n < shape[2]; ++n)
                for (index_t e = 0; e < E; ++e) {
                    const double y = c.o.at(b, h, n, e), z = divides ? c.o.at(b, h, n, E) + eps : 1;
                    o.at(b, h, n, e) = static_cast<float>(y / z);
                }
    const auto S = made_by<float>({shape[0], c.state.at.shape[1], c.state.at.shape[2], E},
                                  [&](index_t b, index_t h, index_t d, index_t e) { return c.state.at(b, h, d, e); });
    double worst = std::max(in.compare({"o"}, o), in.compare({"ht", "final_state"}, S, true));
    if (divides) {  // the sums of keys, (B, 1, H, D)
        const auto [B, H, D, columns] = c.state.at.shape;
        const auto z = made_by<float>({B, 1, H, D}, [&, at = c.state.at](index_t b, index_t, index_t h, index_t d) {
            return at(b, h, d, E);
        });
        worst = std::max(worst, in.compare({"zt", "z_final"}, z, true));
    }
    return worst;
}

}  // namespace conformance
