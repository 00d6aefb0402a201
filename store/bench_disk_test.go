package store

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// The parts of a store's directory that written bytes are counted by. The
// base line has all but its log in otherPart.
const (
	logPart = iota
	rowsPart
	flushedPart   // postings: tables to be ingested
	compactedPart // postings: everything else
	otherPart
	diskParts
)

func diskPart(name string) int {
	name = filepath.ToSlash(name)
	switch {
	case strings.Contains(name, "/log/") || strings.HasSuffix(name, ".log"):
		return logPart
	case strings.Contains(name, "/rows/"):
		return rowsPart
	case strings.Contains(name, "/postings/ingest/"):
		return flushedPart
	case strings.Contains(name, "/postings/"):
		return compactedPart
	}
	return otherPart
}

const tableSuffix = ".sst"

// countingFS counts what is written, and knows when nothing is any more.
type countingFS struct {
	vfs.FS
	written [diskParts]atomic.Uint64
	tables  atomic.Int64 // being written
	last    atomic.Int64 // when a table was last changed, Unix nanoseconds
}

func newCountingFS() *countingFS {
	f := &countingFS{FS: vfs.Default}
	f.touch()
	return f
}

func (f *countingFS) touch() { f.last.Store(time.Now().UnixNano()) }

func (f *countingFS) writtenBytes() (parts [diskParts]uint64, sum uint64) {
	for i := range parts {
		parts[i] = f.written[i].Load()
		sum += parts[i]
	}
	return parts, sum
}

// settle returns when no table was made, written or removed for quiet, and busy
// is false: all compactions are done and what they replaced is deleted. It
// returns the time when that was so first.
func (f *countingFS) settle(ctx context.Context, quiet time.Duration, busy func() (bool, error)) (time.Time, error) {
	look := time.NewTicker(quiet / 20)
	defer look.Stop()
	for {
		last := time.Unix(0, f.last.Load())
		if f.tables.Load() == 0 && time.Since(last) > quiet {
			if b, err := busy(); err != nil || !b {
				return last, err
			}
		}
		select {
		case <-look.C:
		case <-ctx.Done():
			return last, ctx.Err()
		}
	}
}

func (f *countingFS) wrap(file vfs.File, err error, name string) (vfs.File, error) {
	if err != nil {
		return nil, err
	}
	c := &countingFile{File: file, fs: f, part: diskPart(name), table: strings.HasSuffix(name, tableSuffix)}
	if c.table {
		f.tables.Add(1)
	}
	c.changed()
	return c, nil
}

func (f *countingFS) Create(name string, category vfs.DiskWriteCategory) (vfs.File, error) {
	file, err := f.FS.Create(name, category)
	return f.wrap(file, err, name)
}

func (f *countingFS) ReuseForWrite(oldname, newname string, category vfs.DiskWriteCategory) (vfs.File, error) {
	file, err := f.FS.ReuseForWrite(oldname, newname, category)
	return f.wrap(file, err, newname)
}

func (f *countingFS) OpenReadWrite(name string, category vfs.DiskWriteCategory, opts ...vfs.OpenOption) (vfs.File, error) {
	file, err := f.FS.OpenReadWrite(name, category, opts...)
	return f.wrap(file, err, name)
}

func (f *countingFS) Remove(name string) error {
	if strings.HasSuffix(name, tableSuffix) {
		f.touch()
	}
	return f.FS.Remove(name)
}

func (f *countingFS) Unwrap() vfs.FS { return f.FS }

type countingFile struct {
	vfs.File
	fs    *countingFS
	part  int
	table bool
}

func (c *countingFile) changed() {
	if c.table {
		c.fs.touch()
	}
}

func (c *countingFile) Write(p []byte) (int, error) {
	n, err := c.File.Write(p)
	c.fs.written[c.part].Add(uint64(n))
	c.changed()
	return n, err
}

func (c *countingFile) WriteAt(p []byte, off int64) (int, error) {
	n, err := c.File.WriteAt(p, off)
	c.fs.written[c.part].Add(uint64(n))
	c.changed()
	return n, err
}

func (c *countingFile) Close() error {
	c.changed()
	if c.table {
		c.table = false
		c.fs.tables.Add(-1)
	}
	return c.File.Close()
}

// partBytes is the length of all files below dir, by part.
func partBytes(dir string) (parts [diskParts]uint64, err error) {
	err = walkFiles(dir, func(path string, info fs.FileInfo) error {
		parts[diskPart(path)] += uint64(info.Size())
		return nil
	})
	return parts, err
}

// dirBytes is the length of all files below dir.
func dirBytes(dir string) (sum uint64, err error) {
	parts, err := partBytes(dir)
	for _, n := range parts {
		sum += n
	}
	return sum, err
}

// warm reads all files below dir once, so that they are in the page cache,
// unless they do not fit there: then it returns false.
func warm(dir string) (bool, error) {
	size, err := dirBytes(dir)
	if err != nil || size > procNumber("/proc/meminfo", "MemAvailable")<<10*9/10 {
		return false, err
	}
	return true, walkFiles(dir, func(path string, _ fs.FileInfo) error {
		file, err := os.Open(path)
		if err != nil {
			return err
		}
		_, err = io.Copy(io.Discard, file)
		return errors.Join(err, file.Close())
	})
}

// walkFiles calls fn for the files below dir; one that is removed meanwhile is
// passed over.
func walkFiles(dir string, fn func(path string, info fs.FileInfo) error) error {
	return filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			var info fs.FileInfo
			if info, err = d.Info(); err == nil {
				err = fn(path, info)
			}
		}
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		return err
	})
}
