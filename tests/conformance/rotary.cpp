// ONNX RotaryEmbedding, opset 23, by heed::rotary.
#include <heed/ops/rotary.hpp>
#include <heed/ref/rotary.hpp>

#include <numeric>

#include "operand.hpp"

namespace conformance {
namespace {

/// The caches of the case: (P, width / 2) with ids (B, N), (B, N, width / 2) without.
template <class T>
struct angles {
    std::vector<T> cos, sin;
    std::vector<std::int64_t> ids;
    index_t P = 0, pairs = 0;
};

template <class T, class Pairing>
void run_heed(const view<T>& x, const view<T>& o, index_t width, const angles<T>& a, Pairing pairing) {
    const index_t B = x.shape[0], N = x.shape[2];
    if (a.P == 0)
        rotary(x, o, rotated{width}, pairing,
               rotary_cache{dense(a.cos.data(), {B, N, a.pairs}), dense(a.sin.data(), {B, N, a.pairs})});
    else
        rotary(x, o, rotated{width}, pairing, positions{dense(a.ids.data(), {B, N})},
               rotary_cache{dense(a.cos.data(), {a.P, a.pairs}), dense(a.sin.data(), {a.P, a.pairs})});
}

template <class T>
void run_reference(const view<T>& x, const view<T>& o, index_t width, const angles<T>& a, bool interleave) {
    const index_t N = x.shape[2];
    ref::rotary(x, o, width, interleave, [&](index_t b, index_t n, index_t pair) {
        const index_t token = b * N + n;
        const index_t row = a.P == 0 ? token : static_cast<index_t>(a.ids[static_cast<std::size_t>(token)]);
        const auto at = static_cast<std::size_t>(row * a.pairs + pair);
        return ref::turn{static_cast<double>(a.cos.at(at)), static_cast<double>(a.sin.at(at))};
    });
}

/// `count` times what is there.
template <class T>
std::vector<T> repeated(const std::vector<T>& once, index_t count) {
    std::vector<T> all;
    for (index_t i = 0; i < count; ++i) all.insert(all.end(), once.begin(), once.end());
    return all;
}

/// position_ids as (B, N): given so; one row, for all sequences; or one number, the position of the first token.
std::vector<std::int64_t> ids_of(const array& a, index_t B, index_t N) {
    using shape = std::vector<index_t>;
    auto ids = a.as<std::int64_t>();
    if (a.shape == shape{1} && N != 1) {
        ids.resize(static_cast<std::size_t>(N));
        std::iota(ids.begin(), ids.end(), ids[0]);
        return repeated(ids, B);
    }
    if (a.shape == shape{N} || a.shape == shape{1, N}) return repeated(ids, B);
    require(a.shape == shape{B, N}, "position_ids is not one number a token");
    return ids;
}

template <class T>
double replay(golden_case& g, engine by, const array& X) {
    require(X.rank() == 3 || X.rank() == 4, "the input has rank " + std::to_string(X.rank()));
    const index_t heads_given = g.integer("num_heads", 0);
    const bool packed = X.rank() == 3;
    require(!packed || heads_given > 0, "the input has rank 3, and num_heads is missing");
    require(packed || heads_given == 0 || heads_given == X.shape[1], "num_heads is not that of the input");
    require(!packed || X.shape[2] % heads_given == 0, "the input does not divide into num_heads heads");
    auto data = X.as<T>();
    std::vector<T> out(data.size());
    const auto see = [&](T* p) {
        return packed ? tokens(p, {X.shape[0], X.shape[1], heads_given, X.shape[2] / heads_given})
                      : heads(p, {X.shape[0], X.shape[1], X.shape[2], X.shape[3]});
    };
    const view<T> x = see(data.data()), o = see(out.data());
    const index_t B = x.shape[0], N = x.shape[2], D = x.shape[3];

    index_t width = g.integer("rotary_embedding_dim", 0);
    if (width == 0) width = D;
    const auto interleave = g.integer("interleaved", 0);
    require(interleave == 0 || interleave == 1, "interleaved is neither 0 nor 1");

    const array &cos = g.needed("cos_cache"), &sin = g.needed("sin_cache");
    require(cos.shape == sin.shape, "cos_cache and sin_cache differ in shape");
    angles<T> a{cos.as<T>(), sin.as<T>(), {}, 0, width / 2};
    require(cos.rank() > 0 && cos.shape.back() == a.pairs, "the caches do not hold width / 2 pairs");
    if (const array* ids = g.input("position_ids")) {
        require(cos.rank() == 2, "caches with position_ids have rank 2");
        a.ids = ids_of(*ids, B, N);
        a.P = cos.shape[0];
    } else {
        const bool one_row = cos.shape == std::vector<index_t>{1, N, a.pairs};
        require(one_row || cos.shape == std::vector<index_t>{B, N, a.pairs},
                "caches without position_ids are (B, N, width / 2)");
        if (one_row) a.cos = repeated(a.cos, B), a.sin = repeated(a.sin, B);
    }

    if (by == engine::reference)
        run_reference(x, o, width, a, interleave == 1);
    else if (interleave)
        run_heed(x, o, width, a, interleaved{});
    else
        run_heed(x, o, width, a, half_split{});

    const array *named = g.output("output"), *want = named ? named : g.output("Y");
    require(want && want->type == X.type, "the output is missing, or has another type than the input");
    return compare("output", X.shape, out, *want, tolerance_of(X.type));
}

}  // namespace

double replay_rotary(golden_case& c, engine by) {
    const array* named = c.input("input");
    const array& X = named ? *named : c.needed("X");
    return with_type(X.type, [&](auto zero) { return replay<decltype(zero)>(c, by, X); });
}

}  // namespace conformance
