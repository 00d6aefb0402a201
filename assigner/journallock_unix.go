//go:build unix

package assigner

import (
	"errors"
	"os"
	"syscall"
)

// lockJournal makes sure that two assigners do not share a journal. The lock is
// given back when the file is closed, and when the process ends in any way.
func lockJournal(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		_ = f.Close()
		if errors.Is(err, syscall.EWOULDBLOCK) {
			err = errors.New("another assigner uses it: give each a directory of its own")
		}
		return nil, err
	}
	return f, nil
}
