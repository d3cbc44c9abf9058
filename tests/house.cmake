# Tests of heed as a library: layers, each header alone, other compilers and machines, errors of the compiler, packages.
# Most of them compile when ctest runs, so that they need no target and say in their own output what went wrong.

set(script ${CMAKE_COMMAND} -P ${CMAKE_CURRENT_SOURCE_DIR}/compile_and_run.cmake --)
set(out ${CMAKE_CURRENT_BINARY_DIR}/house)
file(MAKE_DIRECTORY ${out})

# The include flags, without what a compiler searches anyway (fatal for a cross compiler).
set(include_flags -I${PROJECT_SOURCE_DIR}/include)
foreach(target IN ITEMS Eigen3::Eigen xsimd)
    get_target_property(directories ${target} INTERFACE_INCLUDE_DIRECTORIES)
    list(REMOVE_ITEM directories /usr/include)
    foreach(directory IN LISTS directories)
        list(APPEND include_flags -isystem ${directory})
    endforeach()
endforeach()
set(flags -std=c++20 -Werror ${include_flags} -pthread)
set(compile ${CMAKE_CXX_COMPILER} ${flags} ${heed_warnings})

# heed_house_test(name command...): label house; "skipped:" in the output skips it.
function(heed_house_test name)
    add_test(NAME ${name} COMMAND ${ARGN})
    set_tests_properties(${name} PROPERTIES LABELS house SKIP_REGULAR_EXPRESSION "skipped:" TIMEOUT 300)
endfunction()

heed_house_test(layering ${CMAKE_COMMAND} -D root=${PROJECT_SOURCE_DIR}/include/heed
                -P ${CMAKE_CURRENT_SOURCE_DIR}/layering.cmake)
heed_house_test(readme ${CMAKE_COMMAND} -D root=${PROJECT_SOURCE_DIR} -P ${CMAKE_CURRENT_SOURCE_DIR}/readme.cmake)
heed_house_test(layering.self ${CMAKE_COMMAND} -D work=${out}/layering
                -P ${CMAKE_CURRENT_SOURCE_DIR}/layering_self.cmake)

# Each header compiles alone, and twice.
foreach(header IN LISTS heed_headers)
    string(REGEX REPLACE "^include/heed/|\\.hpp$" "" name ${header})
    string(REPLACE "/" "." name ${name})
    string(REPLACE "include/" "" header ${header})
    file(CONFIGURE OUTPUT house/${name}.cpp CONTENT "#include <${header}>\n#include <${header}>\n")
    heed_house_test(header.${name} ${compile} -fsyntax-only ${out}/${name}.cpp)
    set_property(TEST header.${name} APPEND PROPERTY LABELS header)
endforeach()
add_custom_target(heed_headers COMMAND ${CMAKE_CTEST_COMMAND} --output-on-failure -L header USES_TERMINAL)

