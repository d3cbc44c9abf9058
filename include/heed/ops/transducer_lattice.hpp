// The lattice of a transducer: the sum over all ways to emit U labels in T frames [71] [25], and its gradient.
//
//   a[t,u] = log_add(a[t-1,u] + blank[t-1,u], a[t,u-1] + label[t,u-1]);  log p = a[T-1,U] + blank[T-1,U]
// blank (B, T, U + 1) and label (B, T, U): log probabilities at (t, u) to go to the next frame, to emit label u + 1.
// Walked by anti-diagonals, which SIMD runs along; O(T U). A diagonal is kept relative to its largest element, and what
// was taken from it in double: the posterior mass of each is 1 however long the lattice is. Graves, arXiv:1211.3711.
#pragma once

#include "../engine/scan_operands.hpp"
#include "../engine/scratch.hpp"
#include "../simd/gates.hpp"
#include "neural_hmm.hpp"

namespace heed::inline HEED_ABI {

namespace detail {

/// The diagonals d = t + u of one lattice; element u of one is cell (d - u, u), -inf where there is none.
template <class A, class T, class Blank, class Label>
class lattice {
public:
    using P = pack<T, A>;
    static constexpr auto L = static_cast<index_t>(P::size);
    static constexpr T nothing = -std::numeric_limits<T>::infinity();

    lattice(const view<const Blank, 2>& blank, const view<const Label, 2>& label, index_t frames, index_t labels)
        : blank_(blank), label_(label), T_(frames), U_(labels) {}

    static index_t padded(index_t U) { return round_up(U + 1, L) + 2 * L; }
    index_t diagonals() const { return T_ + U_; }
    /// The cells of a diagonal.
    range cells(index_t d) const { return {std::max<index_t>(0, d - T_ + 1), std::min(d, U_) + 1}; }

