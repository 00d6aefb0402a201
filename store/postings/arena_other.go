//go:build !unix

package postings

import "unsafe"

// mapMemory is plain Go memory where there is no mmap.
func mapMemory(size int) ([]byte, func(), error) {
	words := make([]uint64, (size+7)/8)
	return unsafe.Slice((*byte)(unsafe.Pointer(&words[0])), size), func() {}, nil
}
