// The selective scan as in state-spaces/mamba's selective_scan_ref: channels before tokens in memory.
#include <heed/ops/selective_scan.hpp>
#include <heed/ref/selective_scan.hpp>

#include "replay.hpp"

namespace conformance {
namespace {

void require(bool ok, const std::string& what) {
    if (!ok) throw std::runtime_error(what);
}

/// [B, C, N] as (B, N, C).
template <class T>
view<T, 3> by_token(T* data, const array& x) {
    const index_t C = x.shape[1], N = x.shape[2];
    return {data, {x.shape[0], N, C}, {C * N, 1, N}};
}
/// [B, S, N] or [B, G, S, N] as (B, N, G, S); [C, S], the same for all tokens, as (B, N, C, S).
template <class T>
view<const T, 4> grouped(const T* data, const array& x, index_t B, index_t N) {
    require(x.rank() >= 2 && x.rank() <= 4, "B and C are [B, S, N], [B, G, S, N] or [C, S]");
    if (x.rank() == 2) return {data, {B, N, x.shape[0], x.shape[1]}, {0, 0, x.shape[1], 1}};
    const index_t G = x.rank() == 3 ? 1 : x.shape[1], S = x.shape[x.shape.size() - 2];
    require(x.shape[0] == B && x.shape.back() == N, "B and C have the batch and tokens of u");
    return {data, {B, N, G, S}, {G * S * N, 1, S * N, N}};
}
/// x with `groups` groups, each of its own repeated, in memory of the second.
template <class T>
view<const T, 4> repeated(const view<const T, 4>& x, index_t groups, std::vector<T>& memory) {
    const auto [B, N, G, S] = x.shape;
    if (G == groups) return x;
    memory.resize(static_cast<std::size_t>(B * N * groups * S));
    const auto to = dense(memory.data(), {B, N, groups, S});
    for (index_t b = 0; b < B; ++b)
        for (index_t n = 0; n < N; ++n)
            for (index_t g = 0; g < groups; ++g)
                for (index_t s = 0; s < S; ++s) to(b, n, g, s) = x(b, n, g * G / groups, s);
    return to;
}

/// The operands of a case in R.
template <class R>
struct operands {
    const array &u, &delta, &decay, &in, &out;
    const array *skip, *gate, *bias;
    std::vector<R> u_, delta_, decay_, in_, out_, skip_, gate_, bias_, y, state, repeated_in, repeated_out;
    bool softplus;
    index_t B, C, N, S;
    view<const R, 4> ins, outs;  // B and C, of as many groups

    explicit operands(golden_case& g)
        : u(g.needed("u")),
          delta(g.needed("delta")),
          decay(g.needed("A")),
          in(g.needed("B")),
          out(g.needed("C")),
          skip(g.input("D")),
          gate(g.input("z")),
          bias(g.input("delta_bias")) {
        const std::string layout = g.text("layout");
        g.take_remarks();
        g.text("return_last_state");  // without effect on values
        require(layout.empty() || layout.rfind("u,delta,z:[B,D,L];_A:[D,N];", 0) == 0, "no layout " + layout);
        require(u.rank() == 3 && decay.rank() == 2, "u is [B, C, N] and A [C, S]");
        B = u.shape[0], C = u.shape[1], N = u.shape[2], S = decay.shape[1];
        require(delta.shape == u.shape && (!gate || gate->shape == u.shape), "delta and z have the shape of u");
        u_ = u.as<R>(), delta_ = delta.as<R>(), decay_ = decay.as<R>(), in_ = in.as<R>(), out_ = out.as<R>();
        if (skip) skip_ = skip->as<R>();
        if (gate) gate_ = gate->as<R>();
        if (bias) bias_ = bias->as<R>();
        softplus = g.flag("delta_softplus", false);
        y.resize(u_.size());
        state.resize(static_cast<std::size_t>(B * C * S));
        if (const array* first = g.input("initial_state")) {
            require(first->shape == std::vector<index_t>{B, C, S}, "initial_state is [B, C, S]");
            state = first->as<R>();
        }
        ins = grouped(in_.data(), in, B, N), outs = grouped(out_.data(), out, B, N);
        const index_t one = ins.shape[2], other = outs.shape[2];
        require(one > 0 && C % one == 0 && other > 0 && C % other == 0, "the groups of B and C divide the channels");
        const index_t groups = one % other == 0 ? one : other % one == 0 ? other : C;
        ins = repeated(ins, groups, repeated_in), outs = repeated(outs, groups, repeated_out);
    }
    view<const R, 3> seq(const std::vector<R>& x) const { return by_token(x.data(), u); }
    view<const R, 1> vec(const std::vector<R>& x) const { return {x.data(), {C}, {1}}; }
    view<const R, 2> decays() const { return dense(static_cast<const R*>(decay_.data()), {C, S}); }
    view<R, 3> carried() { return dense(state.data(), {B, C, S}); }
    view<R, 3> result() { return by_token(y.data(), u); }
};

template <class R>
void run_reference(operands<R>& x) {
    ref::selective_options<R> with;
    if (x.bias) with.bias = x.vec(x.bias_);
    if (x.skip) with.skip = x.vec(x.skip_);
    if (x.gate) with.gate = x.seq(x.gate_);
    with.state = x.carried();
    with.softplus = x.softplus;
    ref::selective_scan<R>(x.seq(x.u_), x.seq(x.delta_), x.decays(), x.ins, x.outs, x.result(), with);
}

template <class R>
void run_heed(operands<R>& x) {
    const auto vec = [&](const array* given, const std::vector<R>& v) { return given ? x.vec(v) : view<const R, 1>{}; };
    selective_scan(x.seq(x.u_), x.seq(x.delta_), x.decays(), x.ins, x.outs, x.result(), softplus_step{x.softplus},
                   step_bias{vec(x.bias, x.bias_)}, skip{vec(x.skip, x.skip_)},
                   gate{x.gate ? x.seq(x.gate_) : view<const R, 3>{}}, carry{x.carried()});
}

template <class R>
double replay(golden_case& g, engine by) {
    const double tolerance = tolerance_of(g.needed("u").type);
    const auto check = [&](const auto& x) {
        const array *y = g.output("y"), *last = g.output("last_state");
        require(y, "the output y is missing");
        const double worst = compare("y", x.u.shape, x.y, *y, tolerance);
        return last ? std::max(worst, compare("last_state", {x.B, x.C, x.S}, x.state, *last, tolerance)) : worst;
    };
    if (by == engine::reference) {
        operands<double> x(g);
        run_reference(x);
        return check(x);
    }
    operands<R> x(g);
    run_heed(x);
    return check(x);
}

}  // namespace

double replay_selective_scan(golden_case& g, engine by) {
    return g.needed("u").type == "float64" ? replay<double>(g, by) : replay<float>(g, by);
}

}  // namespace conformance
