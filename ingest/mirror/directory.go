package mirror

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// directory is a mirror in a directory. A file .filestore-config.json says how
// names are spread over subdirectories; the reference writes it into an empty
// directory, and so do we. A directory that has files but not this one is flat.
type directory struct {
	root  string
	split []int // lengths of the name's pieces that make subdirectories
	log   *slog.Logger
}

const (
	// layoutFile and its content: storetheindex, filestore/local.go.
	layoutFile    = ".filestore-config.json"
	layoutVersion = "v1"
	maxLayoutFile = 4 << 10
	maxSplits     = 8
	// incoming is where files from another file system are copied to first.
	incoming = ".signpost-incoming"
	// incomingFor is how long a copy may take before it counts as left behind.
	incomingFor = 24 * time.Hour
	// maxSwept bounds what one Open removes or looks at.
	maxSwept = 10_000
)

// defaultSplit is the reference's DefaultPathSplit. The first 9 characters of
// dag-json CIDs are all alike, so this gives 1,024 directories of 1,024.
var defaultSplit = []int{11, 2}

type layout struct {
	Version   string
	PathSplit []int
}

func openDirectory(root string, cfg Config) (*directory, error) {
	d := &directory{root: root, log: cfg.Logger}
	if cfg.SpoolDir != "" {
		if err := os.MkdirAll(root, 0o755); err != nil {
			return nil, err
		}
		if err := d.writeLayoutIfEmpty(); err != nil {
			return nil, err
		}
		d.sweep()
	}
	if st, err := os.Stat(root); err != nil {
		return nil, err
	} else if !st.IsDir() {
		return nil, errors.New("not a directory")
	}
	return d, d.readLayout()
}

func (d *directory) writeLayoutIfEmpty() error {
	f, err := os.Open(d.root)
	if err != nil {
		return err
	}
	defer f.Close()
	if _, err = f.ReadDir(1); err != io.EOF {
		return err
	}
	text, err := json.Marshal(layout{Version: layoutVersion, PathSplit: defaultSplit})
	if err != nil {
		return err
	}
	tmp, err := os.CreateTemp(d.root, ".layout-*")
	if err != nil {
		return err
	}
	defer removeQuietly(d.log, tmp.Name())
	_, err = tmp.Write(text)
	if err = errors.Join(err, tmp.Chmod(0o644), tmp.Sync(), tmp.Close()); err != nil {
		return err
	}
	return os.Rename(tmp.Name(), filepath.Join(d.root, layoutFile))
}

func (d *directory) readLayout() error {
	f, err := os.Open(filepath.Join(d.root, layoutFile))
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxLayoutFile))
	if err != nil {
		return err
	}
	var l layout
	if err := json.Unmarshal(text, &l); err != nil {
		return fmt.Errorf("%s: %w", layoutFile, err)
	}
	if l.Version != layoutVersion || len(l.PathSplit) > maxSplits {
		return fmt.Errorf("%s: version %q with %d splits is not known", layoutFile, l.Version, len(l.PathSplit))
	}
	for _, n := range l.PathSplit {
		if n < 1 || n > maxName {
			return fmt.Errorf("%s: split of %d characters", layoutFile, n)
		}
	}
	d.split = l.PathSplit
	return nil
}

// path is where the file of a name is: below one directory for each piece of
// the name, without suffixes, that the layout splits off.
func (d *directory) path(name string) string {
	stem, _, _ := strings.Cut(name, ".")
	parts := []string{d.root}
	for _, n := range d.split {
		if n > len(stem) {
			break
		}
		parts = append(parts, stem[:n])
		stem = stem[n:]
	}
	return filepath.Join(append(parts, name)...)
}

func (d *directory) put(ctx context.Context, name, path string) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	to := d.path(name)
	if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
		return err
	}
	if os.Rename(path, to) == nil {
		return nil
	}
	return d.copyTo(to, path) // most likely from another file system
}

func (d *directory) copyTo(to, path string) error {
	from, err := os.Open(path)
	if err != nil {
		return err
	}
	defer from.Close()
	tmpDir := filepath.Join(d.root, incoming)
	if err := os.MkdirAll(tmpDir, 0o755); err != nil {
		return err
	}
	tmp, err := os.CreateTemp(tmpDir, "copy-*")
	if err != nil {
		return err
	}
	_, err = io.Copy(tmp, from)
	err = errors.Join(err, tmp.Chmod(0o644), tmp.Sync(), tmp.Close())
	if err == nil {
		err = os.Rename(tmp.Name(), to)
	}
	if err != nil {
		removeQuietly(d.log, tmp.Name())
	}
	return err
}

func (d *directory) get(ctx context.Context, name string, limitBytes int64) (io.ReadCloser, error) {
	path := d.path(name)
	has, err := d.exists(ctx, name)
	if err != nil {
		return nil, err
	}
	if !has {
		return nil, ErrNotFound
	}
	f, err := os.Open(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil, ErrNotFound
	}
	if err != nil {
		return nil, err
	}
	return limited(contextReader{ctx, f}, limitBytes), nil
}

func (d *directory) exists(ctx context.Context, name string) (bool, error) {
	if err := ctx.Err(); err != nil {
		return false, err
	}
	st, err := os.Stat(d.path(name))
	if errors.Is(err, os.ErrNotExist) {
		return false, nil
	}
	return err == nil && st.Mode().IsRegular(), err
}

func (d *directory) close() {}

// sweep removes copies that a crash left behind. Others may be at work in the
// same directory, so age decides.
func (d *directory) sweep() {
	sweep(filepath.Join(d.root, incoming), d.log, func(e os.DirEntry) bool {
		info, err := e.Info()
		return err == nil && time.Since(info.ModTime()) > incomingFor
	})
}

// contextReader is a file that cannot be read once its context has ended.
type contextReader struct {
	ctx context.Context
	*os.File
}

func (r contextReader) Read(p []byte) (int, error) {
	if err := r.ctx.Err(); err != nil {
		return 0, err
	}
	return r.File.Read(p)
}

// limited is the first limitBytes of r, or all of it if that is 0.
func limited(r io.ReadCloser, limitBytes int64) io.ReadCloser {
	if limitBytes <= 0 {
		return r
	}
	return struct {
		io.Reader
		io.Closer
	}{io.LimitReader(r, limitBytes), r}
}
