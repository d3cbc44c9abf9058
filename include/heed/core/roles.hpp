// The roles a policy can have. A policy type names its own: `using role = roles::mask;`.
#pragma once

#include "config.hpp"

namespace heed::inline HEED_ABI::roles {

struct mask {};
struct score {};
struct weight {};
struct probe {};
struct offset {};
struct scale {};
struct context {};
struct input_gate {};
struct output_gate {};
struct past {};
struct channel_bias {};
struct decay {};
struct update {};
struct read {};
struct features {};
struct normaliser {};
struct form {};
struct order {};
struct packed {};
struct state {};
struct stranger {};

}  // namespace heed::inline HEED_ABI::roles
