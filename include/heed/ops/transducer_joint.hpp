// What the lattice of a transducer is made of [71]: log probabilities of a blank and of the next label, from the joint
// network, without the logits of all labels in memory.
//
//   z[t,u] = tanh(f_t + g_u) W + c;  blank[t,u] = z[blank] - lse(z),  label[t,u] = z[y_u] - lse(z), y_u the next label
// f (B, T, D), g (B, U + 1, D): products of the encoder and of the label encoder are the caller's; W (D, V), c (V).
// Cost: D V multiply-adds, D tangents and V exponentials a cell. Graves, arXiv:1211.3711.
#pragma once

#include "../engine/scan_operands.hpp"
#include "products.hpp"

namespace heed::inline HEED_ABI {
namespace detail {

/// log sum exp of n numbers, and of -inf up to a whole pack, which are written behind them.
template <class A, class T>
T log_sum_exp(T* x, index_t n) {
    using P = pack<T, A>;
    constexpr auto L = static_cast<index_t>(P::size);
    constexpr T nothing = -std::numeric_limits<T>::infinity();
    std::fill(x + n, x + round_up(n, L), nothing);
    const T top = *std::max_element(x, x + n);
    if (top == nothing) return nothing;
    P sum(T(0));
    for (index_t i = 0; i < n; i += L) sum += exp_nonpositive(load<P>(x + i) - P(top));
    return top + std::log(reduce_add(sum));
}

template <class A, class T, class F, class G, class W, class C, class Blank, class Label>
struct joint_call {
    static constexpr index_t cells_of_a_task = 64;

    view<const F, 3> f;             // (B, T, D)
    view<const G, 3> g;             // (B, U + 1, D)
    view<const W, 2> w;             // (D, V)
    view<const C, 1> bias;          // (V), or no data
    view<const index_t, 2> labels;  // (B, U)
    index_t blank_id;
    view<Blank, 3> blank;  // (B, T, U + 1)
    view<Label, 3> label;  // (B, T, U)

    index_t D() const { return w.shape[0]; }
    index_t V() const { return w.shape[1]; }
    index_t columns() const { return g.shape[1]; }
    index_t cells() const { return f.shape[1] * columns(); }
    index_t blocks() const { return ceil_div(cells(), cells_of_a_task); }
    index_t width() const { return round_up(V(), static_cast<index_t>(lanes<T, A>)); }

    auto product(T* hidden, T* logits, index_t n) const {
        return rows_product<A, T, const W, T>{dense(hidden, {1, n, D()}), w, {logits, {1, n, V()}, {0, width(), 1}}};
    }
    struct memory {
        T *hidden, *logits;
        std::byte* product;
        std::size_t size;
        memory(carver from, const joint_call& x)
            : hidden(from.take<T>(cells_of_a_task * x.D())), logits(from.take<T>(cells_of_a_task * x.width())) {
            serial alone;
            product = from.take<std::byte>(
                static_cast<index_t>(x.product(hidden, logits, cells_of_a_task).scratch_bytes(alone)));
            size = from.used();
        }
    };
    template <class Pool>
    std::size_t scratch_bytes(Pool& pool) const {
        return static_cast<std::size_t>(workers(pool, f.shape[0] * blocks())) * memory(carver(), *this).size;
    }
    template <class Pool>
    void run(Pool& pool, std::byte* scratch) const {
        const std::size_t size = memory(carver(), *this).size;
        for_tasks(pool, f.shape[0] * blocks(), [&](index_t task, index_t worker) {
            const memory own(carver(scratch + static_cast<std::size_t>(worker) * size), *this);
            const index_t first = task % blocks() * cells_of_a_task;
            some_cells(task / blocks(), {first, std::min(cells(), first + cells_of_a_task)}, own);
        });
    }

private:
    void some_cells(index_t b, range some, const memory& own) const {
        const auto hidden = dense(own.hidden, {1, cells_of_a_task, D()});
        for (index_t i = some.first; i < some.last; ++i)
            map_row<A, T>(
                row_of(hidden, 0, i - some.first), [](const auto& p, const auto& q) { return tanh(p + q); },
                row_of(f, b, i / columns()), row_of(g, b, i % columns()));
        serial alone;
        product(own.hidden, own.logits, some.size()).run(alone, own.product);
        for (index_t i = some.first; i < some.last; ++i) {
            const index_t t = i / columns(), u = i % columns();
            T* const z = own.logits + (i - some.first) * width();
            for (index_t v = 0; bias.data && v < V(); ++v) z[v] += static_cast<T>(bias(v));
            const T all = log_sum_exp<A>(z, V());
            blank(b, t, u) = static_cast<Blank>(z[blank_id] - all);
            if (u + 1 < columns()) label(b, t, u) = static_cast<Label>(z[labels(b, u)] - all);
        }
    }
};

}  // namespace detail

/// blank (B, T, U + 1), label (B, T, U) for transducer_lattice, from f, g, W, c (no data: none), labels (B, U) and the
/// blank, numbers in [0, V). Policies: on{pool, arena}. Throws shape_error or argument_error before anything is
/// written.
template <class A = default_arch, class F, class G, class W, class C, class Blank, class Label, class... P>
void transducer_joint(const view<F, 3>& f, const view<G, 3>& g, const view<W, 2>& w, const view<C, 1>& bias,
                      const view<const index_t, 2>& labels, index_t blank_id, const view<Blank, 3>& blank,
                      const view<Label, 3>& label, const P&... policies) {
    using namespace detail;
    static constexpr const char* op = "transducer_joint";
    static_assert((has_role<P, roles::context> && ...), "heed: an argument is not a policy of transducer_joint");
    const index_t B = f.shape[0], T = f.shape[1], U = g.shape[1] - 1, D = w.shape[0], V = w.shape[1];
    const auto in = std::tuple(reads("f", f), reads("g", g), reads("W", w), reads("c", bias));
    const auto out = std::tuple(writes("blank", blank), writes("label", label));
    require_shape(U >= 0, op, "g has ", U + 1, " rows, one more than there are labels");
    each_operand(out, [&](const auto& x) { check_written(op, x); });
    check_shape(op, std::get<0>(in), {B, T, D}, "W");
    check_shape(op, std::get<1>(in), {B, U + 1, D}, "f, W");
    check_given(op, std::get<3>(in), {V}, "W");
    check_shape(op, std::get<0>(out), {B, T, U + 1}, "f, g");
    check_shape(op, std::get<1>(out), {B, T, U}, "f, g");
    require_shape(labels.shape == extents<2>{B, U}, op, "there are labels of ", labels.shape[0], " sequences, ",
                  labels.shape[1], " each, f and g ask for ", B, " of ", U);
    require_argument(blank_id >= 0 && blank_id < V, op, "the blank is ", blank_id, " of ", V, " labels");
    for (index_t b = 0; b < B; ++b)
        for (index_t u = 0; u < U; ++u)
            require_argument(labels(b, u) >= 0 && labels(b, u) < V, op, "label ", labels(b, u), " of ", V);
    check_apart_from_all(op, in, out);
    using S = accumulator_of<decltype(in), decltype(out)>;
    const joint_call<A, S, std::remove_const_t<F>, std::remove_const_t<G>, std::remove_const_t<W>,
                     std::remove_const_t<C>, Blank, Label>
        call{f, g, w, bias, labels, blank_id, blank, label};
    in_scratch(
        op, [&](auto& pool) { return call.scratch_bytes(pool); },
        [&](auto& pool, std::byte* memory) { call.run(pool, memory); }, policies...);
}

}  // namespace heed::inline HEED_ABI
