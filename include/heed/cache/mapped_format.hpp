// The file of a mapped cache: one block of records, then segments of rows.
//
//   block 0    the header, written once; two commit records, written in turn, each in a sector of its own
//   segment s  keys (B, G, segment, D), then values (B, G, segment, E) of the tokens [s segment, (s + 1) segment)
// The newest commit record whose checksum holds says how many tokens there are, so rows beyond it do not exist yet.
// Every record ends with a checksum of what stands before it; rows have none.
#pragma once

#include <array>
#include <cstdint>
#include <cstring>
#include <limits>

#include "shape.hpp"

namespace heed::inline HEED_ABI::detail {

/// FNV-1a, 64 bits.
inline std::uint64_t checksum(const void* data, std::size_t bytes) {
    std::uint64_t sum = 0xcbf29ce484222325u;
    const auto* p = static_cast<const unsigned char*>(data);
    for (std::size_t i = 0; i < bytes; ++i) sum = (sum ^ p[i]) * 0x100000001b3u;
    return sum;
}

/// The code of a storage type in the header, and its name in errors.
template <class S>
inline constexpr std::uint32_t storage_code = std::is_same_v<S, float>    ? 1
                                              : std::is_same_v<S, double> ? 2
                                              : std::is_same_v<S, bf16>   ? 3
                                                                          : 4;
inline const char* storage_name(std::uint32_t code) {
    constexpr const char* names[] = {"unknown type", "float", "double", "bf16", "f16"};
    return names[code < 5 ? code : 0];
}

struct mapped_header {
    std::array<char, 8> magic{'h', 'e', 'e', 'd', ' ', 'k', 'v', '\n'};
    std::uint32_t byte_order = 0x01020304;
    std::uint32_t version = 1;
    std::uint32_t key_type = 0, value_type = 0;
    std::int64_t B = 0, G = 0, D = 0, E = 0;
    std::int64_t key_stride = 0, value_stride = 0;  // from row to row, in elements
    std::int64_t segment = 0;                       // tokens
    std::uint64_t sum = 0;

    std::uint64_t right_sum() const { return checksum(this, offsetof(mapped_header, sum)); }
    /// Throws argument_error where it is not the header of a cache of these types.
    void check(const char* op, const std::string& path, std::uint32_t keys, std::uint32_t values) const {
        const auto require = [&](bool ok, const auto&... parts) { require_argument(ok, op, path, parts...); };
        const mapped_header mine;
        require(magic == mine.magic, " is not a mapped cache");
        require(byte_order == mine.byte_order, " was written on a machine of other byte order");
        require(version == mine.version, " has format ", version, ", this is heed's format ", mine.version);
        require(sum == right_sum(), " is damaged: the checksum of its header does not match");
        require(key_type == keys && value_type == values, " holds keys of ", storage_name(key_type), " and values of ",
                storage_name(value_type), ", not ", storage_name(keys), " and ", storage_name(values));
    }
};

/// How many tokens there are, and how many of them the last sync() made safe against power loss.
struct mapped_commit {
    std::uint64_t sequence = 0;
    std::int64_t tokens = 0, synced = 0;
    std::uint64_t sum = 0;

    std::uint64_t right_sum() const { return checksum(this, offsetof(mapped_commit, sum)); }
    bool whole() const { return sum == right_sum() && 0 <= synced && synced <= tokens; }
};

/// Where things stand in the file, in bytes.
struct mapped_layout {
    static constexpr index_t block = 4096;
    static constexpr index_t commit_at[] = {1024, 2048};
    static constexpr index_t limit = std::numeric_limits<index_t>::max() / 8;  // leaves room to add and to round up

    index_t segment = 1;                       // tokens
    index_t key_stride = 0, value_stride = 0;  // elements
    index_t key_bytes = 0, value_bytes = 0;    // of a segment, on cache lines

    /// Throws argument_error on extents out of range, and where a segment is larger than any file.
    mapped_layout(const char* op, const mapped_header& h, index_t key_size, index_t value_size)
        : segment(h.segment), key_stride(h.key_stride), value_stride(h.value_stride) {
        require_argument(segment >= 1, op, "segment is ", segment, ", the least is 1");
        require_argument(key_stride >= h.D && value_stride >= h.E, op, "rows of ", h.D, " and ", h.E,
                         " elements stand ", key_stride, " and ", value_stride, " apart");
        cache_shape{h.B, h.G, h.D, h.E}.check(op);
        const index_t rows = product(op, product(op, h.B, h.G), segment);
        key_bytes = round_up(product(op, rows, product(op, key_stride, key_size)), 64);
        value_bytes = round_up(product(op, rows, product(op, value_stride, value_size)), 64);
    }
    index_t segment_bytes() const { return key_bytes + value_bytes; }
    index_t file_bytes(index_t segments) const { return block + segments * segment_bytes(); }
    /// Whole segments in a file of that size.
    index_t segments(index_t bytes) const {
        return segment_bytes() == 0 ? limit / segment : (bytes - block) / segment_bytes();
    }
    /// How many segments hold that many tokens; throws where no file could.
    index_t segments_for(const char* op, index_t tokens) const {
        const index_t n = ceil_div(tokens, segment);
        product(op, n, segment_bytes());
        return n;
    }
    /// a b, or an error where it is beyond any file.
    static index_t product(const char* op, index_t a, index_t b) {
        require_argument(a == 0 || b <= limit / a, op, a, " times ", b, " bytes are more than a file can hold");
        return a * b;
    }
};

}  // namespace heed::inline HEED_ABI::detail
