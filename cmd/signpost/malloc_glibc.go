//go:build cgo && linux

package main

// #include <malloc.h>
//
// static void bound_arenas(void) {
// #ifdef __GLIBC__
// 	mallopt(M_ARENA_MAX, 2);
// #endif
// }
import "C"

// boundMalloc keeps C's malloc to two arenas. Pebble's block caches come from
// it; by default glibc has eight arenas a core, each with free memory of its
// own that the others cannot use: at 64 MiB for the store 55 MiB were resident
// for caches of 12. It is called before there is a store.
func boundMalloc() { C.bound_arenas() }
