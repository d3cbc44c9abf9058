// A cache in a file, larger than memory if need be, that outlives its process [51].
//
// Rows lie head by head in segments of tokens, so a decode step streams long runs from the page cache. Every append
// writes its rows, then publishes the new count of tokens in one checksummed record (see mapped_format.hpp):
//   SIGKILL     loses nothing: an append that returned is there, one that did not is there whole or not at all
//   power loss  spares the first synced() tokens; rows behind them may never have reached the disk
// One process appends at a time. Reading a file that another program cuts off raises SIGBUS, as all mapped files do.
#pragma once

#if __has_include(<sys/mman.h>) && !defined(__APPLE__)

#include <atomic>
#include <span>
#include <tuple>

#include "mapped_file.hpp"
#include "mapped_format.hpp"
#include "row_memory.hpp"

namespace heed::inline HEED_ABI {

/// How an existing file is opened.
enum class mapped_access { append, read };

/// Keys of storage type K, values of V. A key_value_source; its runs are good until the next append or reserve.
template <storage K, storage V = K>
class mapped_cache {
public:
    using key_rows = plain_rows<K>;
    using value_rows = plain_rows<V>;

    /// A new file; it grows by segments of that many tokens (see reserve). Rows of a head are contiguous in a segment.
    /// Throws argument_error where the file exists, or cannot be made: then there is none. (A kill in the middle leaves
    /// a file that open refuses.)
    static mapped_cache create(std::string path, const cache_shape& shape, index_t segment = 4096) {
        shape.check(op);
        header h;
        h.key_type = detail::storage_code<K>;
        h.value_type = detail::storage_code<V>;
        std::tie(h.B, h.G, h.D, h.E, h.segment) = std::tie(shape.B, shape.G, shape.D, shape.E, segment);
        h.key_stride = stride<K>(shape.D);
        h.value_stride = stride<V>(shape.E);
        h.sum = h.right_sum();
        const layout where(op, h, sizeof(K), sizeof(V));
        detail::mapped_file file(op, std::move(path), detail::file_use::create);
        file.allocate({0, layout::block});
        mapped_cache cache(std::move(file), h, where);
        std::memcpy(cache.file_.data(), &h, sizeof h);
        cache.publish(0, 0);
        cache.file_.finish();
        return cache;
    }

    /// An existing file. Throws argument_error where it is no cache of K and V, is damaged or too short, cannot be
    /// read, or is being appended to by another (unless it is opened to read).
    static mapped_cache open(std::string path, mapped_access access = mapped_access::append) {
        const bool append = access == mapped_access::append;
        detail::mapped_file file(op, std::move(path), append ? detail::file_use::append : detail::file_use::read);
        require_argument(file.size() >= layout::block, op, file.path(), " holds ", file.size(),
                         " bytes, the header alone needs ", layout::block);
        file.map();
        header h;
        std::memcpy(&h, file.data(), sizeof h);
        h.check(op, file.path(), detail::storage_code<K>, detail::storage_code<V>);
        const layout where(op, h, sizeof(K), sizeof(V));
        mapped_cache cache(std::move(file), h, where);
        cache.recover();
        // Blocks that a copy of the file may have left out.
        if (append) cache.file_.allocate({cache.layout_.file_bytes(cache.size() / cache.segment()), cache.bytes()});
        return cache;
    }
    /// The same; throws shape_error where the file has other extents.
    static mapped_cache open(std::string path, const cache_shape& want, mapped_access access = mapped_access::append) {
        mapped_cache cache = open(std::move(path), access);
        const auto same = [&](const char* name, index_t has, index_t wanted) {
            require_shape(has == wanted, op, cache.file_.path(), " has ", name, " ", has, ", not ", wanted);
        };
        same("B", cache.shape_.B, want.B), same("G", cache.shape_.G, want.G);
        same("D", cache.shape_.D, want.D), same("E", cache.shape_.E, want.E);
        return cache;
    }

    /// Appends n tokens, k (B, G, n, D) and v (B, G, n, E), all of them or none. Throws, and changes nothing, on other
    /// shapes, on a cache opened to read, and where the disk is full.
    template <class X, class Y>
    void append(const X& k, const Y& v) {
        const auto from_k = as_view(k);
        const auto from_v = as_view(v);
        const index_t n = detail::check_append(op, shape_, shape_.B, from_k, from_v);
        detail::check_apart(op, memory(), from_k, "k");
        detail::check_apart(op, memory(), from_v, "v");
        grow(n);
        for (index_t done = 0; done < n;) {
            const index_t j = size() + done, last = std::min(n, done + segment() - j % segment());
            const auto part = [&](const auto& x, index_t b, index_t g) {
                return detail::head_of(slice(x, 2, {done, last}), b, g);
            };
            for (index_t b = 0; b < shape_.B; ++b)
                for (index_t g = 0; g < shape_.G; ++g) {
                    keys_of(j / segment()).write(head(b, g), j % segment(), part(from_k, b, g));
                    values_of(j / segment()).write(head(b, g), j % segment(), part(from_v, b, g));
                }
            done = last;
        }
        publish(size() + n, synced());
    }

    /// Drops the last n tokens. Tokens that sync() made safe are dropped on the disk before this returns.
    void truncate(index_t n) {
        check_writable();
        detail::check_truncate(op, size(), n);
        const index_t left = size() - n;
        if (left < synced()) publish_on_disk(size(), left);
        publish(left, std::min(left, synced()));
    }

