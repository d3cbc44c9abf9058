// heed_test: LABELS sanitize
// A mapped cache whose process is killed at random moments, and one on a full disk.
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <csignal>
#include <fstream>
#include <heed/cache/mapped.hpp>
#include <optional>
#include <thread>

#ifdef __linux__
#include <sched.h>
#include <sys/mount.h>
#endif

#include "scratch_folder.hpp"
#include "token_rows.hpp"

using namespace test;

namespace {

using tokens = std::vector<std::uint64_t>;
constexpr cache_shape shape{2, 2, 6, 5};
constexpr index_t segment = 32, most = 4000;

void append(mapped_cache<float>& cache, const tokens& more) {
    cache.append(token_rows<float>(more, side::key, shape.B, shape.G, shape.D),
                 token_rows<float>(more, side::value, shape.B, shape.G, shape.E));
}

/// What the child says it has done, in memory that outlives it. Stores are volatile, so they keep their order.
struct record {
    volatile index_t size;  // after the last operation that returned
    volatile index_t next;  // after the one at work
    volatile bool busy;     // an operation is at work
    volatile std::uint64_t named;
    volatile std::uint64_t token[most];  // of each place below size, and below next
};

/// Appends and truncates until killed.
[[noreturn]] void work(const std::string& path, record& done, std::uint64_t seed) {
    auto cache = mapped_cache<float>::open(path);
    const counter_random r(seed);
    for (std::uint64_t i = 0;; ++i) {
        const index_t size = cache.size();
        const bool shorten = size > most - 200 || r.uniform(3 * i) < 0.1;
        index_t n = r.uniform(3 * i + 1) < 0.9 ? r.integer(3 * i + 2, 0, 4) : r.integer(3 * i + 2, 0, 150);
        if (shorten) n = size > most - 200 ? size - 10 : std::min(size, n);
        tokens more;
        if (!shorten)
            for (index_t j = size; j < size + n; ++j) {
                more.push_back(std::uint64_t(done.named));
                done.token[j] = done.named;
                done.named = done.named + 1;
            }
        done.next = shorten ? size - n : size + n;
        done.busy = true;
        if (shorten)
            cache.truncate(n);
        else
            append(cache, more);
        done.size = done.next;
        done.busy = false;
    }
}

TEST(mapped_kill, keeps_what_was_appended_and_shows_nothing_half_written) {
    const scratch_folder folder;
    const std::string path = folder / "cache";
    mapped_cache<float>::create(path, shape, segment);
    void* shared = ::mmap(nullptr, sizeof(record), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    ASSERT_NE(shared, MAP_FAILED);
    auto& done = *new (shared) record{};
    const counter_random r(1);
    int amid = 0;
    for (std::uint64_t round = 0; round < 200; ++round) {
        const pid_t child = ::fork();
        ASSERT_GE(child, 0);
        if (child == 0) {
            try {
                work(path, done, 100 + round);
            } catch (...) {
            }
            ::_exit(1);
        }
        std::this_thread::sleep_for(std::chrono::microseconds(r.integer(round, 0, 12000)));
        ::kill(child, SIGKILL);
        int status = 0;
        ASSERT_EQ(::waitpid(child, &status, 0), child);
        ASSERT_TRUE(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL) << "the child ended by itself";

        const auto cache = mapped_cache<float>::open(path, round % 2 ? mapped_access::append : mapped_access::read);
        const index_t size = cache.size();
        ASSERT_TRUE(size == done.size || (done.busy && size == done.next))
            << size << " tokens, of " << done.size << (done.busy ? " and at work" : "") << " towards " << done.next;
        const tokens expected(done.token, done.token + size);
        ASSERT_TRUE(holds(cache, expected)) << "round " << round;
        amid += done.busy;
        done.size = size;
        done.busy = false;
    }
    EXPECT_GT(done.named, 1000u);  // the children did work,
    EXPECT_GT(amid, 5);            // and most were killed at it
    ::munmap(shared, sizeof(record));
}

/// Runs f in a child; true where it returns true.
template <class F>
bool in_child(F&& f) {
    const pid_t child = ::fork();
    if (child == 0) {
        bool ok = false;
        try {
            ok = f();
        } catch (const std::exception& e) {
            std::fprintf(stderr, "%s\n", e.what());
        }
        ::_exit(ok ? 0 : 1);
    }
    int status = 0;
    return child > 0 && ::waitpid(child, &status, 0) == child && WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

/// Fills a cache until an error ends it; the cache is then as before the append that failed, and goes on.
bool fills_up(const std::string& path, const char* reason) {
    std::optional<mapped_cache<float>> opened = mapped_cache<float>::create(path, shape, segment);
    auto& cache = *opened;
    tokens model;
    const auto add = [&](index_t n) {
        tokens more;
        for (index_t i = 0; i < n; ++i) more.push_back(model.size() + static_cast<std::uint64_t>(i) + 7);
        append(cache, more);
        model.insert(model.end(), more.begin(), more.end());
    };
    std::string said;
    try {
        while (model.size() < 100000) add(5);
    } catch (const argument_error& e) {
        said = e.what();
    }
    const index_t bytes = cache.bytes();
    bool ok = said == "mapped_cache: " + path + ": " + reason && holds(cache, model) && !model.empty();
    ok = ok && static_cast<index_t>(std::filesystem::file_size(path)) == bytes;
    try {
        add(1000);  // several segments at once
        ok = false;
    } catch (const argument_error&) {
    }
    ok = ok && holds(cache, model) && static_cast<index_t>(std::filesystem::file_size(path)) == bytes;
    cache.truncate(3);
    model.resize(model.size() - 3);
    add(3);  // there is room for these
    ok = ok && holds(cache, model);
    opened.reset();
    return ok && holds(mapped_cache<float>::open(path), model);
}

TEST(mapped_full, a_limit_on_the_size_of_files) {
    const scratch_folder folder;
    EXPECT_TRUE(in_child([&] {
        std::signal(SIGXFSZ, SIG_IGN);
        const rlimit limit{100000, 100000};
        return ::setrlimit(RLIMIT_FSIZE, &limit) == 0 && fills_up(folder / "cache", "File too large");
    }));
}

#ifdef __linux__
TEST(mapped_full, a_full_disk) {
    const scratch_folder folder;
    const std::string disk = folder / "disk";
    std::filesystem::create_directory(disk);
    const auto mount_small_disk = [&] {
        return ::unshare(CLONE_NEWNS) == 0 && ::mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr) == 0 &&
               ::mount("tmpfs", disk.c_str(), "tmpfs", 0, "size=256k") == 0;
    };
    if (!in_child(mount_small_disk)) GTEST_SKIP() << "may not mount";
    EXPECT_TRUE(in_child([&] { return mount_small_disk() && fills_up(disk + "/cache", "No space left on device"); }));
    EXPECT_TRUE(in_child([&] {  // no room for a header: nothing is left behind
        if (!mount_small_disk()) return false;
        std::ofstream(disk + "/filler") << std::string(1 << 20, 'x');
        try {
            mapped_cache<float>::create(disk + "/cache", shape);
        } catch (const argument_error&) {
            return !std::filesystem::exists(disk + "/cache");
        }
        return false;
    }));
}
#endif

}  // namespace
