// heed: attention and sequence mixing on CPUs. Everything but dist/ and ref/.
#pragma once

#include "cache/shape.hpp"
#include "core/config.hpp"
#include "core/context.hpp"
#include "core/random.hpp"
#include "core/threads.hpp"
#include "core/view.hpp"
#include "engine/attention.hpp"
#include "engine/merge.hpp"
#include "interop/eigen.hpp"
#include "ops/relational_attention.hpp"
#include "ops/rotary.hpp"
#include "policy/masks.hpp"
#include "policy/scores.hpp"
#include "policy/source.hpp"
