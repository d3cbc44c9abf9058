// 15: forced alignment with a neural HMM [42]: which of the states, in their order, each frame of a recording belongs
// to. The recording is made here, so the truth is known. Draws alignment.ppm: states upwards, frames to the right; grey
// is the posterior probability, red the best path, green where the truth is another.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <fstream>
#include <heed/heed.hpp>
#include <vector>

using namespace heed;

int main() {
    const index_t N = 24, D = 8;  // states, features of a frame
    const counter_random random(7);
    std::uint64_t draws = 0;

    // Every state has a mean, a spread of 0.9 and a duration; frames are drawn from the states in turn.
    std::vector<double> mean(N * D);
    for (double& m : mean) m = random.normal(draws++);
    std::vector<index_t> truth;
    for (index_t s = 0; s < N; ++s)
        truth.insert(truth.end(), static_cast<std::size_t>(random.integer(draws++, 3, 18)), s);
    const auto T = static_cast<index_t>(truth.size());
    std::vector<double> frame(T * D);
    for (index_t t = 0; t < T; ++t)
        for (index_t d = 0; d < D; ++d) frame[t * D + d] = mean[truth[t] * D + d] + 0.9 * random.normal(draws++);

    // What a network would say: the log density of each frame in each state, and the logit of leaving it, here that of
    // a mean duration of ten frames.
    std::vector<float> density(T * N), leaving(T * N, std::log(0.1f / 0.9f)), posterior(T * N);
    const double spread = 0.9;
    const auto e = dense(density.data(), {1, T, N}), w = dense(leaving.data(), {1, T, N});
    gaussian_emission(dense(frame.data(), {1, T, D}), view<double, 4>{mean.data(), {1, T, N, D}, {0, 0, D, 1}},
                      view<const double, 4>{&spread, {1, T, N, D}, {}}, 0.01, e);
    std::vector<double> log_p(1), score(1);
    std::vector<index_t> path(T);
    neural_hmm_posteriors(e, w, dense(posterior.data(), {1, T, N}), dense(log_p.data(), {1}));
    neural_hmm_best_path(e, w, dense(path.data(), {1, T}), dense(score.data(), {1}));

    const index_t zoom = 4;
    std::ofstream picture("alignment.ppm", std::ios::binary);
    picture << "P6\n" << T * zoom << ' ' << N * zoom << "\n255\n";
    for (index_t y = 0; y < N * zoom; ++y)
        for (index_t x = 0; x < T * zoom; ++x) {
            const index_t t = x / zoom, s = N - 1 - y / zoom;
            const auto grey = static_cast<char>(255 - static_cast<int>(255 * posterior[t * N + s]));
            const char colours[3][3] = {
                {grey, grey, grey}, {static_cast<char>(220), 30, 30}, {30, static_cast<char>(160), 60}};
            picture.write(colours[path[t] == s ? 1 : truth[t] == s ? 2 : 0], 3);
        }

    index_t right = 0, steps = 0;
    double mass = 0;  // of the true states
    for (index_t t = 0; t < T; ++t) {
        right += path[t] == truth[t];
        steps += t > 0 && path[t] != path[t - 1];
        mass += posterior[t * N + truth[t]] / double(T);
    }
    std::printf("%td frames of %td states: %td frames rightly placed, posterior of the truth %.3f on average\n", T, N,
                right, mass);
    std::printf("log p %.2f, the best alignment alone %.2f; drawn: alignment.ppm\n", log_p[0], score[0]);
    return picture && steps == N - 1 && path[0] == 0 && score[0] <= log_p[0] && right > T * 8 / 10 && mass > 0.8 ? 0
                                                                                                                 : 1;
}
