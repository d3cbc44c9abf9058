# heed_developer: the flags of tests, examples and benchmarks. Users of heed see none of them.
set(CMAKE_EXPORT_COMPILE_COMMANDS ON)

set(warnings_as_errors OFF)
if(DEFINED ENV{CI})
    set(warnings_as_errors ON)
endif()
option(HEED_WERROR "Warnings are errors (on where CI is set)" ${warnings_as_errors})

set(heed_clang_warnings -Wall -Wextra -Wshadow -Wno-dangling-else)  # GoogleTest macros in an if
# gcc 12 takes the undefined registers of its own AVX-512 intrinsics for uninitialised variables, and finds overlaps in
# the concatenation of strings.
set(heed_gcc_warnings ${heed_clang_warnings} -Wno-maybe-uninitialized -Wno-uninitialized -Wno-restrict -Wno-psabi)
if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
    set(heed_warnings ${heed_gcc_warnings})
else()
    set(heed_warnings ${heed_clang_warnings})
endif()

add_library(heed_developer INTERFACE)
target_link_libraries(heed_developer INTERFACE heed::heed)
target_compile_options(heed_developer INTERFACE ${heed_warnings} $<$<BOOL:${HEED_WERROR}>:-Werror>)
if(HEED_NATIVE)
    target_compile_options(heed_developer INTERFACE -march=native)
endif()
if(HEED_SANITIZE)
    set(sanitizers -fsanitize=${HEED_SANITIZE} -fno-sanitize-recover=all)
    if(HEED_SANITIZE MATCHES "address.*undefined|undefined.*address")
        list(APPEND sanitizers -fno-sanitize=null,object-size,vptr)  # address finds these, and they are slow to compile
    endif()
    target_compile_options(heed_developer INTERFACE ${sanitizers} -g1 -fno-omit-frame-pointer)
    target_link_options(heed_developer INTERFACE ${sanitizers})
    if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU" AND HEED_SANITIZE MATCHES "thread")
        target_compile_options(heed_developer INTERFACE -Wno-tsan)  # the fences of Eigen's pool are not modelled
    endif()
endif()