    /// Makes the file large enough for that many tokens in all.
    void reserve(index_t tokens) {
        require_argument(tokens >= 0, op, "cannot reserve ", tokens, " tokens");
        grow(std::max<index_t>(0, tokens - size()));
    }

    /// Waits until all tokens are on the disk (the name of a new file is for its directory to keep).
    void sync() {
        check_writable();
        if (const int error = file_.flush(bytes())) file_.fail(error);
        publish_on_disk(size(), size());
    }

    index_t size() const { return commit_.tokens; }
    /// How many tokens the last sync() made safe, less those truncated since. After a power loss, and only then, tokens
    /// behind them may be damaged: truncate(size() - synced()).
    index_t synced() const { return commit_.synced; }
    /// Bytes of the file.
    index_t bytes() const { return layout_.file_bytes(segments_); }
    const cache_shape& shape() const { return shape_; }
    /// Tokens of a segment: the longest run.
    index_t segment() const { return layout_.segment; }

    index_t batch() const { return shape_.B; }
    index_t heads() const { return shape_.G; }
    index_t keys(index_t, index_t) const { return size(); }
    index_t key_width() const { return shape_.D; }
    index_t value_width() const { return shape_.E; }
    source_run<key_rows, value_rows> run(index_t b, index_t g, index_t j) const {
        const index_t s = j / segment(), row = j % segment();
        return {{j, std::min((s + 1) * segment(), size())},
                keys_of(s).from(head(b, g), row),
                values_of(s).from(head(b, g), row)};
    }
    std::span<const std::byte> memory() const { return {file_.data(), static_cast<std::size_t>(bytes())}; }

private:
    static constexpr const char* op = "mapped_cache";
    using header = detail::mapped_header;
    using commit = detail::mapped_commit;
    using layout = detail::mapped_layout;

    mapped_cache(detail::mapped_file file, const header& h, const layout& where)
        : file_(std::move(file)), shape_{h.B, h.G, h.D, h.E}, layout_(where), segments_(where.segments(file_.size())) {}

    template <class S>
    static index_t stride(index_t width) {
        return layout::product(op, width, sizeof(S)), detail::row_stride<S>(width);
    }
    index_t head(index_t b, index_t g) const { return b * shape_.G + g; }
    /// The rows of a segment, a plane for each head.
    detail::row_planes<K> keys_of(index_t s) const {
        return {reinterpret_cast<K*>(file_.data() + layout_.file_bytes(s)), segment(), shape_.D, layout_.key_stride};
    }
    detail::row_planes<V> values_of(index_t s) const {
        return {reinterpret_cast<V*>(file_.data() + layout_.file_bytes(s) + layout_.key_bytes), segment(), shape_.E,
                layout_.value_stride};
    }

    void check_writable() const { require_argument(file_.writable(), op, file_.path(), " is open to read only"); }

    /// Room for n more tokens, or an error and no change.
    void grow(index_t n) {
        check_writable();
        require_argument(n <= layout::limit - size(), op, "cannot hold ", n, " tokens more than ", size());
        const index_t need = layout_.segments_for(op, size() + n);
        if (need <= segments_) return;
        file_.allocate({bytes(), layout_.file_bytes(need)});
        segments_ = need;
    }

    /// Makes the counts of tokens true for whoever opens the file from now on. A record half written has a wrong sum,
    /// and the other one, which is the state before, holds.
    void publish(index_t tokens, index_t synced) {
        commit next{commit_.sequence + 1, tokens, synced, 0};
        next.sum = next.right_sum();
        std::array<std::uint64_t, sizeof next / sizeof(std::uint64_t)> words;
        std::memcpy(words.data(), &next, sizeof next);
        auto* to = reinterpret_cast<volatile std::uint64_t*>(file_.data() + layout::commit_at[next.sequence % 2]);
        std::atomic_thread_fence(std::memory_order_seq_cst);  // rows stand before they count
        for (std::size_t w = 0; w < words.size(); ++w) to[w] = words[w];
        std::atomic_thread_fence(std::memory_order_seq_cst);  // dropped rows do not count before others stand there
        commit_ = next;
    }
    void publish_on_disk(index_t tokens, index_t synced) {
        const commit before = commit_;
        publish(tokens, synced);
        if (const int error = file_.flush(layout::block)) {
            publish(before.tokens, before.synced);
            file_.fail(error);
        }
    }

    /// Takes the newest commit record that is whole.
    void recover() {
        for (const index_t place : layout::commit_at) {
            commit c;
            std::memcpy(&c, file_.data() + place, sizeof c);
            if (c.whole() && c.sequence > commit_.sequence) commit_ = c;
        }
        require_argument(commit_.sequence > 0, op, file_.path(), " is damaged: no commit record has its checksum");
        const index_t need = layout_.segments_for(op, size());
        require_argument(need <= segments_, op, file_.path(), " is cut off: it holds ", file_.size(), " bytes, its ",
                         size(), " tokens need ", layout_.file_bytes(need));
    }

    detail::mapped_file file_;
    cache_shape shape_;
    layout layout_;
    index_t segments_ = 0;
    commit commit_;
};

}  // namespace heed::inline HEED_ABI

#else

namespace heed::inline HEED_ABI {
template <storage K, storage V = K>
class mapped_cache {
    static_assert(sizeof(K) == 0, "heed: mapped_cache needs POSIX (mmap and posix_fallocate)");
};
}  // namespace heed::inline HEED_ABI

#endif
