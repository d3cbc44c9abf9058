// Stores of the quantised cache: the keys or values of one head of one sequence, as bytes and factors that grow.
//
//   make_room(n)      room for n tokens in all, the one member that allocates
//   append(x), ...    a row of finite floats; settle() after the last of a batch
//   check_cut(op, n), cut(n)   drop all but the first n tokens
//   rows(j), run_end(j)        the rows from token j on, and where they end
//   move(to, from, n)          n rows to an earlier place, where rows do not share factors
#pragma once

#include <algorithm>
#include <limits>
#include <vector>

#include "../core/aligned.hpp"
#include "../core/error.hpp"
#include "../simd/quantised_rows.hpp"

namespace heed::inline HEED_ABI::detail {

/// Room for n elements in all; it at least doubles, so that appending costs O(1) copies an element.
template <class V>
void make_room(V& v, index_t n) {
    const auto need = static_cast<std::size_t>(n);
    if (need > v.capacity()) v.reserve(std::max(need, 2 * v.capacity()));
}
template <class V>
void resize(V& v, index_t n) {
    v.resize(static_cast<std::size_t>(n));
}
template <class V>
index_t bytes_of(const V& v) {
    return static_cast<index_t>(v.capacity() * sizeof(typename V::value_type));
}

/// Rows that bring their own factors: a token is quantised once and for all.
template <class Rows>
class row_store {
public:
    using rows_type = Rows;
    explicit row_store(index_t width)
        : width_(width), row_bytes_(Rows::bytes_of(width)), row_factors_(Rows::factors_of(width)) {}

    void make_room(index_t tokens) {
        detail::make_room(bytes_, tokens * row_bytes_);
        detail::make_room(factors_, tokens * row_factors_);
    }
    void append(const float* x) {
        cut(size_ + 1);
        const index_t last = size_ - 1;
        Rows::template quantise_row<default_arch>(x, width_, bytes_.data() + last * row_bytes_,
                                                  factors_.data() + last * row_factors_);
    }
    void settle() {}
    void move(index_t to, index_t from, index_t n) {
        const auto shift = [&](auto& numbers, index_t row) {
            const auto first = numbers.begin() + from * row;
            std::copy(first, first + n * row, numbers.begin() + to * row);
        };
        shift(bytes_, row_bytes_), shift(factors_, row_factors_);
    }
    void check_cut(const char*, index_t) const {}
    void cut(index_t tokens) {
        size_ = tokens;
        resize(bytes_, tokens * row_bytes_);
        resize(factors_, tokens * row_factors_);
    }
    Rows rows(index_t j) const { return Rows::over(bytes_.data(), factors_.data(), width_).from(j); }
    index_t run_end(index_t) const { return size_; }
    index_t bytes() const { return bytes_of(bytes_) + bytes_of(factors_); }

private:
    index_t width_, row_bytes_, row_factors_, size_ = 0;
    aligned_vector<std::int8_t> bytes_;
    aligned_vector<float> factors_;
};

/// Blocks of rows with a factor for each column (KIVI's keys, arXiv:2402.02750). Every token of a block has a say in
/// its factors, so the floats of the unfinished block and of the one before it are kept, and the unfinished block is
/// quantised again whenever it changes.
class channel_store {
public:
    using rows_type = int8_channel_rows;
    channel_store(index_t width, index_t block) : width_(width), block_(block) {}

    void make_room(index_t tokens) {
        detail::make_room(bytes_, tokens * width_);
        detail::make_room(factors_, ceil_div(tokens, block_) * width_);
        detail::make_room(numbers_, std::min(tokens, 2 * block_) * width_);
    }
    void append(const float* x) {
        if (size_ - first_ == 2 * block_) {
            numbers_.erase(numbers_.begin(), numbers_.begin() + block_ * width_);
            first_ += block_;
        }
        numbers_.insert(numbers_.end(), x, x + width_);
        if (++size_ % block_ == 0) quantise_last_block();
    }
    void settle() {
        if (size_ % block_ != 0) quantise_last_block();
    }
    void check_cut(const char* op, index_t tokens) const {
        require_argument(tokens >= first_ || tokens % block_ == 0, op, "cannot end after ", tokens,
                         " tokens: of blocks of ", block_, " those from token ", first_, " on can be reopened");
    }
    void cut(index_t tokens) {
        size_ = tokens;
        first_ = std::min(first_, tokens);
        resize(numbers_, (tokens - first_) * width_);
        resize(bytes_, tokens * width_);
        resize(factors_, ceil_div(tokens, block_) * width_);
        settle();
    }
    rows_type rows(index_t j) const {
        return {{bytes_.data() + j * width_, width_}, factors_.data() + j / block_ * width_};
    }
    index_t run_end(index_t j) const { return std::min(size_, (j / block_ + 1) * block_); }
    index_t bytes() const { return bytes_of(bytes_) + bytes_of(factors_) + bytes_of(numbers_); }

private:
    void quantise_last_block() {
        const index_t block = (size_ - 1) / block_, first = block * block_;
        resize(bytes_, size_ * width_);
        resize(factors_, (block + 1) * width_);
        rows_type::quantise_rows<default_arch>(numbers_.data() + (first - first_) * width_, size_ - first, width_,
                                               bytes_.data() + first * width_, factors_.data() + block * width_);
    }

    index_t width_, block_, size_ = 0;
    index_t first_ = 0;           // the token whose floats come first, a multiple of the block
    std::vector<float> numbers_;  // (first_ to size_, width)
    aligned_vector<std::int8_t> bytes_;
    aligned_vector<float> factors_;  // (block, width)
};

}  // namespace heed::inline HEED_ABI::detail
