package store

import (
	"time"

	"golang.org/x/sys/unix"
)

// sleep returns after d, to some 60 us; time.Sleep may be a millisecond late,
// which would be taken for the store's. It may be early, and blocks a thread.
func sleep(d time.Duration) {
	left := unix.NsecToTimespec(int64(d))
	_ = unix.Nanosleep(&left, nil)
}
