package api

import (
	"log/slog"
	"os"
	"sync"
	"time"
)

// reloadEvery is how often files are looked at for a change, at most.
const reloadEvery = 2 * time.Second

// Reloaded is what files say, read again when one of them changes. It is safe for
// concurrent use.
type Reloaded[T any] struct {
	files []string
	load  func() (T, error)
	what  string
	log   *slog.Logger

	mu     sync.Mutex
	now    T
	stamps []os.FileInfo // nil: a file is not there
	looked time.Time
}

// Reload reads files with load, which fails if they are wrong. Later, what stood before
// stays in force then, and log is told.
func Reload[T any](what string, log *slog.Logger, load func() (T, error), files ...string) (*Reloaded[T], error) {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	r := &Reloaded[T]{files: files, load: load, what: what, log: log, looked: time.Now()}
	r.stamps = r.stat() // before they are read
	var err error
	r.now, err = load()
	return r, err
}

func (r *Reloaded[T]) stat() []os.FileInfo {
	stamps := make([]os.FileInfo, len(r.files))
	for i, f := range r.files {
		stamps[i], _ = os.Stat(f)
	}
	return stamps
}

// sameFile tells whether nobody has written it or put another in its place.
func sameFile(a, b os.FileInfo) bool {
	if a == nil || b == nil {
		return a == nil && b == nil
	}
	return os.SameFile(a, b) && a.Size() == b.Size() && a.ModTime().Equal(b.ModTime())
}

// Get is what the files say. A change is seen after two seconds.
func (r *Reloaded[T]) Get() T {
	r.mu.Lock()
	defer r.mu.Unlock()
	if time.Since(r.looked) >= reloadEvery {
		r.looked = time.Now()
		r.lookAgain()
	}
	return r.now
}

// Now reads the files again, changed or not.
func (r *Reloaded[T]) Now() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.stamps = nil
	return r.lookAgain()
}

func (r *Reloaded[T]) lookAgain() error {
	stamps := r.stat()
	same := len(stamps) == len(r.stamps)
	for i := range stamps {
		same = same && sameFile(stamps[i], r.stamps[i])
	}
	if same {
		return nil
	}
	r.stamps = stamps
	now, err := r.load()
	if err != nil {
		r.log.Error("read again; what was read before stays in force", "what", r.what, "err", err)
		return err
	}
	r.now = now
	r.log.Info("read again", "what", r.what)
	return nil
}
