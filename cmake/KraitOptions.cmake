# Compiler flags of every target of this project: link krait_flags privately.
add_library(krait_flags INTERFACE)
if(MSVC)
  target_compile_options(krait_flags INTERFACE /W4 $<$<BOOL:${KRAIT_WERROR}>:/WX>)
else()
  target_compile_options(krait_flags INTERFACE
    -Wall -Wextra -Wpedantic -Wnon-virtual-dtor $<$<BOOL:${KRAIT_WERROR}>:-Werror>
    # Results must not depend on which products the compiler chose to fuse.
    -ffp-contract=off
    # gcc 12 sees overlapping copies in plain string concatenation (its bug 105651).
    $<$<AND:$<CXX_COMPILER_ID:GNU>,$<VERSION_LESS:$<CXX_COMPILER_VERSION>,13>>:-Wno-restrict>)
endif()
if(KRAIT_SANITIZE)
  target_compile_options(krait_flags INTERFACE -fsanitize=${KRAIT_SANITIZE} -fno-omit-frame-pointer -g1
    -fno-sanitize-recover=all)
  target_link_options(krait_flags INTERFACE -fsanitize=${KRAIT_SANITIZE})
endif()
if(KRAIT_FUZZ)
  # Coverage counters in the library, by which the fuzzer finds its way; harmless to other tests.
  target_compile_options(krait_flags INTERFACE -fsanitize=fuzzer-no-link)
endif()
