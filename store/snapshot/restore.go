package snapshot

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/signpost-index/signpost/store"
)

// restoring is where a restore works, in the data directory, as that may be a
// mount point. No node looks there.
const restoring = "restore.tmp"

// RestoreConfig says what is restored and where to. URL and Dir are required.
type RestoreConfig struct {
	URL string
	ID  string // "": the newest
	Dir string // the data directory: missing or empty
	// Secret is the pool's index secret. It may be nil if it is in the snapshot.
	Secret []byte
	// Identity is the node's private key as its file holds it; nil: that of the
	// snapshot, if it has one.
	Identity []byte
}

// Restored is what a Restore has done.
type Restored struct {
	Manifest Manifest
	Elapsed  time.Duration
}

// List returns the snapshots of a place, oldest first.
func List(ctx context.Context, url string) (list []Manifest, err error) {
	p, err := openPlace(ctx, url, false, nil)
	if err != nil {
		return nil, fmt.Errorf("list snapshots: %w", err)
	}
	defer p.close()
	ids, err := listIDs(ctx, p)
	for _, id := range ids {
		m, readErr := readManifest(ctx, p, id)
		if readErr != nil {
			err = errors.Join(err, readErr)
			continue
		}
		list = append(list, m)
	}
	return list, err
}

// Restore makes a data directory of a snapshot. Before anything is written it
// refuses a format this program does not open and an index secret that is not
// the snapshot's. Errors: ErrNotFound, ErrNotEmpty, ErrDamaged, and those of
// package store; the data directory then has no store in it.
func Restore(ctx context.Context, cfg RestoreConfig) (Restored, error) {
	start := time.Now()
	p, err := openPlace(ctx, cfg.URL, false, nil)
	if err != nil {
		return Restored{}, fmt.Errorf("restore: %w", err)
	}
	defer p.close()
	m, err := choose(ctx, p, cfg.ID)
	if err == nil {
		err = restore(ctx, p, m, cfg)
	}
	if err != nil {
		return Restored{Manifest: m}, fmt.Errorf("restore from %s: %w", cfg.URL, err)
	}
	return Restored{Manifest: m, Elapsed: time.Since(start)}, nil
}

func choose(ctx context.Context, p place, id string) (m Manifest, err error) {
	ids, err := listIDs(ctx, p)
	if err != nil {
		return m, err
	}
	if id == "" {
		if len(ids) == 0 {
			return m, fmt.Errorf("%w: there is none", ErrNotFound)
		}
		id = ids[len(ids)-1]
	}
	if idOf(id+".json") == "" {
		return m, fmt.Errorf("%w: %q is not the name of one", ErrNotFound, id)
	}
	return readManifest(ctx, p, id)
}

func restore(ctx context.Context, p place, m Manifest, cfg RestoreConfig) error {
	if err := store.CheckFormat(m.Format); err != nil {
		return fmt.Errorf("snapshot %s: %w", m.ID, err)
	}
	if cfg.Secret != nil && store.SecretID(cfg.Secret) != m.Secret {
		return fmt.Errorf("snapshot %s: %w", m.ID, store.ErrOtherSecret)
	}
	if cfg.Secret == nil && !m.Has(SecretFile) {
		return fmt.Errorf("snapshot %s: %w", m.ID, ErrNoSecret)
	}
	if err := checkEmpty(cfg.Dir); err != nil {
		return err
	}
	tmp := filepath.Join(cfg.Dir, restoring)
	if err := os.RemoveAll(tmp); err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Join(tmp, storeDir), dirMode); err != nil {
		return err
	}
	if err := fetchAll(ctx, p, m, tmp); err != nil {
		return err
	}
	for name, b := range map[string][]byte{SecretFile: cfg.Secret, IdentityFile: cfg.Identity} {
		if b == nil {
			continue
		}
		if err := writeFile(filepath.Join(tmp, name), b); err != nil {
			return err
		}
	}
	return moveIn(cfg.Dir, tmp)
}

// checkEmpty refuses a directory with anything but what a killed restore left.
func checkEmpty(dir string) error {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	killed := slices.ContainsFunc(entries, func(e os.DirEntry) bool { return e.Name() == restoring })
	for _, e := range entries {
		// Keys get their names before the store does.
		begun := e.Name() == restoring || killed && (e.Name() == IdentityFile || e.Name() == SecretFile)
		if !begun && e.Name() != "lost+found" {
			return fmt.Errorf("%w: %s has %s", ErrNotEmpty, dir, e.Name())
		}
	}
	return nil
}

// fetchAll brings the files, the one that makes a directory a store last.
func fetchAll(ctx context.Context, p place, m Manifest, tmp string) error {
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(workers)
	dirs := map[string]bool{tmp: true, filepath.Join(tmp, storeDir): true}
	var last File
	for _, f := range m.Files {
		if f.Path == formatFile {
			last = f
			continue
		}
		to := filepath.Join(tmp, filepath.FromSlash(f.Path))
		for dir := filepath.Dir(to); !dirs[dir]; dir = filepath.Dir(dir) {
			if err := os.MkdirAll(dir, dirMode); err != nil {
				return errors.Join(err, g.Wait())
			}
			dirs[dir] = true
		}
		g.Go(func() error { return fetch(gctx, p, f, to) })
	}
	if err := g.Wait(); err != nil {
		return err
	}
	if err := fetch(ctx, p, last, filepath.Join(tmp, filepath.FromSlash(last.Path))); err != nil {
		return err
	}
	for dir := range dirs {
		if err := syncDir(dir); err != nil {
			return err
		}
	}
	return nil
}

// fetch brings one file and compares it with what the manifest says.
func fetch(ctx context.Context, p place, f File, to string) error {
	if f.Bytes == 0 {
		return writeFile(to, nil)
	}
	err := retry(ctx, p.again, func() error {
		r, err := p.get(ctx, path.Join(filesDir, f.SHA256))
		if errors.Is(err, ErrNotFound) {
			return fmt.Errorf("%w: file %s is missing", ErrDamaged, f.SHA256)
		}
		if err != nil {
			return err
		}
		defer r.Close()
		return writeSum(ctx, to, r, f)
	})
	if err != nil {
		return fmt.Errorf("fetch %s: %w", f.Path, err)
	}
	return nil
}

func writeSum(ctx context.Context, to string, r io.Reader, f File) error {
	file, err := os.OpenFile(to, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, fileMode)
	if err != nil {
		return err
	}
	sum, err := copySum(file, pacedReader{ctx, r, nil}, f.Bytes)
	if err == nil && sum != f.SHA256 {
		err = fmt.Errorf("%w: file %s has other bytes", ErrDamaged, f.SHA256)
	}
	if err == nil {
		err = file.Sync()
	}
	return errors.Join(err, file.Close())
}

func writeFile(to string, b []byte) error {
	f, err := os.OpenFile(to, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, fileMode)
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	if err == nil {
		err = f.Sync()
	}
	return errors.Join(err, f.Close())
}

// moveIn gives all its name: the keys first, the store last.
func moveIn(dir, tmp string) error {
	for _, name := range []string{IdentityFile, SecretFile, storeDir} {
		err := os.Rename(filepath.Join(tmp, name), filepath.Join(dir, name))
		if err != nil && (name == storeDir || !errors.Is(err, fs.ErrNotExist)) {
			return err
		}
	}
	return errors.Join(os.Remove(tmp), syncDir(dir), syncDir(filepath.Dir(dir)))
}