# A program that must not compile, and its twin that must.
file(GLOB sources CONFIGURE_DEPENDS compile_fail/*.cpp)
foreach(source IN LISTS sources)
    get_filename_component(name ${source} NAME_WE)
    heed_house_test(compile_fail.${name} ${CMAKE_COMMAND} -P ${CMAKE_CURRENT_SOURCE_DIR}/compile_fail.cmake --
                    ${compile} -fsyntax-only ${source})
endforeach()

# One small program for other instruction sets, compilers and machines.
set(smoke -O2 ${CMAKE_CURRENT_SOURCE_DIR}/smoke/smoke.cpp)
if(CMAKE_SYSTEM_PROCESSOR MATCHES "x86_64|AMD64")
    foreach(level v2 v3 v4)
        heed_house_test(smoke.${level} ${script} output=${out}/smoke_${level}
                        ${compile} -march=x86-64-${level} ${smoke})
    endforeach()
endif()
find_program(HEED_OTHER_COMPILER NAMES clang++ DOC "A second compiler for the smoke test")
if(HEED_OTHER_COMPILER AND NOT CMAKE_CXX_COMPILER_ID MATCHES "Clang")
    heed_house_test(smoke.clang ${script} output=${out}/smoke_clang
                    ${HEED_OTHER_COMPILER} ${flags} ${heed_clang_warnings} -march=native ${smoke})
endif()
find_program(HEED_AARCH64_COMPILER NAMES aarch64-linux-gnu-g++ DOC "A cross compiler for the smoke test")
find_program(HEED_AARCH64_EMULATOR NAMES qemu-aarch64 qemu-aarch64-static DOC "Runs what it built")
if(HEED_AARCH64_COMPILER AND HEED_AARCH64_EMULATOR AND NOT CMAKE_SYSTEM_PROCESSOR MATCHES "aarch64|arm64")
    if(EXISTS /usr/include/xsimd)
        file(MAKE_DIRECTORY ${out}/cross)
        file(CREATE_LINK /usr/include/xsimd ${out}/cross/xsimd SYMBOLIC)
    endif()
    heed_house_test(smoke.aarch64 ${script} output=${out}/smoke_aarch64 runner=${HEED_AARCH64_EMULATOR}
                    ${HEED_AARCH64_COMPILER} ${flags} ${heed_gcc_warnings} -isystem ${out}/cross -static ${smoke})
endif()

heed_house_test(no_exceptions ${script} output=${out}/no_exceptions
                ${compile} -O1 -fno-exceptions ${CMAKE_CURRENT_SOURCE_DIR}/no_exceptions/main.cpp)

heed_house_test(compile_time ${script} output=${out}/compile_time seconds=40
                ${compile} -O2 ${CMAKE_CURRENT_SOURCE_DIR}/compile_time/attention.cpp)
set_tests_properties(compile_time PROPERTIES RUN_SERIAL ON)

# Two translation units with the same flags and one with wider instructions, in one program.
add_executable(heed_odr odr/main.cpp odr/one.cpp odr/two.cpp odr/wide.cpp)
target_link_libraries(heed_odr PRIVATE heed::heed)
if(CMAKE_SYSTEM_PROCESSOR MATCHES "x86_64|AMD64")
    set_source_files_properties(odr/wide.cpp PROPERTIES COMPILE_OPTIONS -march=x86-64-v3)
endif()
heed_house_test(odr heed_odr)

if(CMAKE_SYSTEM_PROCESSOR MATCHES "x86_64|AMD64")
    heed_house_test(abi_names ${CMAKE_COMMAND} -D compiler=${CMAKE_CXX_COMPILER}
                    -D include=${PROJECT_SOURCE_DIR}/include -D work=${out}/abi -P ${CMAKE_CURRENT_SOURCE_DIR}/abi_names.cmake)
endif()

# The two ways to use heed from another project.
set(prefix ${out}/prefix)
heed_house_test(consumer.install ${CMAKE_COMMAND} --install ${PROJECT_BINARY_DIR} --prefix ${prefix})
set_tests_properties(consumer.install PROPERTIES FIXTURES_SETUP installed)
set(ways add_subdirectory find_package)
if(heed_fetched MATCHES "eigen|xsimd")
    list(REMOVE_ITEM ways find_package)  # an installed heed finds its dependencies on the system only
endif()
foreach(way IN LISTS ways)
    heed_house_test(consumer.${way} ${CMAKE_CTEST_COMMAND}
                    --build-and-test ${CMAKE_CURRENT_SOURCE_DIR}/consumer/${way} ${out}/${way}
                    --build-generator ${CMAKE_GENERATOR}
                    --build-options -DCMAKE_CXX_COMPILER=${CMAKE_CXX_COMPILER} -DCMAKE_BUILD_TYPE=Release
                                    -DCMAKE_PREFIX_PATH=${prefix} -Dheed_version=${PROJECT_VERSION}
                                    -Dheed_source=${PROJECT_SOURCE_DIR}
                                    -DHEED_FETCH=${HEED_FETCH}
                    --test-command consumer)
    set_property(TEST consumer.${way} PROPERTY FIXTURES_REQUIRED installed)
endforeach()
