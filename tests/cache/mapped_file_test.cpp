// heed_test: LABELS sanitize
// A file in memory: what is written is in the file, growing keeps it, and what fails changes nothing.
#include <gtest/gtest.h>
#include <sys/resource.h>

#include <csignal>
#include <cstring>
#include <fstream>
#include <heed/cache/mapped_file.hpp>
#include <sstream>

#include "refuses.hpp"
#include "scratch_folder.hpp"

using namespace test;
using heed::index_t, heed::range, heed::argument_error;
using heed::detail::file_use, heed::detail::mapped_file, heed::detail::mapping;

namespace {

std::string text_of(const std::string& path) {
    std::ostringstream out;
    out << std::ifstream(path, std::ios::binary).rdbuf();
    return out.str();
}
void write(mapped_file& file, index_t at, const std::string& text) {
    std::memcpy(file.data() + at, text.data(), text.size());
}

class mapped_files : public testing::Test {
protected:
    const scratch_folder folder;
    const std::string path = folder / "file";
    mapped_file made(index_t bytes) const {
        mapped_file file("op", path, file_use::create);
        file.allocate({0, bytes});
        file.finish();
        return file;
    }
};

TEST_F(mapped_files, a_file_that_is_not_finished_goes_with_its_object) {
    {
        mapped_file file("op", path, file_use::create);
        EXPECT_EQ(file.size(), 0);
        EXPECT_TRUE(std::filesystem::exists(path));
        mapped_file moved = std::move(file);
        EXPECT_EQ(moved.path(), path);
    }
    EXPECT_FALSE(std::filesystem::exists(path));
    made(10);
    EXPECT_EQ(text_of(path), std::string(10, '\0'));
    refuses<argument_error>([&] { mapped_file("op", path, file_use::create); }, "op: " + path + ": File exists");
    EXPECT_TRUE(std::filesystem::exists(path));  // one that was there is not its to remove
}

TEST_F(mapped_files, growing_keeps_what_is_there_wherever_the_memory_moves) {
    std::string want = "heed";
    mapped_file file = made(4);
    write(file, 0, want);
    for (index_t bytes : {5, 4096, 4097, 9000, 1 << 20}) {
        file.allocate({file.size(), bytes});
        EXPECT_EQ(file.size(), bytes);
        want.resize(static_cast<std::size_t>(bytes), '\0');
        want[want.size() - 1] = 'x';
        file.data()[bytes - 1] = std::byte('x');
        EXPECT_EQ(text_of(path), want);
    }
    file.allocate({10, 20});  // inside the file
    file.allocate({30, 30});
    EXPECT_EQ(file.size(), 1 << 20);
    EXPECT_EQ(file.flush(file.size()), 0);
    const std::byte* before = file.data();
    mapped_file other = std::move(file);
    EXPECT_EQ(other.data(), before);
    EXPECT_EQ(text_of(path), want);
}

TEST_F(mapped_files, room_that_cannot_be_had_changes_nothing) {
    mapped_file file = made(100);
    write(file, 90, "0123456789");
    const std::string before = text_of(path);
    rlimit was{};
    getrlimit(RLIMIT_FSIZE, &was);
    const rlimit least{200, was.rlim_max};
    const auto handler = std::signal(SIGXFSZ, SIG_IGN);
    setrlimit(RLIMIT_FSIZE, &least);
    refuses<argument_error>([&] { file.allocate({100, 5000}); }, "op: " + path + ": File too large");
    setrlimit(RLIMIT_FSIZE, &was);
    std::signal(SIGXFSZ, handler);
    EXPECT_EQ(file.size(), 100);
    EXPECT_EQ(text_of(path), before);
    EXPECT_EQ(std::memcmp(file.data(), before.data(), 100), 0);
    file.allocate({100, 5000});
    EXPECT_EQ(file.size(), 5000);
}

TEST_F(mapped_files, one_writer_and_any_readers) {
    mapped_file file = made(8);
    write(file, 0, "a writer");
    refuses<argument_error>([&] { mapped_file("op", path, file_use::append); }, "is open for appending elsewhere");
    mapped_file reader("op", path, file_use::read);
    EXPECT_FALSE(reader.writable());
    EXPECT_EQ(reader.size(), 8);
    EXPECT_EQ(reader.data(), nullptr);
    reader.map();
    EXPECT_EQ(std::memcmp(reader.data(), "a writer", 8), 0);
    write(file, 0, "the same");
    EXPECT_EQ(std::memcmp(reader.data(), "the same", 8), 0);
}

TEST_F(mapped_files, what_is_no_file_is_refused) {
    refuses<argument_error>([&] { mapped_file("op", folder / "none", file_use::append); }, "No such file or directory");
    refuses<argument_error>([&] { mapped_file("op", folder / ".", file_use::append); }, "Is a directory");
    refuses<argument_error>([&] { mapped_file("op", folder / ".", file_use::read); }, "is not a file");
    EXPECT_TRUE(std::filesystem::exists(folder / "."));
    made(0);
    mapped_file empty("op", path, file_use::append);
    refuses<argument_error>([&] { empty.map(); }, "op: " + path + ": Invalid argument");
}

TEST(mapping, owns_its_memory_once) {
    mapping none;
    EXPECT_EQ(none.data(), nullptr);
    EXPECT_EQ(mapping(-1, 10, false).data(), nullptr);
}

}  // namespace
