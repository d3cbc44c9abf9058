#include "attention_replay.hpp"

template double conformance::replay_attention_of<float>(golden_case&, engine);
