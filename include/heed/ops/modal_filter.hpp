// Filters in modal form, run as recurrences [9]: a token costs O(modes) a channel, however many came before.
//
//   y_t = Re sum_n R_n s_n + h[0] x_t;  s_n <- lambda_n s_n + x_t     so h[t] = Re sum_n R_n lambda_n^(t-1)
// Lanes across channels; the state is `modes` complex numbers a channel. Sequential in time, causal to the bit.
#pragma once

#include <complex>
#include <span>
#include <vector>

#include "../core/context.hpp"
#include "../core/view.hpp"
#include "../engine/scratch.hpp"
#include "../simd/convert.hpp"

namespace heed::inline HEED_ABI {

/// One filter: its first sample, and poles and residues; of a conjugate pair one, with the residues of both.
struct modal_form {
    double first = 0;
    std::vector<std::complex<double>> poles, residues;

    /// h[0], ..., h[L - 1].
    std::vector<double> samples(index_t L) const {
        std::vector<double> h(static_cast<std::size_t>(L));
        if (L > 0) h[0] = first;
        for (std::size_t n = 0; n < poles.size(); ++n) {
            std::complex<double> term = residues[n];
            for (index_t t = 1; t < L; ++t, term *= poles[n]) h[static_cast<std::size_t>(t)] += term.real();
        }
        return h;
    }
};

/// The filters of C channels. Copies are independent; so are states.
template <std::floating_point T, class A = default_arch>
class modal_filter {
    using P = pack<T, A>;
    static constexpr index_t L = lanes<T, A>;
    static constexpr index_t mode_size = 4 * L;  // lambda and R, real and imaginary

public:
    explicit modal_filter(std::span<const modal_form> filters) : C_(static_cast<index_t>(filters.size())) {
        for (const modal_form& f : filters) {
            require_shape(f.poles.size() == f.residues.size(), "modal_filter", "a filter has ", f.poles.size(),
                          " poles and ", f.residues.size(), " residues");
            modes_ = std::max(modes_, static_cast<index_t>(f.poles.size()));
        }
        numbers_ = arena(static_cast<std::size_t>(blocks() * block_size()) * sizeof(T));
        std::fill_n(numbers(), blocks() * block_size(), T(0));
        for (index_t c = 0; c < C_; ++c) {
            const modal_form& f = filters[static_cast<std::size_t>(c)];
            T* const at = numbers() + c / L * block_size() + c % L;
            at[0] = static_cast<T>(f.first);
            for (std::size_t n = 0; n < f.poles.size(); ++n) {
                T* const mode = at + L + static_cast<index_t>(n) * mode_size;
                mode[0] = static_cast<T>(f.poles[n].real()), mode[L] = static_cast<T>(f.poles[n].imag());
                mode[2 * L] = static_cast<T>(f.residues[n].real()), mode[3 * L] = static_cast<T>(f.residues[n].imag());
            }
        }
    }

    index_t channels() const { return C_; }
    index_t modes() const { return modes_; }

    /// What B sequences carry from token to token; zeros where they start.
    class state {
    public:
        index_t sequences() const { return B_; }
        index_t channels() const { return C_; }
        index_t modes() const { return modes_; }
        std::size_t bytes() const { return numbers_.size() * sizeof(T); }

        /// s_n of channel c of sequence b.
        std::complex<T> mode(index_t b, index_t c, index_t n) const {
            const auto i = at(b, c, n);
            return {numbers_[i], numbers_[i + L]};
        }
        void set_mode(index_t b, index_t c, index_t n, std::complex<T> s) {
            const auto i = at(b, c, n);
            numbers_[i] = s.real(), numbers_[i + L] = s.imag();
        }

    private:
        friend modal_filter;
        state(index_t B, const modal_filter& of)
            : B_(B),
              C_(of.C_),
              modes_(of.modes_),
              numbers_(static_cast<std::size_t>(B * of.blocks() * of.state_size())) {}
        std::size_t at(index_t b, index_t c, index_t n) const {
            return static_cast<std::size_t>(((b * ceil_div(C_, L) + c / L) * modes_ + n) * 2 * L + c % L);
        }
        index_t B_, C_, modes_;
        std::vector<T> numbers_;  // (sequences, packs of channels, modes), real parts and then imaginary ones
    };
    state start(index_t B) const {
        require_argument(B >= 0, "modal_filter", "a state of ", B, " sequences");
        return {B, *this};
    }

