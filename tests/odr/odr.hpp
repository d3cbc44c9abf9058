// Three translation units, each with its own attention.
#pragma once

void attend_one(const float* x, float* y);
void attend_two(const float* x, float* y);
void attend_wide(const float* x, float* y);

inline constexpr int rows = 19, width = 24;
