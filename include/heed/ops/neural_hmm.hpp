// Left-to-right hidden Markov models without skips, as neural HMMs use them in the place of attention [42]: the exact
// sum over monotonic alignments of T frames with N states, the posterior of each, and the best one.
//
//   a[t,s] = e[t,s] + log_add(a[t-1,s] + log(1 - tau[t,s]), a[t-1,s-1] + log tau[t,s-1]);  frame 0 is in state 0
//   log p = a[T-1,N-1] + log tau[T-1,N-1];  e: log density of the frame in the state; tau = sigmoid(w): the state is
//   left
// Sequential in t, SIMD over s, tasks over the batch; O(T N). Rows are kept relative to their largest element, whose
// sum is in double: long sequences lose no digits. T < N has no alignment: log p = -inf.
#pragma once

#include "../engine/scan_operands.hpp"
#include "../engine/scratch.hpp"
#include "../policy/monoid.hpp"
#include "../simd/convert.hpp"
#include "alignment_lengths.hpp"

namespace heed::inline HEED_ABI {

namespace detail {

/// The rows of one sequence, each with a pack of -inf on either side.
template <class A, class T>
struct hmm_rows {
    using P = pack<T, A>;
    static constexpr auto L = static_cast<index_t>(P::size);
    static constexpr T nothing = -std::numeric_limits<T>::infinity();

    T *stay, *leave, *emitted, *row, *next;
    index_t N;          // states that count
    double passed = 0;  // what has been taken from the row

    static index_t padded(index_t N) { return round_up(N, L) + 2 * L; }
    static index_t size(index_t N) { return 5 * padded(N); }

