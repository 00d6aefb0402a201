package snapshot

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/time/rate"
)

const (
	incomingDir = "incoming"
	// copyBytes is how much is copied at a time.
	copyBytes = 1 << 20
	dirMode   = 0o700
	fileMode  = 0o600
)

// directory is a place in a directory. Files are synced before they get their
// names, folders by flush.
type directory struct {
	root string
	pace *rate.Limiter
}

func openDirectory(root string, write bool, pace *rate.Limiter) (*directory, error) {
	d := &directory{root: root, pace: pace}
	if write {
		// What is there was left by a copy that was killed.
		if err := os.RemoveAll(filepath.Join(root, incomingDir)); err != nil {
			return nil, err
		}
		for _, dir := range []string{filesDir, manifestsDir, incomingDir} {
			if err := os.MkdirAll(filepath.Join(root, dir), dirMode); err != nil {
				return nil, err
			}
		}
	}
	if st, err := os.Stat(root); err != nil {
		return nil, err
	} else if !st.IsDir() {
		return nil, fmt.Errorf("%s is not a directory", root)
	}
	return d, nil
}

func (d *directory) path(name string) string { return filepath.Join(d.root, filepath.FromSlash(name)) }

func (d *directory) list(_ context.Context, folder string) (map[string]int64, error) {
	entries, err := os.ReadDir(d.path(folder))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	sizes := make(map[string]int64, len(entries))
	for _, e := range entries {
		info, err := e.Info()
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		if info.Mode().IsRegular() {
			sizes[e.Name()] = info.Size()
		}
	}
	return sizes, nil
}

// keep reads the file once: it is hashed while it is copied.
func (d *directory) keep(ctx context.Context, file string, sizeBytes int64, have func(string) bool) (sum string, copied bool, err error) {
	from, err := os.Open(file)
	if err != nil {
		return "", false, err
	}
	defer from.Close()
	tmp, err := os.CreateTemp(d.path(incomingDir), "copy-*")
	if err != nil {
		return "", false, err
	}
	defer func() {
		if !copied {
			_ = os.Remove(tmp.Name())
		}
	}()
	sum, err = copySum(tmp, pacedReader{ctx, from, d.pace}, sizeBytes)
	if err == nil && !have(sum) {
		err = tmp.Sync()
		copied = err == nil
	}
	if err = errors.Join(err, tmp.Close()); err != nil {
		copied = false
		return "", false, err
	}
	if copied {
		if err := os.Rename(tmp.Name(), d.path(filesDir+"/"+sum)); err != nil {
			copied = false
			return "", false, err
		}
	}
	return sum, copied, nil
}

// copySum copies what must be n bytes and returns their SHA-256.
func copySum(to io.Writer, from io.Reader, n int64) (string, error) {
	hash := sha256.New()
	buf := make([]byte, min(copyBytes, n+1))
	// One byte more would be too many.
	got, err := io.CopyBuffer(io.MultiWriter(onlyWriter{to}, hash), io.LimitReader(from, n+1), buf)
	if err != nil {
		return "", err
	}
	if got != n {
		return "", fmt.Errorf("%w: it is not of %d bytes", ErrDamaged, n)
	}
	return hex.EncodeToString(hash.Sum(nil)), nil
}

// onlyWriter keeps io.Copy from ways that pass the hash by.
type onlyWriter struct{ io.Writer }

func (d *directory) put(_ context.Context, name string, b []byte) error {
	tmp, err := os.CreateTemp(d.path(incomingDir), "put-*")
	if err != nil {
		return err
	}
	_, err = tmp.Write(b)
	if err == nil {
		err = tmp.Sync()
	}
	if err = errors.Join(err, tmp.Close()); err == nil {
		err = os.Rename(tmp.Name(), d.path(name))
	}
	if err != nil {
		_ = os.Remove(tmp.Name())
	}
	return err
}

func (d *directory) get(_ context.Context, name string) (io.ReadCloser, error) {
	f, err := os.Open(d.path(name))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%w: %w", ErrNotFound, err)
	}
	return f, err
}

func (d *directory) remove(_ context.Context, name string) error {
	if err := os.Remove(d.path(name)); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

func (d *directory) flush() error {
	return errors.Join(syncDir(d.path(filesDir)), syncDir(d.path(manifestsDir)), syncDir(d.root))
}

// again: what a disk cannot read it will not read the next time.
func (d *directory) again(error) bool { return false }

func (d *directory) close() {}

func syncDir(dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}
