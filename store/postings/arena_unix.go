//go:build unix

package postings

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// mapMemory takes zeroed memory from the system, which counts only once it is
// written to.
func mapMemory(size int) ([]byte, func(), error) {
	mem, err := unix.Mmap(-1, 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE)
	if err != nil {
		return nil, nil, fmt.Errorf("map %d bytes for postings: %w", size, err)
	}
	return mem, func() { _ = unix.Munmap(mem) }, nil
}
