// A file for a mapping, which it goes with: the name is gone when this is.
#pragma once

#include <unistd.h>

#include <filesystem>
#include <string>

namespace bench {

class temporary_file {
public:
    temporary_file() : path_(std::filesystem::temp_directory_path() / ("heed_bench_" + std::to_string(::getpid()))) {}
    temporary_file(const temporary_file&) = delete;
    temporary_file& operator=(const temporary_file&) = delete;
    ~temporary_file() {
        std::error_code ignored;
        std::filesystem::remove(path_, ignored);
    }
    std::string path() const { return path_.string(); }

private:
    std::filesystem::path path_;
};

}  // namespace bench
