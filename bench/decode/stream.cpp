// A stream appends a token and attends: its keys lie in a ring that moves, its sinks turn with it.
#include <heed/ref/rotary.hpp>

#include "decoder.hpp"

namespace bench {
namespace {

constexpr index_t G = decode_step::G, D = decode_step::D, turned = D / 2, sinks = 4;

/// Token t of a stream is token t mod M of M.
template <class S>
struct ring {
    std::shared_ptr<const prompt> x;
    stream_cache<S> cache;

    ring(index_t M, index_t window)
        : x(prompt_of(M)),
          cache({1, G, D, D}, residency{.sinks = sinks, .window = window}, theta{10000}, rotated{turned}) {}

    void append(index_t most) {
        const index_t M = x->k.shape[2], first = cache.size() % M;
        const range part{first, std::min(M, first + most)};
        cache.append(slice(x->k, 2, part), slice(x->v, 2, part));
    }
};

/// The definition over the tokens held of those seen: sinks, whose keys are turned by the tokens forgotten, and window.
std::vector<double> exactly_held(const prompt& x, index_t seen, index_t window) {
    const index_t M = x.k.shape[2], held = std::min(seen, sinks + window), forgotten = seen - held;
    std::vector<float> memory(static_cast<std::size_t>(2 * G * held * D));
    const auto k = heads(memory.data(), {1, G, held, D}), v = heads(memory.data() + G * held * D, {1, G, held, D});
    for (index_t g = 0; g < G; ++g)
        for (index_t j = 0; j < held; ++j)
            for (index_t d = 0; d < D; ++d) {
                const index_t token = (j < sinks ? j : j + forgotten) % M;
                k(0, g, j, d) = x.k(0, g, token, d);
                v(0, g, j, d) = x.v(0, g, token, d);
            }
    const auto first = slice(k, 2, range{0, std::min(held, sinks)});
    ref::rotary(first, first, turned, false, [&](index_t, index_t, index_t pair) {
        return ref::rotary_turn(static_cast<double>(forgotten), pair, turned);
    });
    return exactly(x.q, k, v);
}

template <class S>
prepared prepare(const decode_step& s, index_t M, index_t window) {
    const auto stream = std::make_shared<ring<S>>(M, window);
    while (stream->cache.size() < s.M - 1) stream->append(s.M - 1 - stream->cache.size());
    const auto to = std::make_shared<answer>();
    const job attention = attend(s, stream->x, std::shared_ptr<stream_cache<S>>(stream, &stream->cache), to);
    const auto run = [stream, attention] {
        stream->append(1);
        attention();
    };
    promise given = plain<S>(std::min(s.M, sinks + window));
    given.right = exactly_held(*stream->x, s.M, window);
    return judged(*stream->x, *to, run, given);
}

template <class S>
prepared usual(const decode_step& s) {
    return prepare<S>(s, s.M, 2044);
}

}  // namespace

std::vector<decoder> stream_decoders() {
    return {{"stream", "f32", "heed", usual<float>}, {"stream", "bf16", "heed", usual<bf16>}};
}

measurement stream_of(index_t M, index_t window, const decode_step& s) {
    const decoder by{"stream" + std::to_string(sinks + window), "f32", "heed",
                     [=](const decode_step& at) { return prepare<float>(at, M, window); }};
    return measured(by, s);
}

}  // namespace bench
