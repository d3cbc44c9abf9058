# cmake --install: the headers, and the package that find_package(heed) reads.
include(GNUInstallDirs)
include(CMakePackageConfigHelpers)

set(package_dir ${CMAKE_INSTALL_DATADIR}/cmake/heed)
if(CMAKE_VERSION VERSION_GREATER_EQUAL 3.23)
    install(TARGETS heed EXPORT heedTargets FILE_SET HEADERS)
else()
    install(TARGETS heed EXPORT heedTargets)
    install(DIRECTORY include/heed DESTINATION ${CMAKE_INSTALL_INCLUDEDIR} PATTERN dist EXCLUDE)
endif()
install(EXPORT heedTargets NAMESPACE heed:: DESTINATION ${package_dir})

write_basic_package_version_file(${PROJECT_BINARY_DIR}/heedConfigVersion.cmake
                                 COMPATIBILITY SameMinorVersion ARCH_INDEPENDENT)
install(FILES cmake/heedConfig.cmake cmake/heed_xsimd.cmake ${PROJECT_BINARY_DIR}/heedConfigVersion.cmake
        DESTINATION ${package_dir})
