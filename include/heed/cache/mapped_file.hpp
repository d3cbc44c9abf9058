// A file in memory, by POSIX calls; each failure is a sentence with the path and the system's reason.
//
// Disk blocks are allocated before memory over them is handed out, so that a full disk is an error of allocate() and
// not a signal at some later store. The mapping may be longer than the file, which then grows under it; memory moves
// only when the file outgrows it.
#pragma once

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <string>
#include <system_error>
#include <utility>

#include "../core/error.hpp"
#include "../core/range.hpp"

namespace heed::inline HEED_ABI::detail {

/// Memory over the first bytes of a file, unmapped at the end.
class mapping {
public:
    mapping() = default;
    mapping(int descriptor, index_t bytes, bool writable) {
        const int protection = writable ? PROT_READ | PROT_WRITE : PROT_READ;
        void* at = ::mmap(nullptr, static_cast<std::size_t>(bytes), protection, MAP_SHARED, descriptor, 0);
        if (at == MAP_FAILED) return;
        data_ = static_cast<std::byte*>(at);
        bytes_ = bytes;
    }
    mapping(mapping&& other) noexcept
        : data_(std::exchange(other.data_, nullptr)), bytes_(std::exchange(other.bytes_, 0)) {}
    mapping& operator=(mapping&& other) noexcept {
        std::swap(data_, other.data_);
        std::swap(bytes_, other.bytes_);
        return *this;
    }
    ~mapping() {
        if (data_) ::munmap(data_, static_cast<std::size_t>(bytes_));
    }

    std::byte* data() const { return data_; }
    index_t bytes() const { return bytes_; }

private:
    std::byte* data_ = nullptr;
    index_t bytes_ = 0;
};

enum class file_use { create, append, read };

class mapped_file {
public:
    mapped_file(const char* op, std::string path, file_use use) : mapped_file() {  // so that an error closes the file
        op_ = op, path_ = std::move(path), use_ = use;
        constexpr int flags[] = {O_RDWR | O_CREAT | O_EXCL, O_RDWR, O_RDONLY};
        descriptor_ = ::open(path_.c_str(), flags[static_cast<int>(use)] | O_CLOEXEC, 0666);
        if (descriptor_ < 0) fail(errno);
        unfinished_ = use == file_use::create;
        if (writable()) lock();
        struct stat status {};
        if (::fstat(descriptor_, &status) != 0) fail(errno);
        require_argument(S_ISREG(status.st_mode), op_, path_, " is not a file");
        size_ = status.st_size;
    }
    mapped_file(mapped_file&& other) noexcept { swap(other); }
    mapped_file& operator=(mapped_file&& other) noexcept {
        swap(other);
        return *this;
    }
    ~mapped_file() {
        if (unfinished_) ::unlink(path_.c_str());
        if (descriptor_ >= 0) ::close(descriptor_);
    }

    const std::string& path() const { return path_; }
    bool writable() const { return use_ != file_use::read; }
    index_t size() const { return size_; }
    std::byte* data() const { return memory_.data(); }
    /// From here on a file that was created stays.
    void finish() { unfinished_ = false; }

    /// Maps the file as it is; its size is not 0.
    void map() {
        memory_ = mapping(descriptor_, size_, writable());
        if (!memory_.data()) fail(errno);
    }

    /// Allocates and maps these bytes, lengthening the file where they lie beyond it. On failure nothing changes.
    void allocate(range bytes) {
        if (bytes.empty()) return;
        mapping wider;
        if (bytes.last > memory_.bytes()) {
            wider = mapping(descriptor_, 2 * bytes.last, true);  // so that a growing file moves seldom
            if (!wider.data()) wider = mapping(descriptor_, bytes.last, true);
            if (!wider.data()) fail(errno);
        }
        int error;
        do error = ::posix_fallocate(descriptor_, bytes.first, bytes.size());
        while (error == EINTR);
        if (error != 0) {
            if (bytes.last > size_) [[maybe_unused]]
                const int ignored = ::ftruncate(descriptor_, size_);
            fail(error);
        }
        size_ = std::max(size_, bytes.last);
        if (wider.data()) memory_ = std::move(wider);
    }

    /// Waits until the first bytes of the file are on the disk; returns 0, or the system's error.
    int flush(index_t bytes) const {
        return ::msync(memory_.data(), static_cast<std::size_t>(bytes), MS_SYNC) == 0 ? 0 : errno;
    }

    /// Throws argument_error with the system's reason.
    [[noreturn]] void fail(int error) const {
        raise<argument_error>(std::string(op_) + ": " + path_ + ": " + std::generic_category().message(error));
    }

private:
    mapped_file() = default;
    void swap(mapped_file& other) {
        std::swap(op_, other.op_);
        std::swap(path_, other.path_);
        std::swap(use_, other.use_);
        std::swap(descriptor_, other.descriptor_);
        std::swap(unfinished_, other.unfinished_);
        std::swap(size_, other.size_);
        std::swap(memory_, other.memory_);
    }
    /// One writer at a time, where the system has locks that belong to the open file and not to the process.
    void lock() const {
#ifdef F_OFD_SETLK
        struct flock whole {};
        whole.l_type = F_WRLCK;
        whole.l_whence = SEEK_SET;
        const bool locked = ::fcntl(descriptor_, F_OFD_SETLK, &whole) == 0;
        require_argument(locked || (errno != EAGAIN && errno != EACCES), op_, path_,
                         " is open for appending elsewhere");
#endif
    }

    const char* op_ = nullptr;
    std::string path_;
    file_use use_ = file_use::read;
    int descriptor_ = -1;
    bool unfinished_ = false;
    index_t size_ = 0;
    mapping memory_;
};

}  // namespace heed::inline HEED_ABI::detail