    /// Log probabilities of the steps out of the cells of a diagonal, -inf where there are none: padded rows.
    void steps(index_t d, T* down, T* right) const {
        const range own = cells(d);
        std::fill(down, down + round_up(U_ + 1, L), nothing);
        std::fill(right, right + round_up(U_ + 1, L), nothing);
        for (index_t u = own.first; u < own.last; ++u) {
            down[u] = static_cast<T>(blank_(d - u, u));
            if (u < U_) right[u] = static_cast<T>(label_(d - u, u));
        }
    }
    /// Relative to its largest element, which is returned.
    double rebase(T* row) const {
        P top(nothing);
        for (index_t u = 0; u <= U_; u += L) top = max(top, load<P>(row + u));
        const T most = hmm_rows<A, T>::reduce_max(top);
        if (!(most > nothing)) return 0;
        for (index_t u = 0; u <= U_; u += L) store(row + u, load<P>(row + u) - P(most));
        return static_cast<double>(most);
    }
    /// The diagonal after `row`, whose steps are given.
    void forward(index_t d, const T* row, const T* down, const T* right, T* to) const {
        for (index_t u = 0; u <= U_; u += L)
            store(to + u, log_add(load<P>(row + u) + load<P>(down + u), load<P>(row + u - 1) + load<P>(right + u - 1)));
        clear(d + 1, to);
    }
    /// The diagonal d before `row`, whose steps are given.
    void backward(index_t d, const T* row, const T* down, const T* right, T* to) const {
        for (index_t u = 0; u <= U_; u += L)
            store(to + u, log_add(load<P>(row + u) + load<P>(down + u), load<P>(row + u + 1) + load<P>(right + u)));
        clear(d, to);
    }
    /// Nothing where there is no cell.
    void clear(index_t d, T* row) const {
        const range own = cells(d);
        std::fill(row, row + own.first, nothing);
        std::fill(row + own.last, row + round_up(U_ + 1, L), nothing);
    }

private:
    view<const Blank, 2> blank_;
    view<const Label, 2> label_;
    index_t T_, U_;
};

/// No gradient is wanted.
struct no_gradient {
    static constexpr bool wanted = false;
};
template <class D, class E>
struct lattice_gradient {
    static constexpr bool wanted = true;
    view<D, 3> blank;
    view<E, 3> label;
};

template <class A, class Blank, class Label, class R, class Gradient, class... P>
void run_lattice(const char* op, const operand<const Blank, 3>& blank, const operand<const Label, 3>& label,
                 const view<R, 1>& log_p, const Gradient& gradient, const P&... policies) {
    using T = accumulator<Blank, Label>;
    using cells = lattice<A, T, Blank, Label>;
    constexpr index_t L = cells::L;
    const extents<3> shape = blank.v.shape;
    for (index_t extent : shape) require_shape(extent >= 0, op, "blank has extent ", extent);
    require_shape(shape[2] >= 1, op, "blank has ", shape[2], " columns, one more than there are labels");
    check_shape(op, label, {shape[0], shape[1], shape[2] - 1}, "blank");
    check_written(op, writes("log_p", log_p));
    check_shape(op, writes("log_p", log_p), {shape[0]}, "blank");
    check_apart_from_all(op, std::tuple(blank, label), std::tuple(writes("log_p", log_p)));
    const auto length = lengths_of(op, shape[0], shape[1], shape[2] - 1, "labels", policies...);
    const index_t width = cells::padded(shape[2] - 1), most = shape[1] + shape[2];
    // Rows: two diagonals and their steps; for a gradient all diagonals, and what was taken from each.
    const index_t rows = Gradient::wanted ? 4 + most : 4;
    const auto row_bytes = static_cast<std::size_t>(round_up(rows * width, 16)) * sizeof(T);
    const auto size = row_bytes + static_cast<std::size_t>(Gradient::wanted ? round_up(most, 8) : 0) * sizeof(double);
    const auto run = [&](index_t b, std::byte* memory) {
        const auto [frames, labels] = length(b);
        const auto of = [&](const auto& x) {
            using S = std::remove_reference_t<decltype(*x.data)>;
            return view<S, 2>{x.data + b * x.strides[0], {x.shape[1], x.shape[2]}, {x.strides[1], x.strides[2]}};
        };
        const cells x(of(blank.v), of(label.v), frames, labels);
        T* const base = reinterpret_cast<T*>(memory);
        std::fill_n(base, rows * width, cells::nothing);
        const auto row = [&](index_t i) { return base + i * width + L; };
        auto* const taken = reinterpret_cast<double*>(memory + row_bytes);
        T *const down = row(0), *const right = row(1);
        const auto at = [&](index_t d) { return Gradient::wanted ? row(4 + d) : row(2 + d % 2); };
        double passed = 0, total = -std::numeric_limits<double>::infinity();
        for (index_t d = 0; d < x.diagonals() && frames > 0; ++d) {
            if (d == 0)
                at(0)[0] = 0;
            else
                x.forward(d - 1, at(d - 1), down, right, at(d));
            passed += x.rebase(at(d));
            if constexpr (Gradient::wanted) taken[d] = passed;
            x.steps(d, down, right);
            if (d + 1 == x.diagonals())
                total = static_cast<double>(at(d)[labels]) + static_cast<double>(down[labels]) + passed;
        }
        log_p(b) = static_cast<R>(total);
        if constexpr (Gradient::wanted) {
            const auto db = of(gradient.blank), dl = of(gradient.label);
            for (index_t t = 0; t < shape[1]; ++t) {
                for (index_t u = 0; u < shape[2]; ++u) db(t, u) = 0;
                for (index_t u = 0; u + 1 < shape[2]; ++u) dl(t, u) = 0;
            }
            if (total == -std::numeric_limits<double>::infinity()) return;
            // b[t,u]: log probability of what follows the cell; ahead: of the diagonal d + 1.
            T *ahead = row(2), *own = row(3);
            double later = 0;
            std::fill(ahead, ahead + round_up(labels + 1, L), cells::nothing);
            for (index_t d = x.diagonals(); d-- > 0;) {
                x.steps(d, down, right);
                const bool ends = d + 1 == x.diagonals();
                const double outside = taken[d] + later - total;
                const range mine = x.cells(d);
                for (index_t u = mine.first; u < mine.last; ++u) {
                    const double a = static_cast<double>(at(d)[u]) + outside;
                    const auto mass = [&](double step, double follows) {
                        return static_cast<T>(-std::exp(a + step + follows));
                    };
                    const index_t t = d - u;
                    db(t, u) = mass(static_cast<double>(down[u]), ends ? 0.0 : static_cast<double>(ahead[u]));
                    if (u < labels) dl(t, u) = mass(static_cast<double>(right[u]), static_cast<double>(ahead[u + 1]));
                }
                if (ends) {
                    std::fill(own, own + round_up(labels + 1, L), cells::nothing);
                    own[labels] = down[labels];
                } else {
                    x.backward(d, ahead, down, right, own);
                }
                later += x.rebase(own);
                std::swap(own, ahead);
            }
        }
    };
    in_scratch(
        op, [&](auto& pool) { return static_cast<std::size_t>(pool.width()) * size; },
        [&](auto& pool, std::byte* memory) {
            for_tasks(pool, shape[0],
                      [&](index_t b, index_t worker) { run(b, memory + static_cast<std::size_t>(worker) * size); });
        },
        policies...);
}

}  // namespace detail

/// log p of each sequence, (B). Policies: alignment_lengths{frames, labels}, on{pool, arena}. No frame: log p = -inf.
template <class A = default_arch, class Blank, class Label, class R, class... P>
void transducer_lattice(const Blank& blank, const Label& label, const view<R, 1>& log_p, const P&... policies) {
    detail::run_lattice<A>("transducer_lattice", detail::reads("blank", blank), detail::reads("label", label), log_p,
                           detail::no_gradient{}, policies...);
}

/// The gradient of -log p too: d_blank (B, T, U + 1), d_label (B, T, U), minus the probability that a step is taken; 0
/// beyond a sequence. Scratch: the lattice.
template <class A = default_arch, class Blank, class Label, class D, class E, class R, class... P>
void transducer_lattice_gradient(const Blank& blank, const Label& label, const view<D, 3>& d_blank,
                                 const view<E, 3>& d_label, const view<R, 1>& log_p, const P&... policies) {
    using namespace detail;
    static constexpr const char* op = "transducer_lattice_gradient";
    const auto in = std::tuple(reads("blank", blank), reads("label", label));
    const auto out = std::tuple(writes("d_blank", d_blank), writes("d_label", d_label));
    each_operand(out, [&](const auto& x) { check_written(op, x); });
    check_shape(op, std::get<0>(out), std::get<0>(in).v.shape, "blank");
    check_shape(op, std::get<1>(out), std::get<1>(in).v.shape, "label");
    check_apart_from_all(op, in, out);
    run_lattice<A>(op, std::get<0>(in), std::get<1>(in), log_p, lattice_gradient<D, E>{d_blank, d_label}, policies...);
}

}  // namespace heed::inline HEED_ABI
