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
struct decay {};
struct update {};
struct read {};
struct features {};
struct normaliser {};
struct form {};
struct order {};
struct packed {};
struct state {};
struct input_gate {};
struct output_gate {};
struct past {};
struct channel_bias {};
struct writing {};
struct step {};
struct step_bias {};
struct skip {};
struct gate {};
struct restarts {};
struct bias {};
struct activation {};
struct lengths {};
struct local {};
struct location {};
struct penalty {};
struct reference {};
struct stranger {};

}  // namespace heed::inline HEED_ABI::roles
