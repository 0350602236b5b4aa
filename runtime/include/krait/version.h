// The version of Krait; CMake reads it from here, so this is its only home.
#pragma once

#define KRAIT_VERSION_MAJOR 0
#define KRAIT_VERSION_MINOR 1
#define KRAIT_VERSION_PATCH 0
