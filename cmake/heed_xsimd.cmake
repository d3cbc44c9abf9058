# Finds xsimd 8 to 14 as target xsimd; leaves it undefined where there is none. Its packages accept their own major
# version only, and one that is too old must not define the target, so each version is asked for by name.
foreach(heed_major 14 13 12 11 10 9 8)
    if(NOT TARGET xsimd)
        find_package(xsimd ${heed_major} QUIET)
    endif()
endforeach()
unset(heed_major)

# The package of Debian 12 links to xtl without looking for it, so the linker is asked for a library libxtl that has
# never existed (xtensor-stack/xsimd#869). heed uses nothing of it.
if(TARGET xsimd AND NOT TARGET xtl)
    get_target_property(heed_links xsimd INTERFACE_LINK_LIBRARIES)
    if(heed_links)
        list(REMOVE_ITEM heed_links xtl)
        set_target_properties(xsimd PROPERTIES INTERFACE_LINK_LIBRARIES "${heed_links}")
    endif()
    unset(heed_links)
endif()
