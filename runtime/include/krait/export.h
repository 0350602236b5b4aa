// Marks what a shared build of Krait exports; everything else stays hidden.
#pragma once

#if defined(_WIN32) && defined(KRAIT_SHARED)
#ifdef KRAIT_BUILDING
#define KRAIT_API __declspec(dllexport)
#else
#define KRAIT_API __declspec(dllimport)
#endif
#elif defined(__GNUC__)
#define KRAIT_API __attribute__((visibility("default")))
#else
#define KRAIT_API
#endif
