// The state-space dual of mamba's minimal code: a recurrence over q = C, k = B, v = dt x with decay dt A, in float32.
#include "recurrence_call.hpp"

namespace conformance {

double replay_mamba2(golden_case& g, engine by) {
    g.text("layout", ""), g.text("state", "");  // prose
    g.integer("chunk_size", 0);
    const array &X = g.needed("x"), &DT = g.needed("dt"), &A = g.needed("A"), &B = g.needed("B"), &C = g.needed("C");
    require(X.rank() == 4 && DT.rank() == 3 && A.rank() == 1, "x, dt, A are not (B, T, H, P), (B, T, H), (H)");
    const index_t batch = X.shape[0], T = X.shape[1], H = X.shape[2], P = X.shape[3];
    // (B, T, N) of one group or (B, T, G, N)
    const auto grouped = [&](const array& a, const char* name) {
        return operand_of<float>(a, a.rank() == 3 ? 1 : 0, name);
    };
    const auto turned = [&](operand<float> x) {
        if (B.rank() == 4) x.at = tokens(x.data.data(), {batch, T, B.shape[2], B.shape[3]});
        return x;
    };
    recurrence_call<float> c;
    c.q = turned(grouped(C, "C"));
    c.k = turned(grouped(B, "B"));
    const auto x = X.as<float>(), dt = DT.as<float>(), a = A.as<float>();
    const auto step = [&](index_t b, index_t h, index_t t) {
        return dt[static_cast<std::size_t>((b * T + t) * H + h)];
    };
    c.v = made_by<float>({batch, H, T, P}, [&](index_t b, index_t h, index_t t, index_t p) {
        return step(b, h, t) * x[static_cast<std::size_t>(((b * T + t) * H + h) * P + p)];
    });
    c.decay = made_by<float>({batch, H, T, 1}, [&](index_t b, index_t h, index_t t, index_t) {
        return step(b, h, t) * a[static_cast<std::size_t>(h)];
    });
    const index_t N = c.k.at.shape[3];
    const array* initial = g.input("initial_states");
    if (initial) {
        const auto s = operand_of<float>(*initial, 0, "initial_states");
        c.state = made_by<float>({batch, H, N, P},
                                 [&](index_t b, index_t h, index_t n, index_t p) { return s.at(b, h, p, n); });
    }
    c.finish(true);
    run_recurrence(c, by);

    const auto last = made_by<float>(
        {batch, H, P, N}, [&](index_t b, index_t h, index_t p, index_t n) { return c.state.at(b, h, n, p); });
    const array *y = g.output("y"), *state = g.output("last_state");
    require(y, "output y is missing");
    double worst = compare("y", X.shape, c.o.data, *y, tolerance_of(y->type));
    if (state)
        worst = std::max(worst, compare("last_state", {batch, H, P, N}, last.data, *state, tolerance_of(state->type)));
    return worst;
}

}  // namespace conformance
