// Probes: what is recorded of the logits and weights, without changing a bit of the output.
//
// A probe tells with flags what it wants (see below), and with wants(b, h, rows), where it has that, of which rows; what
// it does not want is not computed. lse is known when a row is finished; everything else is observed in a second walk
// over the visible keys, once the row's lse is known.
#pragma once

#include <algorithm>
#include <cmath>
#include <span>
#include <vector>

#include "../core/half.hpp"
#include "../core/view.hpp"
#include "roles.hpp"

namespace heed::inline HEED_ABI {

/// The four stages of a logit that ONNX names.
enum class stage { raw, scored, masked, probability };

/// One micro-block of logits in natural units, for the rows [row, row + rows) and keys [key, key + keys):
/// element (key c, row r) of a stage stands at data[c * stride + r]. A hidden pair has masked -inf, probability 0.
template <class T>
struct observed {
    index_t b = 0, h = 0, row = 0, key = 0;
    int rows = 0, keys = 0;
    index_t stride = 0;
    const T* raw = nullptr;
    const T* scored = nullptr;
    const T* masked = nullptr;
    const T* probability = nullptr;

    const T* at(stage s) const {
        const T* const stages[] = {raw, scored, masked, probability};
        return stages[static_cast<int>(s)];
    }
};

namespace detail {
/// A probe of one number for each row, (b, h, n), or each key, (b, h, m).
template <class T, bool PerKey = false>
struct numbers_probe {
    using role = roles::probe;
    view<T, 3> out;
    const char* name;

    void writes(const view_visitor& see) const { see(out, name); }
    void check(const char* op, const extents_of_scores& s) const {
        const index_t last = PerKey ? s.M : s.N;
        require_shape(out.shape == extents<3>{s.B, s.H, last}, op, name, " has shape (", out.shape[0], ", ",
                      out.shape[1], ", ", out.shape[2], "), the ", PerKey ? "keys" : "rows", " are (", s.B, ", ", s.H,
                      ", ", last, ")");
    }

protected:
    /// Every key gets its weights from the rows r, each weight(r) times.
    template <class X, class W>
    void add(const observed<X>& o, const W& weight) const {
        T* const to = &out(o.b, o.h, o.key);
        const index_t step = out.strides[2];
        const auto sum_of = [&](int rows, const X* p) {
            X sum = 0;
            for (int r = 0; r < rows; ++r)
                if (const X w = weight(r); w != 0) sum += w * p[r];
            return static_cast<T>(sum);
        };
        if (o.rows == 1)  // as in decoding, without a loop for each key
            for (int c = 0; c < o.keys; ++c) to[c * step] += sum_of(1, o.probability + c * o.stride);
        else
            for (int c = 0; c < o.keys; ++c) to[c * step] += sum_of(o.rows, o.probability + c * o.stride);
    }
};

/// Rows that a probe is to see, in the order in which it records them; none named are all.
struct chosen_rows {
    std::span<const index_t> rows;

