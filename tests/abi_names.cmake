# cmake -D compiler=... -D include=... -D work=... -P abi_names.cmake
# Translation units whose instruction sets make the code differ have different inline namespaces.
cmake_minimum_required(VERSION 3.22)

file(MAKE_DIRECTORY ${work})
file(WRITE ${work}/name.cpp "#include <heed/core/config.hpp>\nname of the namespace: HEED_ABI\n")
set(seen "")
foreach(flags "-march=x86-64" "-march=x86-64-v2" "-march=x86-64-v2 -mavx" "-march=x86-64-v3"
              "-march=x86-64-v3 -mno-f16c" "-march=x86-64-v3 -mno-fma" "-march=x86-64-v3 -mavx512f" "-march=x86-64-v4" "-march=icelake-client" "-march=cooperlake" "-march=sapphirerapids")
    separate_arguments(list UNIX_COMMAND "${flags}")
    execute_process(COMMAND ${compiler} -std=c++20 ${list} -I ${include} -E -P ${work}/name.cpp
                    OUTPUT_VARIABLE text RESULT_VARIABLE status)
    if(NOT status EQUAL 0 OR NOT text MATCHES "name of the namespace: (v[0-9a-z_]+)")
        message(FATAL_ERROR "no name with ${flags}: ${text}")
    endif()
    if(CMAKE_MATCH_1 IN_LIST seen)
        message(FATAL_ERROR "${flags} has the name ${CMAKE_MATCH_1}, which other flags have too")
    endif()
    list(APPEND seen ${CMAKE_MATCH_1})
endforeach()
message(STATUS "${seen}")
