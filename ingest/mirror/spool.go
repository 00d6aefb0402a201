package mirror

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// spool is the directory where files are written before they become visible.
//
//	lock      held by the Mirror that has the directory
//	spool-*   one file being written; emptied at Open
type spool struct {
	dir      string
	lock     *os.File
	maxBytes int64
	used     atomic.Int64  // bytes of all spool files; ≤ maxBytes
	made     atomic.Uint64 // files so far; no name is used twice
	log      *slog.Logger
}

const spoolPrefix = "spool-"

func openSpool(dir string, maxBytes int64, log *slog.Logger) (*spool, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, fmt.Errorf("spool: %w", err)
	}
	lock, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return nil, fmt.Errorf("spool: %w", err)
	}
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		lock.Close()
		if errors.Is(err, unix.EWOULDBLOCK) {
			return nil, fmt.Errorf("spool %s: %w", dir, ErrLocked)
		}
		return nil, fmt.Errorf("lock spool %s: %w", dir, err)
	}
	sweep(dir, log, func(e os.DirEntry) bool { return strings.HasPrefix(e.Name(), spoolPrefix) })
	return &spool{dir: dir, lock: lock, maxBytes: maxBytes, log: log}, nil
}

// close gives the directory back; the kernel does so when a process dies.
func (s *spool) close() error { return s.lock.Close() }

// create makes an empty spool file.
func (s *spool) create() (*spoolFile, error) {
	name := fmt.Sprintf("%s%d", spoolPrefix, s.made.Add(1))
	f, err := os.OpenFile(filepath.Join(s.dir, name), os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o644)
	if err != nil {
		return nil, err
	}
	return &spoolFile{s: s, f: f}, nil
}

// spoolFile is one file being written.
type spoolFile struct {
	s         *spool
	f         *os.File
	sizeBytes int64
	closed    bool
}

// Write appends p, or nothing and ErrSpoolFull.
func (f *spoolFile) Write(p []byte) (int, error) {
	n := int64(len(p))
	if f.s.used.Add(n) > f.s.maxBytes {
		f.s.used.Add(-n)
		return 0, ErrSpoolFull
	}
	f.sizeBytes += n
	return f.f.Write(p)
}

// rewriteStart replaces the beginning of the file.
func (f *spoolFile) rewriteStart(p []byte) error {
	_, err := f.f.WriteAt(p, 0)
	return err
}

// close makes the content durable and the file complete.
func (f *spoolFile) close() error {
	f.closed = true
	return errors.Join(f.f.Sync(), f.f.Close())
}

func (f *spoolFile) path() string { return f.f.Name() }

// release removes the file unless it was moved away, and gives its bytes back.
func (f *spoolFile) release() {
	if !f.closed {
		f.f.Close()
	}
	removeQuietly(f.s.log, f.path())
	f.s.used.Add(-f.sizeBytes)
}

// sweep removes the files of dir that are left over, at most maxSwept of the
// first maxSwept. What cannot be removed is tried again at the next start.
func sweep(dir string, log *slog.Logger, leftOver func(os.DirEntry) bool) {
	d, err := os.Open(dir)
	if err != nil {
		if !errors.Is(err, os.ErrNotExist) {
			log.Warn("mirror directory cannot be swept", "path", dir, "err", err)
		}
		return
	}
	defer d.Close()
	entries, err := d.ReadDir(maxSwept)
	if err != nil && err != io.EOF {
		log.Warn("mirror directory cannot be swept", "path", dir, "err", err)
	}
	for _, e := range entries {
		if leftOver(e) {
			removeQuietly(log, filepath.Join(dir, e.Name()))
		}
	}
}