    index_t count(index_t N) const { return rows.empty() ? N : static_cast<index_t>(rows.size()); }
    void check(const char* op, const char* name, index_t N) const {
        for (index_t row : rows) require_argument(row >= 0 && row < N, op, name, ": row ", row, " is not below ", N);
    }
    bool some_of(range of) const {
        return rows.empty() || std::any_of(rows.begin(), rows.end(), [&](index_t n) { return of.contains(n); });
    }
    /// f(place) for every place at which a row is recorded.
    template <class F>
    void each_place(index_t row, F&& f) const {
        if (rows.empty()) return f(row);
        for (std::size_t p = 0; p < rows.size(); ++p)
            if (rows[p] == row) f(static_cast<index_t>(p));
    }
};
}  // namespace detail

/// Natural log of the row's sum of exponentials, (b, h, n); -inf for a row without visible keys.
template <class T>
struct lse : detail::numbers_probe<T> {
    explicit lse(view<T, 3> v) : detail::numbers_probe<T>{v, "lse"} {}
    void finish(index_t b, index_t h, index_t row, double log_sum) const {
        this->out(b, h, row) = static_cast<T>(log_sum);
    }
};

/// Largest visible logit of the row (after score and mask), (b, h, n); -inf for a row without visible keys.
template <class T>
struct row_max : detail::numbers_probe<T> {
    static constexpr bool observes_rows = true;
    explicit row_max(view<T, 3> v) : detail::numbers_probe<T>{v, "row_max"} {}
    void start(index_t b, index_t h, index_t row) const {
        this->out(b, h, row) = static_cast<T>(-std::numeric_limits<float>::infinity());
    }
    template <class X>
    void observe(const observed<X>& o) const {
        for (int c = 0; c < o.keys; ++c)
            for (int r = 0; r < o.rows; ++r) {
                T& top = this->out(o.b, o.h, o.row + r);
                const X x = o.masked[c * o.stride + r];
                if (x > static_cast<X>(top) || x != x) top = static_cast<T>(x);  // a NaN stays
            }
    }
};

/// Entropy of the row's weights, -sum p ln p in nats, (b, h, n); 0 for a row without visible keys [115].
template <class T>
struct entropy : detail::numbers_probe<T> {
    static constexpr bool observes_rows = true;
    explicit entropy(view<T, 3> v) : detail::numbers_probe<T>{v, "entropy"} {}
    void start(index_t b, index_t h, index_t row) const { this->out(b, h, row) = T(0); }
    template <class X>
    void observe(const observed<X>& o) const {
        for (int c = 0; c < o.keys; ++c)
            for (int r = 0; r < o.rows; ++r) {
                const X p = o.probability[c * o.stride + r];
                if (p != 0) this->out(o.b, o.h, o.row + r) -= static_cast<T>(p * std::log(p));
            }
    }
};

/// Weight each key receives, summed over the queries of a head, (b, h, m) [20] [65] [78] [112].
template <class T>
struct key_mass : detail::numbers_probe<T, true> {
    static constexpr bool observes_keys = true;
    explicit key_mass(view<T, 3> v) : detail::numbers_probe<T, true>{v, "key_mass"} {}
    void start_key(index_t b, index_t h, index_t key) const { this->out(b, h, key) = T(0); }
    template <class X>
    void observe(const observed<X>& o) const {
        this->add(o, [](int) { return X(1); });
    }
};

/// The `count` keys of largest logit per row, best first, ties to the lower key: keys (b, h, n, count), -1 where the row
/// sees fewer; their logits (b, h, n, count), -inf where there is no key.
template <class T>
struct top_keys {
    using role = roles::probe;
    static constexpr bool observes_rows = true;
    view<index_t, 4> keys;
    view<T, 4> logit;
    top_keys(view<index_t, 4> k, view<T, 4> x) : keys(k), logit(x) {}
    void writes(const view_visitor& see) const {
        see(keys, "top_keys (keys)");
        see(logit, "top_keys (logits)");
    }
    void check(const char* op, const extents_of_scores& s) const {
        require_shape(keys.shape[0] == s.B && keys.shape[1] == s.H && keys.shape[2] == s.N, op,
                      "top_keys has rows (", keys.shape[0], ", ", keys.shape[1], ", ", keys.shape[2],
                      "), the rows are (", s.B, ", ", s.H, ", ", s.N, ")");
        require_shape(logit.shape == keys.shape, op, "top_keys: logits and keys differ in shape");
    }
    void start(index_t b, index_t h, index_t row) const {
        for (index_t c = 0; c < keys.shape[3]; ++c) {
            keys(b, h, row, c) = -1;
            logit(b, h, row, c) = static_cast<T>(-std::numeric_limits<float>::infinity());
        }
    }
    template <class X>
    void observe(const observed<X>& o) const {
        const index_t n = keys.shape[3];
        for (int r = 0; r < o.rows && n > 0; ++r)
            for (int c = 0; c < o.keys; ++c) {
                const T x = static_cast<T>(o.masked[c * o.stride + r]);
                const index_t row = o.row + r;
                if (o.masked[c * o.stride + r] == -std::numeric_limits<X>::infinity()) continue;
                index_t at = n;
                while (at > 0 && (keys(o.b, o.h, row, at - 1) < 0 || x > logit(o.b, o.h, row, at - 1))) --at;
                if (at == n) continue;
                for (index_t s = n - 1; s > at; --s) {
                    keys(o.b, o.h, row, s) = keys(o.b, o.h, row, s - 1);
                    logit(o.b, o.h, row, s) = logit(o.b, o.h, row, s - 1);
                }
                keys(o.b, o.h, row, at) = o.key + c;
                logit(o.b, o.h, row, at) = x;
            }
    }
};

/// Logits at a stage, dense (b, h, n, m), or of chosen rows only: (b, h, rows.size(), m). Every pair is computed, seen
/// or hidden: a hidden one reads its raw and scored logit, -inf at stage masked, 0 at probability. Keys that a head of
/// a cache does not hold, though another does, have no logit: -inf at all stages, 0 at probability.
template <class T>
struct logits {
    using role = roles::probe;
    static constexpr bool observes_rows = true;
    static constexpr bool observes_hidden = true;
    view<T, 4> out;
    stage at;
    detail::chosen_rows chosen;
    logits(view<T, 4> v, stage s, std::span<const index_t> rows = {}) : out(v), at(s), chosen{rows} {}
    void reads(const view_visitor& see) const { see(chosen.rows, "logits (rows)"); }
    void writes(const view_visitor& see) const { see(out, "logits"); }
    void check(const char* op, const extents_of_scores& s) const {
        const index_t n = chosen.count(s.N);
        require_shape(out.shape == extents<4>{s.B, s.H, n, s.M}, op, "logits has shape (", out.shape[0], ", ",
                      out.shape[1], ", ", out.shape[2], ", ", out.shape[3], "), expected (", s.B, ", ", s.H, ", ", n,
                      ", ", s.M, ")");
        chosen.check(op, "logits", s.N);
    }
    void start(index_t b, index_t h, index_t row) const {
        const auto none = static_cast<T>(at == stage::probability ? 0 : -std::numeric_limits<float>::infinity());
        chosen.each_place(row, [&](index_t place) {
            for (index_t j = 0; j < out.shape[3]; ++j) out(b, h, place, j) = none;
        });
    }
    bool wants(index_t, index_t, range rows) const { return chosen.some_of(rows); }
    template <class X>
    void observe(const observed<X>& o) const {
        const X* x = o.at(at);
        for (int r = 0; r < o.rows; ++r)
            chosen.each_place(o.row + r, [&](index_t place) {
                for (int c = 0; c < o.keys; ++c)
                    out(o.b, o.h, place, o.key + c) = static_cast<T>(x[c * o.stride + r]);
            });
    }
};

}  // namespace heed::inline HEED_ABI
