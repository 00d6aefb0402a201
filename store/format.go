package store

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
)

// FormatNumber is the layout this code writes. A directory with a higher
// number is refused with ErrNewerFormat and left as it is.
//
//	1  one database with postings as one Merge key a multihash; never released
//	2  rows, postings and log apart; never released
//	3  records and ledger entries under numbers and hashes
//	4  walks, troubles, ads to be applied again, announced heads; else as 3
//	5  depths of walks, wishes to look at ads again; else as 4
//	6  roles, ranges, heights, ads held elsewhere; else as 5
//	7  places of positions; else as 6
//	8  wishes to follow ads another indexer has; else as 7
//
// A directory of format 3 to 7 is one of format 8 without any of these: Open
// changes the number, gives assignments their role and ranges, and counts heights.
// Places are known of what comes after.
const FormatNumber = 8

// rolesFormat is the first with roles and heights.
const rolesFormat = 6

// oldestFormat is the lowest number that is taken.
const oldestFormat = 3

// formatFile stands beside Pebble's files and is written before them, so that
// a directory without it but with a database is not ours.
const (
	formatFile   = "FORMAT"
	formatPrefix = "signpost-store "
)

// checkFormat reads the format number without writing anything. exists is
// false for a directory that holds no store yet.
func checkFormat(fsys vfs.FS, dir string) (exists bool, err error) {
	number, err := readFormat(fsys, dir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return false, checkNoDatabase(fsys, dir)
	case err != nil:
		return false, fmt.Errorf("open store %s: %w", dir, err)
	}
	if err := CheckFormat(number); err != nil {
		return true, fmt.Errorf("open store %s: %w", dir, err)
	}
	return true, nil
}

// CheckFormat refuses the number of a format that Open does not take:
// ErrNewerFormat, ErrOldFormat.
func CheckFormat(number int) error {
	switch {
	case number < oldestFormat:
		return fmt.Errorf("format %d of a development version: remove the directory, publishers' chains are fetched again: %w", number, ErrOldFormat)
	case number > FormatNumber:
		return fmt.Errorf("format %d, this program knows up to %d: %w", number, FormatNumber, ErrNewerFormat)
	}
	return nil
}

// SecretID tells one index secret from another without saying what it is.
func SecretID(secret []byte) string {
	sum := sha256.Sum256(append([]byte("signpost index secret\x00"), secret...))
	return hex.EncodeToString(sum[:16])
}

// checkNoDatabase keeps us from taking another program's database for ours.
func checkNoDatabase(fsys vfs.FS, dir string) error {
	desc, err := pebble.Peek(dir, fsys)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return fmt.Errorf("open store %s: %w", dir, err)
	case desc.Exists:
		return fmt.Errorf("open store %s: a database without %s file: %w", dir, formatFile, ErrCorrupt)
	}
	return nil
}

func readFormat(fsys vfs.FS, dir string) (int, error) {
	f, err := fsys.Open(fsys.PathJoin(dir, formatFile))
	if err != nil {
		return 0, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, 64))
	if err != nil {
		return 0, fmt.Errorf("read %s: %w", formatFile, err)
	}
	text, ok := strings.CutPrefix(string(b), formatPrefix)
	number, err := strconv.Atoi(strings.TrimSuffix(text, "\n"))
	if !ok || err != nil || number < 1 {
		return 0, fmt.Errorf("read %s: %q: %w", formatFile, b, ErrCorrupt)
	}
	return number, nil
}

// writeFormat writes the file so that it is there whole or not at all.
func writeFormat(fsys vfs.FS, dir string) error {
	tmp := fsys.PathJoin(dir, formatFile+".tmp")
	f, err := fsys.Create(tmp, vfs.WriteCategoryUnspecified)
	if err != nil {
		return err
	}
	_, err = f.Write([]byte(formatPrefix + strconv.Itoa(FormatNumber) + "\n"))
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	if err := fsys.Rename(tmp, fsys.PathJoin(dir, formatFile)); err != nil {
		return err
	}
	return syncDir(fsys, dir)
}

// upgradeFormat writes the number of this code where an older one stands, and
// returns that.
func upgradeFormat(fsys vfs.FS, dir string) (older int, err error) {
	older, err = readFormat(fsys, dir)
	if err != nil || older == FormatNumber {
		return older, err
	}
	return older, writeFormat(fsys, dir)
}

// makeDir makes dir and its parents, each synced into the one above.
func makeDir(fsys vfs.FS, dir string) error {
	if _, err := fsys.Stat(dir); err == nil {
		return nil
	} else if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	parent := fsys.PathDir(dir)
	if parent != dir && parent != "." {
		if err := makeDir(fsys, parent); err != nil {
			return err
		}
	}
	if err := fsys.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	return syncDir(fsys, parent)
}

func syncDir(fsys vfs.FS, dir string) error {
	d, err := fsys.OpenDir(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// lockPatience is how long Open waits for a lock: after a kill -9 the kernel
// may hold it for a moment longer.
const lockPatience = 3 * time.Second

// lockDir takes the directory's lock. A directory in use by a living process
// gives ErrInUse when the patience is over.
func lockDir(fsys vfs.FS, dir string, patience time.Duration) (*pebble.Lock, error) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	for {
		lock, err := pebble.LockDirectory(dir, fsys)
		if err == nil {
			return lock, nil
		}
		held := strings.Contains(err.Error(), "lock held by current process")
		if !held && !errors.Is(err, syscall.EAGAIN) {
			return nil, fmt.Errorf("lock store %s: %w", dir, err)
		}
		if held || ctx.Err() != nil {
			return nil, fmt.Errorf("lock store %s: %w (%w)", dir, ErrInUse, err)
		}
		select {
		case <-ctx.Done():
		case <-time.After(50 * time.Millisecond):
		}
	}
}
