// All scores.
#pragma once

#include "score.hpp"
#include "score_bias.hpp"
#include "score_distance.hpp"
#include "score_gate.hpp"
