// The recurrence token by token: a pass over a few columns of the state for each token, or for several. Columns are
// independent, so lanes run along them.
#pragma once

#include <type_traits>

#include "recurrent_additive.hpp"
#include "recurrent_erasing.hpp"

namespace heed::inline HEED_ABI {

template <class A, class T, decay_kind Decay, update_kind Update, read_kind Read>
using recurrent_tile = std::conditional_t<Update == update_kind::additive, additive_tile<A, T, Decay, Read>,
                                          erasing_tile<A, T, Decay, Update, Read>>;

}  // namespace heed::inline HEED_ABI
