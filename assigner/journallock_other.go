//go:build !unix

package assigner

import "os"

// lockJournal locks nothing where there is no flock: that two assigners do not
// share a journal is for whoever starts them to see to.
func lockJournal(path string) (*os.File, error) {
	return os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
}
