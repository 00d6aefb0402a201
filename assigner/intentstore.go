package assigner

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"

	"github.com/signpost-index/signpost/api/admin"
)

// intentStore keeps the operator's wishes: in a file, or with no file in memory.
// Its methods are safe for concurrent use. Losing the file loses wishes, never
// facts.
type intentStore struct {
	file string // empty: in memory only
	// lost: there was no file at the start. What indexers know of earlier wishes
	// is taken from them.
	lost bool
	now  atomic.Pointer[Intents]

	mu      sync.Mutex // one change at a time; held while the file is written
	changed atomic.Pointer[chan struct{}]
}

// openIntents reads the file, if there is one; one that is absent is made by the
// first change. A file that cannot be read as a whole is an error: guessing at
// wishes might empty the wrong indexer.
func openIntents(file string) (*intentStore, error) {
	s := &intentStore{file: file, lost: true}
	s.now.Store(new(Intents))
	c := make(chan struct{})
	s.changed.Store(&c)
	if file == "" {
		return s, nil
	}
	f, err := os.Open(file)
	if errors.Is(err, fs.ErrNotExist) {
		if _, err := os.Stat(filepath.Dir(file)); err != nil {
			return nil, fmt.Errorf("intents file %s: %w; make the directory first", file, err)
		}
		return s, nil
	}
	if err != nil {
		return nil, fmt.Errorf("intents file: %w", err)
	}
	defer f.Close()
	in, err := parseIntents(f)
	if err != nil {
		return nil, fmt.Errorf("intents file %s: %w; correct the line, or move the file away: then all wishes are forgotten and indexers keep what they have", file, err)
	}
	s.now.Store(&in)
	s.lost = false
	return s, nil
}

// Current is what is wished now. The caller does not change it.
func (s *intentStore) Current() Intents { return *s.now.Load() }

// Kept reports whether wishes outlive the process.
func (s *intentStore) Kept() bool { return s.file != "" }

// Changed is closed at the next change.
func (s *intentStore) Changed() <-chan struct{} { return *s.changed.Load() }

// Change replaces the intents with what f makes of them, on disk first. After an
// error, of f or of the disk, they are as before.
func (s *intentStore) Change(f func(Intents) (Intents, error)) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	in, err := f(s.Current())
	if err != nil {
		return err
	}
	if s.file != "" {
		if err := replaceFile(s.file, in.text()); err != nil {
			return fmt.Errorf("%w: the wish cannot be kept, and is not in force: intents file: %w", admin.ErrUnavailable, err)
		}
	}
	s.now.Store(&in)
	c := make(chan struct{})
	close(*s.changed.Swap(&c))
	return nil
}

// replaceFile makes b the content of the file, complete or not at all, also when
// the power fails.
func replaceFile(file string, b []byte) error {
	dir := filepath.Dir(file)
	tmp, err := os.CreateTemp(dir, filepath.Base(file)+".*")
	if err != nil {
		return err
	}
	defer func() { _ = os.Remove(tmp.Name()) }() // gone already if all went well
	_, err = tmp.Write(b)
	if err := errors.Join(err, tmp.Sync(), tmp.Close()); err != nil {
		return err
	}
	if err := os.Rename(tmp.Name(), file); err != nil {
		return err
	}
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
