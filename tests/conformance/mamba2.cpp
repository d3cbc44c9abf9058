// The state-space dual of mamba's minimal code, by Mamba-2's name or by its definition, in the type of x.
#include <heed/ops/mamba2.hpp>
#include <heed/ref/mamba2.hpp>

#include "operand.hpp"

namespace conformance {
namespace {

template <class R>
double replay_in(golden_case& g, engine by) {
    g.take_remarks();
    for (const char* hint : {"chunk_size", "block_len", "output_final_state"}) g.text(hint);
    const array &X = g.needed("x"), &DT = g.needed("dt"), &A = g.needed("A"), &B = g.needed("B"), &C = g.needed("C");
    require(X.rank() == 4 && DT.rank() == 3 && A.rank() == 1, "x, dt, A are not (B, T, H, P), (B, T, H), (H)");
    const index_t batch = X.shape[0], T = X.shape[1], H = X.shape[2], P = X.shape[3];
    // (B, T, N) of one group or (B, T, G, N)
    const auto grouped = [&](const array& a, const char* name) {
        auto x = operand_of<R>(a, a.rank() == 3 ? 1 : 0, name);
        if (a.rank() == 4) x.at = tokens(x.data.data(), {batch, T, a.shape[2], a.shape[3]});
        return x;
    };
    const auto in = grouped(B, "B"), out = grouped(C, "C");
    const index_t N = in.at.shape[3];
    const auto x = X.as<R>(), steps = DT.as<R>(), decay = A.as<R>();
    const array* D = g.input("D");
    require(!D || D->shape == A.shape, "D is (H)");
    const auto through = D ? D->as<R>() : std::vector<R>();
    const view<const R, 1> skip = D ? dense(through.data(), {H}) : view<const R, 1>{};
    const auto values = tokens(x.data(), {batch, T, H, P});
    const view<const R, 3> dt{steps.data(), {batch, H, T}, {T * H, 1, H}};
    const auto a = dense(decay.data(), {H});
    auto y = made<R>(values.shape, true);
    auto S = made<R>({batch, H, N, P});
    for (const char* name : {"initial_states", "initial_state", "h0"}) {
        const array* initial = g.input(name);
        if (!initial) continue;
        array held = *initial;  // (B, H, P, N), or (B, 1, H, P, N)
        if (held.rank() == 5 && held.shape[1] == 1) held.shape.erase(held.shape.begin() + 1);
        const auto s = operand_of<R>(held, 0, name);
        require(s.at.shape == extents<4>{batch, H, P, N}, "the initial state has another shape");
        S = made_by<R>(S.at.shape, [&](index_t b, index_t h, index_t n, index_t p) { return s.at(b, h, p, n); });
    }
    if (by == engine::reference) {
        ref::mamba2_options<double> with;
        const std::vector<double> wide(through.begin(), through.end());
        if (D) with.skip = dense(wide.data(), {H});
        ref::mamba2<double>(values, dt, a, in.at, out.at, y.at, with, S.at);
    } else {
        state<R> carried(batch, H, N, P);
        carried.assign(S.at);
        mamba2(values, dt, a, in.at, out.at, y.at, mamba2_options<R>{{}, skip}, carried);
        S = made_by<R>(S.at.shape, [s = carried.values()](auto... i) { return s(i...); });
    }

    const auto last =
        made_by<R>({batch, H, P, N}, [&](index_t b, index_t h, index_t p, index_t n) { return S.at(b, h, n, p); });
    const array *want = g.output("y"), *end = g.output("last_state");
    require(want, "output y is missing");
    double worst = compare("y", X.shape, y.data, *want, tolerance_of(want->type));
    if (end) worst = std::max(worst, compare("last_state", {batch, H, P, N}, last.data, *end, tolerance_of(end->type)));
    return worst;
}

}  // namespace

double replay_mamba2(golden_case& g, engine by) {
    return g.needed("x").type == "float64" ? replay_in<double>(g, by) : replay_in<float>(g, by);
}

}  // namespace conformance
