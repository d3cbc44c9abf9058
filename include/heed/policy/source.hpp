// Sources: where keys and values come from. `attention(q, source, o, ...)` reads a cache as it reads k and v.
//
// A source is read by runs: stretches of keys that lie evenly in memory. Key j is the j-th a source holds, in order of
// position; it stands at position j, unless the source says otherwise by positions().
#pragma once

#include <concepts>
#include <cstddef>

#include "../core/view.hpp"
#include "../simd/stored_rows.hpp"

namespace heed::inline HEED_ABI {

/// Consecutive keys whose rows lie evenly in memory: key keys.first is row 0 of k and v. Never empty.
template <class K, class V>
struct source_run {
    range keys;
    K k;
    V v;
};

/// What attention needs of a source. Optional members:
///   positions(b, g)   const index_t*: position of each key, increasing; without it (or nullptr) key j stands at j
///   end(b)            one past the position of the newest token; without it keys(b, 0)
///   check_rows(op, n) throws where it cannot answer queries of the newest n tokens
///   turn_query(T*)    maps a query row (key_width), linearly, into the space the keys are stored in
///   turn_output(T*)   maps an output row (value_width), linearly, out of the space the values are stored in
///   memory()          std::span<const std::byte> of what it reads, for the check that the output lies elsewhere
template <class S>
concept key_value_source = requires(const S& s, index_t b, index_t g, index_t j) {
    typename S::key_rows;
    typename S::value_rows;
    { s.batch() } -> std::convertible_to<index_t>;        // B
    { s.heads() } -> std::convertible_to<index_t>;        // G
    { s.keys(b, g) } -> std::convertible_to<index_t>;     // how many keys this head of this sequence holds
    { s.key_width() } -> std::convertible_to<index_t>;    // D
    { s.value_width() } -> std::convertible_to<index_t>;  // E
    { s.run(b, g, j) } -> std::same_as<source_run<typename S::key_rows, typename S::value_rows>>;  // the run from key j on
};

/// k (B, G, M, D) and v (B, G, M, E) as a source.
template <class K, class V>
struct view_source {
    using key_rows = plain_rows<K>;
    using value_rows = plain_rows<V>;
    view<const K> k;
    view<const V> v;

    index_t batch() const { return k.shape[0]; }
    index_t heads() const { return k.shape[1]; }
    index_t keys(index_t, index_t) const { return k.shape[2]; }
    index_t key_width() const { return k.shape[3]; }
    index_t value_width() const { return v.shape[3]; }
    source_run<key_rows, value_rows> run(index_t b, index_t g, index_t j) const {
        return {{j, k.shape[2]},
                {k.data + b * k.strides[0] + g * k.strides[1] + j * k.strides[2], k.strides[2], k.strides[3]},
                {v.data + b * v.strides[0] + g * v.strides[1] + j * v.strides[2], v.strides[2], v.strides[3]}};
    }
};

}  // namespace heed::inline HEED_ABI
