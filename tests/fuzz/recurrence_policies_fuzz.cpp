// libFuzzer: recurrences with what recurrence_fuzz.cpp has no room for, against the definition: complex rows, feature
// maps and sums of keys, norms, other tokens for queries, orders over packed sequences, reads before erasing updates,
// narrow types; and steps with tokens undone between.
#include <heed/engine/rollback.hpp>

#include "recurrence_scene.hpp"

using namespace test;

namespace {

constexpr auto elu_rows = [](auto& with) {
    using R = std::decay_t<decltype(with.scale.value_or(0))>;
    with.query_features = [](std::vector<R> row, index_t) {
        for (R& x : row) x = x > 0 ? x + 1 : std::exp(x);
        return row;
    };
    with.key_features = with.query_features;
    with.scale = R(1);
};
constexpr auto weighted_mean = [](auto& with) {
    elu_rows(with);
    with.normalised = true;
};
/// Outputs over the root of their mean square and 1, which does not grow errors.
constexpr auto rms_rows = [](auto& with) {
    using R = std::decay_t<decltype(with.scale.value_or(0))>;
    with.norm = [](std::vector<R> row, index_t) {
        R squares = 0;
        for (R x : row) squares += x * x;
        for (R& x : row) x /= std::sqrt(squares / static_cast<R>(row.size()) + 1);
        return row;
    };
};

/// Steps of a few tokens, some of them undone and taken again, against the definition of all.
template <class T, class Change, class... P>
void stream(decisions& d, const scene& x, const recurrence_case<T, Change>& c, const P&... policies) {
    if (x.s.N == 0) return;
    const index_t m = x.s.steps;
    const auto from = c.beginning(d, x);
    tensor<T> o({x.s.B, x.s.Ho(), x.s.N, x.s.E}, x.rows);
    const view<const T> q = c.data.q.v(), k = c.data.k.v(), v = c.data.v.v();
    const auto part = [&](range r, const auto& f) {
        const range rows{r.first * m, r.last * m};
        const auto cut = [&]<class X>(const X& policy) {
            return heed::detail::at_tokens(policy, has_role<X, roles::update> ? rows : r);
        };
        f(slice(q, 2, r), slice(k, 2, rows), slice(v, 2, rows), slice(o.v(), 2, r), cut(policies)...);
    };
    part({0, 1}, [&](auto, auto keys, auto values, auto, const auto&... like) {
        rollback run(state_of(from, x.s.E), d.below(6), keys, values, like...);
        for (index_t t = 0; t < x.s.N;) {
            const index_t n = std::min(d.between(1, 5), x.s.N - t);
            part({t, t + n}, [&](const auto&... operands) { run.step(operands...); });
            t += n;
            const index_t undone = d.one_in(3) ? d.below(run.undoable() + 1) : 0;
            run.undo(undone);
            t -= undone;
        }
        if (!o.poisoned_outside()) fail(x, "written beside the output");
        c.judge(x, from, o, contents(run.now(), c.normalised(x)));
    });
}

/// Complex rows of an even width, with decays of half as many channels.
void turn_rows(decisions& d, scene& x) {
    x.s.D += x.s.D % 2;
    auto data = data_of<float>(d, x);
    for (auto* gate : {&data.channel, &data.angle}) *gate = copied(slice(gate->v(), 3, {0, x.s.D / 2}));
    const scale by{1 / std::sqrt(std::max<double>(1, static_cast<double>(x.s.D)))};
    const auto rows = [](auto& with) { with.complex_rows = true; };
    if (d.one_in(3))
        return meet(d, x, recurrence_case{data, turning | before, rows}, complex_rows{}, data.complex_gate(),
                    read_before{}, by);
    meet(d, x, recurrence_case{data, turning, rows}, complex_rows{}, data.complex_gate(), by);
}

/// Every query reads the last state, of other tokens than its own.
void read_at_the_end(decisions& d, scene& x) {
    auto data = data_of<float>(d, x);
    data.q = normal<float>({x.s.B, x.s.Hq, d.below(40), x.s.D}, d.seed(), 1, x.rows);
    if (d.one_in(2)) return meet(d, x, data, by_channel | all_at_once, data.channel_gate(), non_causal{});
    meet(d, x, data, by_token | delta | all_at_once, data.token_gate(), data.delta_update(), non_causal{});
}

void run(decisions& d, scene& x, index_t kind) {
    if (kind != 3) x.s.steps = 1;
    if (kind == 0) return turn_rows(d, x);
    if (kind == 1) return read_at_the_end(d, x);
    if (kind >= 9) put_in_one_row(d, x);
    if (kind == 7) {
        const auto half = data_of<f16>(d, x);
        return meet(d, x, recurrence_case{half, by_token, weighted_mean}, elu_plus_one{}, sum_of_keys{},
                    half.token_gate());
    }
    if (kind == 8) {
        const auto brain = data_of<bf16>(d, x);
        return meet(d, x, brain, by_channel | ranked | before, brain.channel_gate(), brain.low_rank_update(),
                    read_before{});
    }
    const auto data = data_of<float>(d, x);
    const packed side_by_side{std::span<const index_t>(x.offsets)};
    switch (kind) {
        case 2:
            return stream(d, x, recurrence_case{data, by_token, weighted_mean}, elu_plus_one{}, sum_of_keys{},
                          data.token_gate());
        case 3:
            return stream(d, x, recurrence_case{data, by_channel | delta, [](auto&) {}}, data.channel_gate(),
                          data.householder_update());
        case 4:
            return meet(d, x, recurrence_case{data, by_channel | before, weighted_mean}, elu_plus_one{}, sum_of_keys{},
                        data.channel_gate(), read_before{});
        case 5:
            return meet(d, x, recurrence_case{data, by_token | delta | before, rms_rows}, rms{1.0}, data.token_gate(),
                        data.delta_update(), read_before{});
        case 6:
            return meet(d, x, recurrence_case{data, by_value | with_bonus, elu_rows}, elu_plus_one{}, data.value_gate(),
                        data.bonus_read());
        case 9:
            return meet(d, x, recurrence_case{data, by_head | backwards, weighted_mean}, elu_plus_one{}, sum_of_keys{},
                        data.head_gate(), reversed{}, side_by_side);
        default:
            return meet(d, x, data, by_channel | delta | backwards, data.channel_gate(), data.delta_update(),
                        reversed{}, side_by_side);
    }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    decisions d(data, size);
    const index_t kind = d.below(11);
    scene x = any_scene(d);
    run(d, x, kind);
    return 0;
}
