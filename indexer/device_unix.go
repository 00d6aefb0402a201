//go:build unix

package indexer

import (
	"fmt"
	"os"
	"syscall"
)

// deviceOf names the file system dir is on.
func deviceOf(dir string) (string, error) {
	info, err := os.Stat(dir)
	if err != nil {
		return "", err
	}
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		return fmt.Sprint(st.Dev), nil
	}
	return dir, nil
}
