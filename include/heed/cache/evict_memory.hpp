// Eviction from a memory of fixed size, by when and how often a key was attended: FIFO, LRA, LFA (Attendre [22]).
//
// Chunk after chunk: insert its keys, drop what is over capacity (the rules below; never keys of the chunk itself, or
// LFA would take no new ones), let the queries that are due attend (see waiting_queries.hpp), tell what they attended
// to.
#pragma once

#include <span>

#include "evict_select.hpp"

namespace heed::inline HEED_ABI {

/// Which key goes first; among equals the oldest.
enum class leaves_first {
    oldest,                    // FIFO
    least_recently_attended,   // LRA: by the last chunk in which it was attended (or came)
    least_frequently_attended  // LFA: by how often, or how much, it was attended
};

/// The metadata of one head of keys, in the order of the cache.
class attended_keys {
public:
    attended_keys(index_t capacity, leaves_first rule) : capacity_(capacity), rule_(rule) {
        require_argument(capacity >= 0, op, "capacity is ", capacity);
    }

    /// The n keys of a chunk stand at the end now. Returns the keys that stay.
    std::vector<index_t> insert(index_t n) {
        require_argument(0 <= n && n <= capacity_, op, "a chunk of ", n, " keys, the capacity is ", capacity_);
        ++now_;
        last_.resize(last_.size() + static_cast<std::size_t>(n), now_);
        count_.resize(last_.size(), 0);
        const auto stays = [&](const auto& score) { return keep_highest(score, capacity_, n, ties::higher); };
        const auto kept = rule_ == leaves_first::least_recently_attended     ? stays(last_)
                          : rule_ == leaves_first::least_frequently_attended ? stays(count_)
                                                                             : stays(std::vector<char>(last_.size()));
        keep_entries(last_, kept);
        keep_entries(count_, kept);
        return kept;
    }

    /// Forgets all but the first n keys.
    void cut(index_t n) {
        const auto left = std::min(last_.size(), static_cast<std::size_t>(n));
        last_.resize(left), count_.resize(left);
    }

    /// A query attended to these keys, such as its top k; -1 is none.
    void attend(std::span<const index_t> keys) {
        for (index_t j : keys) {
            require_argument(-1 <= j && j < size(), op, "key ", j, " of ", size());
            if (j >= 0) attend(static_cast<std::size_t>(j), 1);
        }
    }
    /// Queries gave these weights to all keys; a key of at most `threshold` was not attended.
    template <class T>
    void attend_mass(std::span<const T> mass, double threshold = 0) {
        require_shape(static_cast<index_t>(mass.size()) == size(), op, "mass has ", mass.size(), " keys, ", size(),
                      " are held");
        for (std::size_t j = 0; j < mass.size(); ++j)
            if (static_cast<double>(mass[j]) > threshold) attend(j, static_cast<double>(mass[j]));
    }

    index_t size() const { return static_cast<index_t>(last_.size()); }
    std::span<const double> counts() const { return count_; }

private:
    static constexpr const char* op = "attended_keys";
    void attend(std::size_t j, double by) {
        last_[j] = now_;
        count_[j] += by;
    }

    index_t capacity_;
    leaves_first rule_;
    index_t now_ = 0;  // chunks so far
    std::vector<index_t> last_;
    std::vector<double> count_;
};

}  // namespace heed::inline HEED_ABI
