#include "attention_replay.hpp"

template double conformance::replay_attention_of<double>(golden_case&, engine);
