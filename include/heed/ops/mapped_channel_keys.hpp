// The keys by channel in a file, beside that of the cache: what SparF [51] reads of keys that memory does not hold.
//
//   auto index = mapped_channel_keys<bf16>::create(path, {B, G, D, E});     // or open(path, cache)
//   cache.append(k, v), index.follow(cache);      sparq_attention(q, cache, index, o, sparq(16, 4096, 64));
// The file is a mapped_cache of blocks: a block of 1024 tokens is one token of it, whose key is the block by channel
// and whose value is the sum of all values up to its end. It is appended when it is full in every head; the tokens
// after it are in memory, and are read again from the cache when both are opened. So a kill loses nothing that the
// cache holds, and costs the reading of tokens that are in no block.
#pragma once

#include "../cache/mapped.hpp"
#include "../select/channel_keys.hpp"

namespace heed::inline HEED_ABI {

/// As channel_keys, but for reorder: a file has the sequences it was made for. A truncate of the cache is to be
/// followed by one of the index; open drops what a kill between them left. No copies: a file has one writer.
template <storage S = float>
class mapped_channel_keys : public channel_keys<S> {
    using in_memory = channel_keys<S>;
    using file_type = mapped_cache<S, double>;

public:
    /// A new file for a cache of these extents, which grows by so many blocks. Throws as mapped_cache::create.
    static mapped_channel_keys create(std::string path, const cache_shape& shape, index_t segment = 4) {
        shape.check("mapped_channel_keys");
        return mapped_channel_keys(file_type::create(std::move(path), blocks_of(shape), segment));
    }
    /// The file that goes with a cache. Blocks of which the cache has not all tokens any more are dropped. Throws as
    /// mapped_cache::open, and argument_error where the last block is of other keys.
    template <key_value_source Source>
    static mapped_channel_keys open(std::string path, const Source& source) {
        const cache_shape shape{source.batch(), source.heads(), source.key_width(), source.value_width()};
        mapped_channel_keys index(file_type::open(std::move(path), blocks_of(shape)));
        index.meet(source);
        index_t full = index.file_.size();
        for (index_t b = 0; b < shape.B; ++b)
            for (index_t g = 0; g < shape.G; ++g) full = std::min(full, source.keys(b, g) / block);
        for (index_t b = 0; b < shape.B && full > 0; ++b)
            for (index_t g = 0; g < shape.G; ++g) index.check_last(source, b, g, full);
        index.file_.truncate(index.file_.size() - full);
        index.lend();
        return index;
    }

    /// Reads the keys the source holds beyond those known, and stores the blocks that are full. Policy: on.
    template <key_value_source Source, class... P>
    void follow(const Source& source, const P&... policies) {
        in_memory::follow(source, policies...);
        const index_t full = full_blocks();
        if (full == file_.size()) return;
        for (index_t n = file_.size(); n < full; ++n) store(n);
        lend();
    }
    void truncate(index_t n) {
        in_memory::truncate(n);
        take_back();
    }
    void truncate(index_t b, index_t n) {
        in_memory::truncate(b, n);
        take_back();
    }
    void reorder(std::span<const index_t>) = delete;
    /// Forgets all, in the file too.
    void clear() {
        in_memory::clear();
        file_.truncate(file_.size());
    }

    /// Waits until the blocks are on the disk.
    void sync() { file_.sync(); }
    /// Tokens of every head that are in the file.
    index_t stored() const { return file_.size() * block; }
    index_t file_bytes() const { return file_.bytes(); }

private:
    static constexpr index_t block = detail::channel_block;
    static cache_shape blocks_of(const cache_shape& x) { return {x.B, x.G, x.D * block, x.E}; }

    explicit mapped_channel_keys(file_type file) : file_(std::move(file)) {}

    template <class F>
    void each_head(const F& f) {
        for (index_t b = 0; b < this->batch(); ++b)
            for (index_t g = 0; g < this->heads(); ++g) f(this->own(b, g), b, g);
    }
    /// Blocks that every head has in full; those of the file where there is no head.
    index_t full_blocks() {
        index_t full = std::numeric_limits<index_t>::max();
        each_head([&](const auto& head, index_t, index_t) { full = std::min(full, head.size() / block); });
        return this->batch() * this->heads() > 0 ? full : file_.size();
    }

    /// Appends block n of all heads to the file.
    void store(index_t n) {
        const cache_shape& of = file_.shape();
        std::vector<S> keys(static_cast<std::size_t>(of.B * of.G * of.D));
        std::vector<double> sums(static_cast<std::size_t>(of.B * of.G * of.E));
        each_head([&](const auto& head, index_t b, index_t g) {
            const index_t plane = b * of.G + g;
            std::copy_n(head.rows().block(n), of.D, keys.begin() + plane * of.D);
            std::copy_n(head.sum_before(n + 1), of.E, sums.begin() + plane * of.E);
        });
        file_.append(heads_of(keys, of.D), heads_of(sums, of.E));
    }
    template <class T>
    view<const T> heads_of(const std::vector<T>& x, index_t width) const {
        return heed::heads(x.data(), {file_.batch(), file_.heads(), 1, width});
    }

    /// The heads read the blocks of the file where they lie, which may be elsewhere than before.
    void lend() {
        const std::vector<double> zero(static_cast<std::size_t>(file_.shape().E));
        each_head([&](auto& head, index_t b, index_t g) {
            std::vector<const S*> blocks;
            for (index_t n = 0; n < file_.size(); ++n) blocks.push_back(file_.run(b, g, n).k.data);
            head.lend(std::move(blocks), [&](index_t n) {
                return n == 0 ? zero.data() : static_cast<const double*>(file_.run(b, g, n - 1).v.data);
            });
        });
    }
    void take_back() {
        const index_t full = full_blocks();
        if (full >= file_.size()) return;
        each_head([&](auto& head, index_t, index_t) { head.take_back(full); });
        file_.truncate(file_.size() - full);
    }

    template <class Source>
    void check_last(const Source& source, index_t b, index_t g, index_t full) const {
        const index_t j = full * block - 1, D = source.key_width();
        const auto run = source.run(b, g, j);
        const S* last = file_.run(b, g, full - 1).k.data + block - 1;
        for (index_t d = 0; d < D; ++d)
            require_argument(same(static_cast<S>(run.k.number(j - run.keys.first, d)), last[d * block]),
                             "mapped_channel_keys", "key ", j, " of head (", b, ", ", g,
                             ") is not the one the file was made of");
    }
    static bool same(S x, S y) { return x == y || (x != x && y != y); }

    file_type file_;
};

}  // namespace heed::inline HEED_ABI
