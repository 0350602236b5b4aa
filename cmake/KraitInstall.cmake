# What `cmake --install` lays down: the public headers, the library, the krait command, and what
# find_package(krait) and pkg-config need. tests/consumer uses the result as a stranger would.
include(CMakePackageConfigHelpers)

install(DIRECTORY runtime/include/krait TYPE INCLUDE)
install(TARGETS krait EXPORT kraitTargets)
if(TARGET krait_cli)
  install(TARGETS krait_cli)
endif()

set(package_dir ${CMAKE_INSTALL_LIBDIR}/cmake/krait)
install(EXPORT kraitTargets NAMESPACE krait:: DESTINATION ${package_dir})
configure_package_config_file(cmake/kraitConfig.cmake.in kraitConfig.cmake
  INSTALL_DESTINATION ${package_dir})
# Before 1.0 every minor version may change the interface.
write_basic_package_version_file(kraitConfigVersion.cmake COMPATIBILITY SameMinorVersion)
install(FILES ${PROJECT_BINARY_DIR}/kraitConfig.cmake ${PROJECT_BINARY_DIR}/kraitConfigVersion.cmake
  DESTINATION ${package_dir})

# A static library leaves it to its user to link what it uses; a shared one has done so itself.
set(pc_modules libpcre2-8 libutf8proc libxxhash)
if(BUILD_SHARED_LIBS)
  set(pc_requires)
  set(pc_libs)
else()
  list(JOIN pc_modules ", " pc_requires)
  set(pc_libs "-lstdc++ -lm -pthread")
endif()
# From the .pc file's folder back to the prefix, so that an installed tree can be moved.
file(RELATIVE_PATH pc_prefix /prefix/${CMAKE_INSTALL_LIBDIR}/pkgconfig /prefix)
configure_file(cmake/krait.pc.in krait.pc @ONLY)
install(FILES ${PROJECT_BINARY_DIR}/krait.pc DESTINATION ${CMAKE_INSTALL_LIBDIR}/pkgconfig)
