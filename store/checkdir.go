package store

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"github.com/cockroachdb/pebble/v2/vfs"
)

const (
	// scratchDir is where CheckDir works, in the store's directory.
	scratchDir = "check.tmp"
	partLost   = "lost"
)

// partError says in which part of a store opening ended.
type partError struct {
	part string
	err  error
}

func (e *partError) Error() string { return e.part + ": " + e.err.Error() }
func (e *partError) Unwrap() error { return e.err }

func inPart(part string, err error) error {
	if err == nil {
		return nil
	}
	return &partError{part, err}
}

// CheckDir does what Check does for a store that is not open, and calls fn for
// what keeps it from being opened too. A store that has lost postings to damage,
// and was not marked as whole since, has a damage of part "lost".
//
// It works on a copy in the directory, of links where the file system can, which
// it removes: what stands there stays as it is. Errors: ErrInUse, ErrOtherSecret,
// ErrNewerFormat, ErrOldFormat, fs.ErrNotExist if there is no store, that of fn or
// the file system; then nothing can be said.
func CheckDir(ctx context.Context, cfg Config, fn func(Damage) error) error {
	cfg = cfg.withDefaults()
	if err := checkDir(ctx, cfg, fn); err != nil {
		return fmt.Errorf("check store %s: %w", cfg.Dir, err)
	}
	return nil
}

func checkDir(ctx context.Context, cfg Config, fn func(Damage) error) (err error) {
	exists, err := isStore(cfg)
	if errors.Is(err, ErrCorrupt) {
		return fn(Damage{Part: "format", What: formatFile, Err: err, fatal: true})
	}
	if err != nil {
		return err
	}
	if !exists {
		return fmt.Errorf("%w: no store", fs.ErrNotExist)
	}
	lock, err := lockDir(cfg.FS, cfg.Dir, cfg.lockPatience)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, lock.Close()) }()
	scratch := cfg.FS.PathJoin(cfg.Dir, scratchDir)
	if err := cfg.FS.RemoveAll(scratch); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, cfg.FS.RemoveAll(scratch)) }()
	if err := linkTree(cfg.FS, cfg.Dir, scratch); err != nil {
		return err
	}
	cfg.Dir, cfg.leaveDamage, cfg.ReserveBytes, cfg.Registerer = scratch, true, -1, nil
	s, err := Open(cfg)
	if d, ok := openDamage(err); ok {
		return fn(d)
	}
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	if err := s.Check(ctx, fn); err != nil {
		return err
	}
	return s.reportLost(fn)
}

// isStore tells whether a directory has a store of a format that Open takes.
func isStore(cfg Config) (exists bool, err error) {
	if exists, err = checkFormat(cfg.FS, cfg.Dir); exists || err != nil {
		return exists, err
	}
	if _, err := cfg.FS.Stat(cfg.FS.PathJoin(cfg.Dir, "rows")); err == nil {
		return false, fmt.Errorf("%w: %s is missing", ErrCorrupt, formatFile)
	}
	return false, nil
}

// openDamage tells what of an error of Open is damage.
func openDamage(err error) (Damage, bool) {
	var part *partError
	if !errors.As(err, &part) || errors.Is(err, ErrOtherSecret) || errors.Is(err, ErrNewerFormat) ||
		errors.Is(err, os.ErrPermission) || vfs.IsNoSpaceError(err) {
		return Damage{}, false
	}
	return Damage{Part: part.part, What: "cannot be opened", Err: part.err, fatal: true}, true
}

func (s *Store) reportLost(fn func(Damage) error) error {
	stats, err := s.Stats()
	if err != nil || stats.LostShare == 0 {
		return err
	}
	return fn(Damage{Part: partLost, What: fmt.Sprintf("postings of %.4f %% of all multihashes, to damage met before", 100*stats.LostShare),
		Err: errors.New("lookups that find nothing there fail until all is indexed again and marked as whole")})
}

// linkTree makes a copy of a directory that may be changed: tables, which never
// are, are links.
func linkTree(fsys vfs.FS, from, to string) error {
	if err := fsys.MkdirAll(to, 0o755); err != nil {
		return err
	}
	names, err := fsys.List(from)
	if err != nil {
		return err
	}
	for _, name := range names {
		source, dest := fsys.PathJoin(from, name), fsys.PathJoin(to, name)
		info, err := fsys.Stat(source)
		switch {
		case err != nil:
		case name == scratchDir || name == "LOCK" || name == probeFile:
		case info.IsDir():
			err = linkTree(fsys, source, dest)
		case strings.HasSuffix(name, ".sst"):
			err = vfs.LinkOrCopy(fsys, source, dest)
		default:
			err = vfs.Copy(fsys, source, dest)
		}
		if err != nil {
			return err
		}
	}
	return nil
}
