#include "attention_replay.hpp"

template double conformance::replay_attention_of<heed::f16>(golden_case&, engine);
