// heed_conformance [--ref] DIR...: replays every golden case below the folders and compares; --ref runs the definitions
// (ref/) in place of the kernels. A line a case, then "N passed, M failed, K skipped"; fails if a case does.
#include <cstdio>
#include <map>

#include "replay.hpp"

namespace {

using namespace conformance;

const std::map<std::string, double (*)(golden_case&, engine)> replays = {
    {"Attention", replay_attention},
    {"LinearAttention", replay_linear_attention},
    {"RotaryEmbedding", replay_rotary},
    {"selective_scan", replay_selective_scan},
    {"hgrn", replay_hgrn},
    {"CausalConvWithState", replay_causal_conv},
    {"abc", replay_slots},
    {"based", replay_features},
    {"comba", replay_recurrence},
    {"delta_rule", replay_recurrence},
    {"dplr", replay_recurrence},
    {"dplr_delta_rule", replay_recurrence},
    {"gated_delta_product", replay_recurrence},
    {"gated_delta_rule", replay_recurrence},
    {"gdn2", replay_recurrence},
    {"gla", replay_recurrence},
    {"gsa", replay_slots},
    {"iplr", replay_recurrence},
    {"iplr_delta_rule", replay_recurrence},
    {"kda", replay_recurrence},
    {"lightning_attn", replay_recurrence},
    {"linear_attn", replay_features},
    {"log_linear_attn", replay_log_linear},
    {"mamba2_ssd", replay_mamba2},
    {"mesa_net", replay_mesa_net},
    {"rebased", replay_features},
    {"retention", replay_recurrence},
    {"rwkv6", replay_recurrence},
    {"rwkv7", replay_recurrence},
    {"simple_gla", replay_recurrence},
};

struct tally {
    int passed = 0, failed = 0, skipped = 0;
};

void run(const std::filesystem::path& folder, engine by, tally& t) {
    const std::string name = folder.string();
    try {
        golden_case c(folder);
        const auto replay = replays.find(c.op());
        if (replay == replays.end()) {
            ++t.skipped;
            std::printf("skip %s: no op %s\n", name.c_str(), c.op().c_str());
            return;
        }
        c.load();
        const double worst = replay->second(c, by);
        c.require_all_read();
        ++t.passed;
        std::printf("pass %s: %.3f of the tolerance\n", name.c_str(), worst);
    } catch (const std::exception& e) {
        ++t.failed;
        std::printf("FAIL %s: %s\n", name.c_str(), e.what());
    }
}

}  // namespace

int main(int count, char** arguments) {
    namespace fs = std::filesystem;
    engine by = engine::heed;
    std::set<fs::path> folders;
    bool asked = false, good = true;
    for (int a = 1; a < count; ++a) {
        const std::string argument = arguments[a];
        if (argument == "--ref") {
            by = engine::reference;
            continue;
        }
        asked = true;
        std::error_code error;
        const auto before = folders.size();
        const auto links = fs::directory_options::follow_directory_symlink;
        for (fs::recursive_directory_iterator at(argument, links, error), end; !error && at != end; at.increment(error))
            if (at->path().filename() == "case.txt") folders.insert(at->path().parent_path());
        if (error || folders.size() == before) {
            std::printf("no golden cases below %s\n", argument.c_str());
            good = false;
        }
    }
    if (!asked) {
        std::printf("usage: heed_conformance [--ref] DIR...\n");
        return 2;
    }
    tally t;
    for (const auto& folder : folders) run(folder, by, t);
    std::printf("%d passed, %d failed, %d skipped\n", t.passed, t.failed, t.skipped);
    return t.failed == 0 && good ? 0 : 1;
}