    hmm_rows(T* scratch, index_t most_states, index_t states) : N(states) {
        std::fill_n(scratch, size(most_states), nothing);
        T* at = scratch + L;
        for (T** p : {&stay, &leave, &emitted, &row, &next}) *p = std::exchange(at, at + padded(most_states));
    }
    /// A frame's densities and the moves into it: log(1 - tau), log tau.
    template <class E, class W>
    void load(const view<E, 2>& e, const view<W, 2>& w, index_t t) {
        widen_row<A>(e.data + t * e.strides[0], e.strides[1], N, emitted);
        widen_row<A>(w.data + t * w.strides[0], w.strides[1], N, stay);
        for (index_t s = 0; s < N; s += L) {
            const P x = heed::load<P>(stay + s), bend = log1p_unit(exp_nonpositive(-abs(x)));
            store(stay + s, -(max(P(0), x) + bend));
            store(leave + s, -(max(P(0), -x) + bend));
        }
        for (T* p : {stay, leave, emitted}) std::fill(p + N, p + round_up(N, L), nothing);
    }
    void begin() {
        std::fill(row, row + round_up(N, L), nothing);
        row[0] = emitted[0];
        rebase();
    }
    /// The row becomes the next one, relative to its largest element.
    void advance() {
        std::swap(row, next);
        rebase();
    }
    void rebase() {
        P top(nothing);
        for (index_t s = 0; s < N; s += L) top = max(top, heed::load<P>(row + s));
        const T most = reduce_max(top);
        if (!(most > nothing)) return;
        for (index_t s = 0; s < N; s += L) store(row + s, heed::load<P>(row + s) - P(most));
        passed += static_cast<double>(most);
    }
    static T reduce_max(const P& x) {
        alignas(64) T at[P::size];
        store_aligned(at, x);
        return *std::max_element(at, at + P::size);
    }
    /// One frame forward in a semiring; came(s, stayed, moved) sees both ways into each pack of states.
    template <class R, class Came>
    void forward(const Came& came) {
        for (index_t s = 0; s < N; s += L) {
            const P stayed = heed::load<P>(row + s) + heed::load<P>(stay + s);
            const P moved = heed::load<P>(row + s - 1) + heed::load<P>(leave + s - 1);
            came(s, stayed, moved);
            store(next + s, heed::load<P>(emitted + s) + R::plus(stayed, moved));
        }
        advance();
    }
    /// One frame back: the row is that of the frame whose densities and moves are loaded.
    void backward() {
        for (index_t s = 0; s < N; s += L) store(row + s, heed::load<P>(row + s) + heed::load<P>(emitted + s));
        for (index_t s = 0; s < N; s += L)
            store(next + s, log_add(heed::load<P>(row + s) + heed::load<P>(stay + s),
                                    heed::load<P>(row + s + 1) + heed::load<P>(leave + s)));
        advance();
    }
    double log_p(index_t frames) const {
        if (frames == 0 || N == 0) return nothing;
        return static_cast<double>(row[N - 1]) + static_cast<double>(leave[N - 1]) + passed;
    }
};

/// One sequence of a call.
template <class E, class W>
struct hmm_sequence {
    view<const E, 2> e;  // (frames, states)
    view<const W, 2> w;
    index_t frames, states;
};

/// Checks e, w (B, T, N), what is found of each sequence (B) and lengths, and calls run(b, sequence, scratch of
/// `per_task` numbers) for each of the batch.
template <class A, class T, class E, class W, class R, class Size, class Run, class... P>
void run_hmm(const char* op, const operand<const E, 3>& e, const operand<const W, 3>& w, const operand<R, 1>& found,
             const Size& per_task, const Run& run, const P&... policies) {
    for (index_t extent : e.v.shape) require_shape(extent >= 0, op, "e has extent ", extent);
    check_shape(op, w, e.v.shape, "e");
    check_written(op, found);
    check_shape(op, found, {e.v.shape[0]}, "e");
    check_apart_from_all(op, std::tuple(e, w), std::tuple(found));
    const auto length = lengths_of(op, e.v.shape[0], e.v.shape[1], e.v.shape[2], "states", policies...);
    const auto size = static_cast<std::size_t>(round_up(per_task, 16)) * sizeof(T);
    in_scratch(
        op, [&](auto& pool) { return static_cast<std::size_t>(pool.width()) * size; },
        [&](auto& pool, std::byte* memory) {
            for_tasks(pool, e.v.shape[0], [&](index_t b, index_t worker) {
                const auto counts = length(b);
                const auto of = [&](const auto& x) {
                    using S = std::remove_reference_t<decltype(*x.data)>;
                    return view<S, 2>{x.data + b * x.strides[0], counts, {x.strides[1], x.strides[2]}};
                };
                run(b, hmm_sequence<E, W>{of(e.v), of(w.v), counts[0], counts[1]},
                    reinterpret_cast<T*>(memory + static_cast<std::size_t>(worker) * size));
            });
        },
        policies...);
}

}  // namespace detail

/// log p of each sequence: e, w (B, T, N), log_p (B) of float or double. Policies: alignment_lengths{frames, states},
/// on{...}.
template <class A = default_arch, class E, class W, class R, class... P>
void neural_hmm(const E& e, const W& w, const view<R, 1>& log_p, const P&... policies) {
    using namespace detail;
    static constexpr const char* op = "neural_hmm";
    const auto ee = reads("e", e);
    const auto ww = reads("w", w);
    using T = accumulator<typename decltype(ee)::element, typename decltype(ww)::element>;
    using hmm = hmm_rows<A, T>;
    run_hmm<A, T>(
        op, ee, ww, writes("log_p", log_p), hmm::size(ee.v.shape[2]),
        [&](index_t b, const auto& x, T* scratch) {
            hmm at(scratch, ee.v.shape[2], x.states);
            for (index_t t = 0; t < x.frames && x.states > 0; ++t) {
                at.load(x.e, x.w, t);
                if (t == 0)
                    at.begin();
                else
                    at.template forward<log_numbers>([](index_t, const auto&, const auto&) {});
            }
            log_p(b) = static_cast<R>(at.log_p(x.frames));
        },
        policies...);
}

/// The posteriors gamma (B, T, N) too: the probability that the frame is in the state, d log p / d e. Rows beyond a
/// sequence, and sequences without an alignment, are 0. Scratch: T N numbers.
template <class A = default_arch, class E, class W, class G, class R, class... P>
void neural_hmm_posteriors(const E& e, const W& w, G&& gamma, const view<R, 1>& log_p, const P&... policies) {
    using namespace detail;
    static constexpr const char* op = "neural_hmm_posteriors";
    const auto ee = reads("e", e);
    const auto ww = reads("w", w);
    const auto to = writes("gamma", gamma);
    using T = accumulator<typename decltype(ee)::element, typename decltype(ww)::element>;
    using hmm = hmm_rows<A, T>;
    using V = pack<T, A>;
    constexpr index_t L = hmm::L;
    check_written(op, to);
    check_shape(op, to, ee.v.shape, "e");
    check_apart(op, to, ee);
    check_apart(op, to, ww);
    const index_t frames = ee.v.shape[1], states = ee.v.shape[2], width = round_up(states, L);
    run_hmm<A, T>(
        op, ee, ww, writes("log_p", log_p), hmm::size(states) + frames * width,
        [&](index_t b, const auto& x, T* scratch) {
            hmm at(scratch, states, x.states);
            T* const stored = scratch + hmm::size(states);
            for (index_t t = 0; t < x.frames && x.states > 0; ++t) {
                at.load(x.e, x.w, t);
                if (t == 0)
                    at.begin();
                else
                    at.template forward<log_numbers>([](index_t, const auto&, const auto&) {});
                std::copy_n(at.row, round_up(x.states, L), stored + t * width);
            }
            log_p(b) = static_cast<R>(at.log_p(x.frames));
            std::fill_n(at.row, round_up(x.states, L), hmm::nothing);
            if (x.states > 0) at.row[x.states - 1] = at.leave[x.states - 1];
            for (index_t t = frames; t-- > 0;) {
                auto* const line = &to.v(b, t, 0);
                const index_t step = to.v.strides[2];
                const index_t n = t < x.frames ? x.states : 0;
                T* const a = stored + t * width;
                V top(hmm::nothing), sum(0);
                for (index_t s = 0; s < n; s += L) {
                    const V both = load<V>(a + s) + load<V>(at.row + s);
                    store(a + s, both);
                    top = max(top, both);
                }
                const T most = hmm::reduce_max(top);
                const bool none = most == hmm::nothing;
                for (index_t s = 0; s < n; s += L) {
                    const V p = none ? V(0) : exp_nonpositive(load<V>(a + s) - V(most));
                    store(a + s, p);
                    sum += p;
                }
                const T total = reduce_add(sum), factor = total == 0 ? T(0) : 1 / total;
                for (index_t s = 0; s < n; s += L) store(a + s, load<V>(a + s) * V(factor));
                narrow_row<A>(a, n, line, step);
                for (index_t s = n; s < states; ++s)
                    line[s * step] = static_cast<std::remove_reference_t<decltype(*line)>>(0);
                if (n > 0 && t > 0) {
                    at.load(x.e, x.w, t);
                    at.backward();
                }
            }
        },
        policies...);
}

/// The best alignment: path (B, T), the state of each frame, and its score (B), the largest summand of log p; -1 beyond
/// a sequence, and everywhere if there is none. Where two ways are equal it stays. Scratch: T N bytes.
template <class A = default_arch, class E, class W, class R, class... P>
void neural_hmm_best_path(const E& e, const W& w, const view<index_t, 2>& path, const view<R, 1>& score,
                          const P&... policies) {
    using namespace detail;
    static constexpr const char* op = "neural_hmm_best_path";
    const auto ee = reads("e", e);
    const auto ww = reads("w", w);
    using T = accumulator<typename decltype(ee)::element, typename decltype(ww)::element>;
    using hmm = hmm_rows<A, T>;
    const index_t frames = ee.v.shape[1], states = ee.v.shape[2], width = round_up(states, hmm::L);
    const index_t room = ceil_div(frames * width, static_cast<index_t>(sizeof(T)));
    require_shape(path.shape == extents<2>{ee.v.shape[0], frames}, op, "path is (", path.shape[0], ", ", path.shape[1],
                  "), e asks for (", ee.v.shape[0], ", ", frames, ")");
    run_hmm<A, T>(
        op, ee, ww, writes("score", score), hmm::size(states) + room,
        [&](index_t b, const auto& x, T* scratch) {
            hmm at(scratch, states, x.states);
            auto* const came = reinterpret_cast<unsigned char*>(scratch + hmm::size(states));
            for (index_t t = 0; t < x.frames && x.states > 0; ++t) {
                at.load(x.e, x.w, t);
                if (t == 0) {
                    at.begin();
                    continue;
                }
                at.template forward<path_numbers>([&](index_t s, const auto& stayed, const auto& moved) {
                    alignas(64) T stay[pack<T, A>::size], move[pack<T, A>::size];
                    store_aligned(stay, stayed);
                    store_aligned(move, moved);
                    for (index_t l = 0; l < hmm::L; ++l) came[t * width + s + l] = move[l] > stay[l];
                });
            }
            const double best = at.log_p(x.frames);
            score(b) = static_cast<R>(best);
            const bool any = best > -std::numeric_limits<double>::infinity();
            for (index_t t = frames; t-- > x.frames;) path(b, t) = -1;
            index_t s = any ? x.states - 1 : -1;
            for (index_t t = x.frames; t-- > 0;) {
                path(b, t) = s;
                if (any && t > 0 && came[t * width + s]) --s;
            }
        },
        policies...);
}

/// Deterministic generation: a state is left when the probability to be still in it, the product of 1 - tau since it
/// was entered, falls below a quantile of the duration.
class duration_walk {
public:
    explicit duration_walk(double quantile) : quantile_(quantile) {
        require_argument(quantile > 0 && quantile < 1, "duration_walk", "the quantile is ", quantile,
                         ", not in (0, 1)");
    }
    index_t state() const { return state_; }
    /// Whether this frame, with tau of the current state, is its last: the next is in the next state.
    bool step(double tau) {
        left_ *= 1 - tau;
        if (left_ >= quantile_) return false;
        left_ = 1;
        ++state_;
        return true;
    }

private:
    double quantile_, left_ = 1;
    index_t state_ = 0;
};

}  // namespace heed::inline HEED_ABI
