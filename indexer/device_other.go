//go:build !unix

package indexer

import (
	"os"
	"path/filepath"
)

// deviceOf names the file system dir is on.
func deviceOf(dir string) (string, error) {
	if _, err := os.Stat(dir); err != nil {
		return "", err
	}
	return filepath.VolumeName(dir), nil
}
