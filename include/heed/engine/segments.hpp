// Sequences cut into segments that run at once, for those too few and narrow to share out by channels.
//
//   multiply(segment)        what it does to any state before it; the last of a sequence is left out
//   join(of, parts)          of one sequence and block of channels, of(0), ..., of(parts - 1): the states before each
//   write(segment)           the scan of each, from the state before it
// Cost: all but one segment are met twice. A sequence that is not cut is one segment, and only written.
#pragma once

#include "../core/context.hpp"
#include "sequences.hpp"

namespace heed::inline HEED_ABI::detail {

/// A segment of a sequence in a block of channels.
struct segment_place {
    index_t number;            // among all
    index_t sequence, column;  // column: which block of channels
    range tokens;              // of the sequence
    bool first, last;          // of the sequence
};

class segments {
public:
    segments(const sequences& order, index_t tokens, index_t columns)
        : order_(order),
          tokens_(tokens),
          columns_(columns),
          parts_(tokens ? std::max<index_t>(1, ceil_div(order.longest(), tokens)) : 1) {}

    index_t count() const { return order_.count() * parts_ * columns_; }

    /// What these are called with has the worker's number behind.
    template <class E, class Multiply, class Join, class Write>
    void run(E& pool, const Multiply& multiply, const Join& join, const Write& write) const {
        if (tokens_ > 0) {
            for_tasks(pool, count(), [&](index_t task, index_t worker) {
                const segment_place at = place(task);
                if (!at.last && !at.tokens.empty()) multiply(at, worker);
            });
            for_tasks(pool, order_.count() * columns_, [&](index_t task, index_t worker) {
                const index_t sequence = task / columns_, column = task % columns_;
                const auto of = [&](index_t part) { return place((sequence * parts_ + part) * columns_ + column); };
                index_t parts = 1;
                while (!of(parts - 1).last) ++parts;
                join(of, parts, worker);
            });
        }
        for_tasks(pool, count(), [&](index_t task, index_t worker) {
            const segment_place at = place(task);
            if (at.last || !at.tokens.empty()) write(at, worker);
        });
    }

private:
    segment_place place(index_t task) const {
        const index_t part = task / columns_ % parts_, sequence = task / columns_ / parts_;
        const index_t n = order_.tokens(sequence).size(), length = tokens_ ? tokens_ : n;
        const range tokens{std::min(n, part * length), std::min(n, (part + 1) * length)};
        const bool last = tokens.last == n && (part == 0 || !tokens.empty());
        return {task, sequence, task % columns_, tokens, part == 0, last};
    }

    sequences order_;
    index_t tokens_, columns_, parts_;
};

/// Tokens of a segment, as the form of a scan says; 0: sequences are not cut.
template <class... P>
index_t segment_tokens(const char* op, const P&... policies) {
    const auto form = pick<roles::form>(recurrent{}, policies...);
    static_assert(!std::is_same_v<std::remove_const_t<decltype(form)>, parallel>,
                  "heed: a scan is recurrent or chunked");
    if constexpr (requires { form.tokens; }) {
        form.check(op);
        return form.tokens;
    }
    return 0;
}

/// What the channels of a place carry, (rows, channels), of a state (sequences, C, rows); no data if there is no state.
template <class State, class Place>
view<State, 2> carried_rows(const view<State, 3>& state, const Place& at, index_t rows) {
    State* const data =
        state.data ? state.data + at.sequence * state.strides[0] + at.block.first * state.strides[1] : nullptr;
    return {data,
            {rows, at.block.channels},
            {state.strides[2], state.strides[1]}};
}

/// A call made of segments in blocks of channels has cut(pool), the blocks; `segment`, tokens; cuts(blocks), the
/// segments; joint_rows(), how many numbers of T a channel hands from one segment to the next; space(carver, width), what
/// a worker works in, and its size; place_of(at, blocks, joint), a segment as multiply, join and write take it.
template <class T, class Call, class E>
std::size_t scratch_of_segments(const Call& call, E& pool) {
    const channel_cut blocks = call.cut(pool);
    carver joints;
    joints.take<T>(call.segment ? call.cuts(blocks).count() * call.joint_rows() * blocks.widest() : 0);
    return joints.used() + static_cast<std::size_t>(pool.width()) * call.space(carver(), blocks.widest()).size;
}
template <class T, class Call, class E>
void run_segments(const Call& call, E& pool, std::byte* scratch) {
    const channel_cut blocks = call.cut(pool);
    const index_t width = blocks.widest();
    if (width == 0) return;
    const segments all = call.cuts(blocks);
    carver from(scratch);
    T* const joints = from.take<T>(call.segment ? all.count() * call.joint_rows() * width : 0);
    const auto own = [&, first = scratch + from.used(), size = call.space(carver(), width).size](index_t worker) {
        return call.space(carver(first + static_cast<std::size_t>(worker) * size), width);
    };
    const auto place = [&](const segment_place& at) {
        return call.place_of(at, blocks, joints + at.number * call.joint_rows() * width);
    };
    all.run(
        pool, [&](const segment_place& at, index_t worker) { call.multiply(place(at), own(worker)); },
        [&](const auto& of, index_t parts, index_t worker) {
            call.join([&](index_t part) { return place(of(part)); }, parts, own(worker));
        },
        [&](const segment_place& at, index_t worker) { call.write(place(at), own(worker)); });
}

}  // namespace heed::inline HEED_ABI::detail