    /// y = the filters over x after what s has seen; x, y (b, n, c), any number of tokens, y may be x. Policies:
    /// on{pool, arena}, of which nothing is used. Throws shape_error before anything is written.
    template <class X, class Y, class... Policies>
    void operator()(const X& x, Y&& y, state& s, const Policies&... policies) const {
        constexpr const char* op = "modal_filter";
        static_assert((has_role<Policies, roles::context> && ...),
                      "heed: an argument is not a policy of modal_filter");
        const auto in = as_view(x);
        const auto out = as_view(y);
        const auto [B, N, C] = in.shape;
        require_shape(C == C_, op, "x has ", C, " channels, the filters are for ", C_);
        require_shape(in.shape == out.shape, op, "y is (", out.shape[0], ", ", out.shape[1], ", ", out.shape[2],
                      "), x (", B, ", ", N, ", ", C, ")");
        require_shape(s.B_ == B, op, "the state is of ", s.B_, " sequences, x of ", B);
        require_shape(s.C_ == C_ && s.modes_ == modes_, op, "the state is of ", s.C_, " channels of ", s.modes_,
                      " modes, the filters of ", C_, " of ", modes_);
        const bool same = static_cast<const void*>(in.data) == static_cast<const void*>(out.data) &&
                          in.strides == out.strides && sizeof(*in.data) == sizeof(*out.data);
        require_shape(same || !overlap(in, out), op, "y overlaps x and is not the same view");
        const auto run = [&](auto& pool, std::byte*) {
            for_tasks(pool, in.shape[0] * blocks(), [&](index_t task, index_t) {
                const index_t b = task / blocks(), block = task % blocks();
                T* const held = s.numbers_.data() + task * state_size();
                for (index_t t = 0; t < in.shape[1]; ++t) {
                    const P u = token(in, b, t, block);
                    put(out, b, t, block, step(numbers() + block * block_size(), held, u));
                }
            });
        };
        detail::in_scratch(op, [](auto&) { return std::size_t(0); }, run, policies...);
    }

private:
    index_t blocks() const { return ceil_div(C_, L); }
    index_t block_size() const { return L + modes_ * mode_size; }
    index_t state_size() const { return modes_ * 2 * L; }
    T* numbers() const { return reinterpret_cast<T*>(numbers_.data()); }

    HEED_INLINE P step(const T* of, T* held, const P& u) const {
        P y = load_aligned<P>(of) * u, other(0);
        of += L;
        for (index_t n = 0; n < modes_; ++n, of += mode_size, held += 2 * L) {
            const P re = load<P>(held), im = load<P>(held + L);
            const P pole = load_aligned<P>(of), pole_im = load_aligned<P>(of + L);
            y = fma(load_aligned<P>(of + 2 * L), re, y);
            other = fma(load_aligned<P>(of + 3 * L), im, other);
            store(held, fma(pole, re, fnma(pole_im, im, u)));
            store(held + L, fma(pole, im, pole_im * re));
        }
        return y - other;
    }

    template <class S>
    HEED_INLINE P token(const view<S, 3>& x, index_t b, index_t t, index_t block) const {
        const index_t c = block * L, n = std::min(L, C_ - c);
        const S* const from = &x(b, t, c);
        if (n == L && x.strides[2] == 1) return widen<P>(from);
        alignas(64) T some[L] = {};
        for (index_t l = 0; l < n; ++l) some[l] = static_cast<T>(from[l * x.strides[2]]);
        return load_aligned<P>(some);
    }
    template <class S>
    HEED_INLINE void put(const view<S, 3>& y, index_t b, index_t t, index_t block, const P& value) const {
        const index_t c = block * L, n = std::min(L, C_ - c);
        S* const to = &y(b, t, c);
        if (n == L && y.strides[2] == 1) return narrow(to, value);
        alignas(64) T some[L];
        store_aligned(some, value);
        for (index_t l = 0; l < n; ++l) to[l * y.strides[2]] = static_cast<S>(some[l]);
    }

    index_t C_, modes_ = 0;
    arena numbers_;
};

}  // namespace heed::inline HEED_ABI
