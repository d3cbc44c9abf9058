# What heed stands on: the system's packages first, their sources (HEED_FETCH) where there are none.
include(FetchContent)

# heed_fetch(name repository tag): downloads the sources, sets <name>_SOURCE_DIR and lists the name in heed_fetched.
# With SOURCE_SUBDIR . their targets are added too.
macro(heed_fetch name repository tag)
    if(NOT HEED_FETCH)
        message(FATAL_ERROR "heed needs ${name}: install it, or set HEED_FETCH=ON to download it")
    endif()
    message(STATUS "${name}: not on this system, fetching ${tag}")
    FetchContent_Declare(${name} GIT_REPOSITORY ${repository} GIT_TAG ${tag} GIT_SHALLOW ON SOURCE_SUBDIR none ${ARGN})
    FetchContent_MakeAvailable(${name})
    list(APPEND heed_fetched ${name})
endmacro()

find_package(Threads REQUIRED)

if(NOT TARGET Eigen3::Eigen)
    find_package(Eigen3 3.4 QUIET NO_MODULE)
endif()
if(NOT TARGET Eigen3::Eigen)
    heed_fetch(eigen https://gitlab.com/libeigen/eigen.git 3.4.0)
    add_library(Eigen3::Eigen INTERFACE IMPORTED GLOBAL)
    target_include_directories(Eigen3::Eigen INTERFACE ${eigen_SOURCE_DIR})
endif()

include(${CMAKE_CURRENT_LIST_DIR}/heed_xsimd.cmake)
if(NOT TARGET xsimd)
    heed_fetch(xsimd https://github.com/xtensor-stack/xsimd.git 13.2.0)
    add_library(xsimd INTERFACE IMPORTED GLOBAL)
    target_include_directories(xsimd INTERFACE ${xsimd_SOURCE_DIR}/include)
endif()

if(HEED_BUILD_TESTS)
    find_package(GTest QUIET)
    if(NOT TARGET GTest::gtest_main)
        set(INSTALL_GTEST OFF)
        heed_fetch(googletest https://github.com/google/googletest.git v1.14.0 SOURCE_SUBDIR .)
    endif()
endif()

if(HEED_BUILD_BENCH)
    find_package(benchmark QUIET)
    if(NOT TARGET benchmark::benchmark)
        set(BENCHMARK_ENABLE_TESTING OFF)
        set(BENCHMARK_ENABLE_INSTALL OFF)
        heed_fetch(benchmark https://github.com/google/benchmark.git v1.8.5 SOURCE_SUBDIR .)
    endif()
endif()
