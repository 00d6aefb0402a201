package snapshot

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
)

// workers is how many files are copied at a time.
const workers = 4

// TakeConfig says what is copied and where to. URL, Checkpoint and Head are
// required.
type TakeConfig struct {
	URL        string // of the place, as package objects reads it
	Checkpoint string // the directory of a store's checkpoint
	Head       Manifest
	// Private are files to be in it too, by their paths in a data directory:
	// IdentityFile and SecretFile.
	Private map[string]string
	// Keep is how many snapshots stay, this one included; 0: all.
	Keep int
	// RateBytes bounds what is read and sent, bytes a second; 0: not.
	RateBytes int64
	// Held, if not nil, fails once the checkpoint is no longer this caller's: then
	// the snapshot does not count.
	Held   func(context.Context) error
	Logger *slog.Logger // nil: discard
}

// Taken is what a Take has done.
type Taken struct {
	Manifest    Manifest
	CopiedFiles int
	CopiedBytes int64
	Removed     int // older snapshots
	RemovedFile int // files that no snapshot names any more
	Elapsed     time.Duration
}

// taker is one Take under way.
type taker struct {
	cfg   TakeConfig
	place place
	ids   []string        // of the snapshots there are, oldest first
	known map[string]File // of the newest one, by path
	mu    sync.Mutex
	there map[string]int64 // sizes of the files at the place, by name
	taken Taken
}

// Take copies a checkpoint to a place, as far as it is not there. After an error
// there is no new snapshot; it can be repeated, and what was copied counts.
func Take(ctx context.Context, cfg TakeConfig) (Taken, error) {
	start := time.Now()
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	if cfg.Held == nil {
		cfg.Held = func(context.Context) error { return nil }
	}
	p, err := openPlace(ctx, cfg.URL, true, newPace(cfg.RateBytes))
	if err != nil {
		return Taken{}, fmt.Errorf("take snapshot: %w", err)
	}
	defer p.close()
	t := &taker{cfg: cfg, place: p}
	if err := t.take(ctx); err != nil {
		return t.taken, fmt.Errorf("take snapshot: %w", err)
	}
	if err := t.prune(ctx); err != nil {
		return t.taken, fmt.Errorf("snapshot %s is taken; remove older ones: %w", t.taken.Manifest.ID, err)
	}
	t.taken.Elapsed = time.Since(start)
	return t.taken, nil
}

func (t *taker) take(ctx context.Context) (err error) {
	if t.ids, err = listIDs(ctx, t.place); err != nil {
		return err
	}
	if err := t.last(ctx); err != nil {
		return err
	}
	if t.there, err = t.place.list(ctx, filesDir); err != nil {
		return err
	}
	m := t.cfg.Head
	m.Version, m.ID = manifestVersion, nextID(m.Time, t.ids)
	if m.Files, err = t.copyAll(ctx); err != nil {
		return err
	}
	if err := m.check(); err != nil {
		return err
	}
	b, err := json.Marshal(m)
	if err != nil {
		return err
	}
	if err := errors.Join(t.place.flush(), t.cfg.Held(ctx)); err != nil {
		return err
	}
	if err := t.place.put(ctx, manifestName(m.ID), b); err != nil {
		return err
	}
	// Had another begun meanwhile, it may have removed what this one names.
	if err := errors.Join(t.place.flush(), t.cfg.Held(ctx)); err != nil {
		return errors.Join(err, t.place.remove(context.WithoutCancel(ctx), manifestName(m.ID)))
	}
	t.taken.Manifest, t.ids = m, append(t.ids, m.ID)
	return nil
}

// last reads the newest snapshot that can be read.
func (t *taker) last(ctx context.Context) error {
	for n := len(t.ids) - 1; n >= 0; n-- {
		m, err := readManifest(ctx, t.place, t.ids[n])
		if errors.Is(err, ErrDamaged) {
			t.cfg.Logger.Warn("an older snapshot cannot be read", "snapshot", t.ids[n], "err", err)
			continue
		}
		if err != nil {
			return err
		}
		if m.Node != t.cfg.Head.Node {
			return fmt.Errorf("%w: %s; give each node a place of its own", ErrOtherNode, m.Node)
		}
		t.known = make(map[string]File, len(m.Files))
		for _, f := range m.Files {
			t.known[f.Path] = f
		}
		return nil
	}
	return nil
}

// copyAll copies what is to be in the snapshot.
func (t *taker) copyAll(ctx context.Context) ([]File, error) {
	sources := make(map[string]string) // file by path in the data directory
	var paths []string
	add := func(name, file string) {
		sources[name] = file
		paths = append(paths, name)
	}
	err := filepath.WalkDir(t.cfg.Checkpoint, func(file string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		rel, err := filepath.Rel(t.cfg.Checkpoint, file)
		add(path.Join(storeDir, filepath.ToSlash(rel)), file)
		return err
	})
	if err != nil {
		return nil, err
	}
	for name, file := range t.cfg.Private {
		add(name, file)
	}
	files := make([]File, len(paths))
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(workers)
	for n, name := range paths {
		g.Go(func() (err error) {
			if err := ctx.Err(); err != nil {
				return err
			}
			if files[n], err = t.copyOne(ctx, name, sources[name]); err != nil {
				return fmt.Errorf("copy %s: %w", name, err)
			}
			return nil
		})
	}
	return files, g.Wait()
}

func (t *taker) copyOne(ctx context.Context, name, file string) (File, error) {
	info, err := os.Stat(file)
	if err != nil {
		return File{}, err
	}
	f := File{Path: name, Bytes: info.Size(), Changed: info.ModTime().UTC()}
	if f.Bytes == 0 {
		f.SHA256 = emptySum
		return f, nil
	}
	if old, ok := t.known[name]; ok && old.Bytes == f.Bytes && old.Changed.Equal(f.Changed) && t.have(old.SHA256, f.Bytes) {
		return old, nil
	}
	var copied bool
	f.SHA256, copied, err = t.place.keep(ctx, file, f.Bytes, func(sum string) bool { return t.have(sum, f.Bytes) })
	if err != nil {
		return f, err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.there[f.SHA256] = f.Bytes
	if copied {
		t.taken.CopiedFiles++
		t.taken.CopiedBytes += f.Bytes
	}
	return f, nil
}

// have tells whether the place has a file. One of another size is not it.
func (t *taker) have(sum string, sizeBytes int64) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	n, ok := t.there[sum]
	return ok && n == sizeBytes
}
