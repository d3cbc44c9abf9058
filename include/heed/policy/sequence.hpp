// How a recurrence walks its tokens, and in which form it is computed.
#pragma once

#include <span>
#include <tuple>

#include "roles.hpp"
#include "token_walk.hpp"

namespace heed::inline HEED_ABI {

/// From the last token to the first. A final state is that after the first token.
struct reversed {
    using role = roles::order;
};

/// Every query reads the state after the last token; queries need not be of those tokens, nor as many (cross
/// attention).
struct non_causal {
    using role = roles::order;
};

namespace detail {
/// No output (absorb), or no update (recall).
struct only_write {
    using role = roles::order;
};
struct only_read {
    using role = roles::order;
};
}  // namespace detail

/// First token to last (the default).
struct causal_order {
    using role = roles::order;
};

/// Sequences side by side: sequence s has tokens [offsets[s], offsets[s + 1]) of the only batch entry; states begin anew, and
/// there is a state a sequence.
struct packed {
    using role = roles::packed;
    std::span<const index_t> offsets;
    explicit packed(std::span<const index_t> o) : offsets(o) {}

    index_t sequences() const { return static_cast<index_t>(offsets.size()) - 1; }
    auto parameters() const {
        return std::tuple(view<const index_t, 1>{offsets.data(), {static_cast<index_t>(offsets.size())}, {1}});
    }
    void check(const char* op, index_t B, index_t N) const {
        require_shape(B == 1, op, "packed sequences are in one batch entry, q has ", B);
        require_shape(!offsets.empty() && offsets.front() == 0, op, "packed offsets do not begin with 0");
        for (std::size_t s = 1; s < offsets.size(); ++s)
            require_argument(offsets[s - 1] <= offsets[s], op, "packed offsets fall from ", offsets[s - 1], " to ",
                             offsets[s]);
        require_shape(offsets.back() == N, op, "packed offsets end at ", offsets.back(), ", there are ", N, " tokens");
    }
};

/// Every batch entry is a sequence (the default).
struct not_packed {
    using role = roles::packed;
};

namespace detail {

/// How many sequences a call has, and so states.
template <class... P>
index_t count_sequences(index_t B, const P&... policies) {
    const auto side_by_side = pick<roles::packed>(not_packed{}, policies...);
    if constexpr (std::is_same_v<decltype(side_by_side), const packed>)
        return side_by_side.sequences();
    else
        return B;
}

/// The tokens of sequence b in their order; of N, unless sequences are packed.
template <class Order, class Sequences>
token_walk walk_of(const Sequences& sequences, index_t b, index_t N) {
    token_walk all{b, 0, 1, N};
    if constexpr (std::is_same_v<Sequences, packed>) {
        const auto i = static_cast<std::size_t>(b);
        all = {0, sequences.offsets[i], 1, sequences.offsets[i + 1] - sequences.offsets[i]};
    }
    if constexpr (std::is_same_v<Order, reversed>) {
        all.first += all.count - 1;
        all.step = -1;
    }
    return all;
}

}  // namespace detail

/// Token by token.
struct recurrent {
    using role = roles::form;
};

/// c tokens at a time, as matrix products, and the state between.
struct chunked {
    using role = roles::form;
    index_t tokens;
    explicit chunked(index_t c) : tokens(c) {}
    void check(const char* op) const { require_argument(tokens >= 1, op, "chunked has ", tokens, " tokens, the least is 1"); }
};

/// All tokens at once: N^2 products, in blocks; the state is met at the ends only.
struct parallel {
    using role = roles::form;
};

/// Whichever is fastest for the shape (the default).
struct fastest_form {
    using role = roles::form;
};

/// o_t = S^T q / max(q . z_t, floor), where z is the same recurrence over values of 1: the weights of a row sum to 1. With
/// `absolute`, |q . z| in its place. Where that denominator is 0 the output is 0.
struct sum_of_keys {
    using role = roles::normaliser;
    double floor = 0;
    bool absolute = false;
    explicit sum_of_keys(double least = 0, bool of_magnitude = false) : floor(least), absolute(of_magnitude) {}

    template <class T>
    T factor(T sum, index_t, index_t, index_t) const {
        if (absolute) sum = sum < 0 ? -sum : sum;
        const T least = static_cast<T>(floor);
        if (least > 0 && sum < least) sum = least;
        return sum == 0 ? T(0) : 1 / sum;
    }
};

/// Outputs as they are (the default).
struct not_normalised {
    using role = roles::normaliser;
};

}  // namespace heed::inline HEED_ABI
