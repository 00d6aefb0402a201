package store

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// failStop is a file system that stops at its first failed write: whatever is
// written, created, renamed or removed after it never reaches the disk, which
// is left as a crash at that instant would leave it. Pebble itself would
// panic on a failed write of its log; here it goes on undisturbed into
// memory, long enough for reads to be answered and for an orderly Close,
// while the store refuses every write with ErrFailed.
//
//	              write fails
//	disk ────────────────────────▶ stopped: new files in memory,
//	                               writes to open files dropped,
//	                               removals ignored, reads as before
//
// A failed sync counts as a failed write: what it should have covered may be
// lost for good, so nothing after it may be called durable.
//
// A store may stay failed for long, and compactions that go on would fill the
// memory: after rest they stand still, until release makes them fail.
type failStop struct {
	vfs.FS
	after  *vfs.MemFS // files created after the failure
	cause  atomic.Pointer[error]
	failed chan struct{} // closed at the failure
	onFail func(error)
	// beforeTable is called before a table is created: what a table says must
	// be durable in the log first.
	beforeTable func() error

	resting  chan struct{} // closed by rest
	released chan struct{} // closed by release
	free     sync.Once
}

func newFailStop(fs vfs.FS, onFail func(error)) *failStop {
	return &failStop{FS: fs, after: vfs.NewMem(), failed: make(chan struct{}), onFail: onFail,
		resting: make(chan struct{}), released: make(chan struct{})}
}

// rest has compactions stand still, after a failure. It is called once.
func (f *failStop) rest() { close(f.resting) }

// release has compactions that stand still, and later ones, fail.
func (f *failStop) release() { f.free.Do(func() { close(f.released) }) }

// errReleased ends a compaction of a failed store.
var errReleased = fmt.Errorf("%w: compaction was given up", ErrFailed)

// stand holds a compaction up until release; nil before rest. Pebble tries a
// failed compaction again at once, so a failure takes a moment.
func (f *failStop) stand() error {
	select {
	case <-f.resting:
	default:
		return nil
	}
	<-f.released
	time.Sleep(releasePause)
	return errReleased
}

const releasePause = 5 * time.Millisecond

// isCompaction tells compactions from flushes, by what Pebble says of the
// files it creates (compaction.go, getDiskWriteCategoryForCompaction).
func isCompaction(c vfs.DiskWriteCategory) bool {
	return c == "pebble-compaction" || c == "pebble-blob-file-rewrite"
}

// err is nil, or wraps ErrFailed and the first failure.
func (f *failStop) err() error {
	if p := f.cause.Load(); p != nil {
		return *p
	}
	return nil
}

func (f *failStop) stopped() bool { return f.cause.Load() != nil }

func (f *failStop) stop(op, name string, cause error) {
	err := fmt.Errorf("%w: %s %s: %w", ErrFailed, op, name, cause)
	if f.cause.CompareAndSwap(nil, &err) {
		close(f.failed)
		f.onFail(err)
	}
}

// isTable tells files Pebble writes in the background and may fail to write:
// it tries again with a new file. Failures of all others must be hidden.
func isTable(name string) bool {
	return strings.HasSuffix(name, ".sst") || strings.HasSuffix(name, ".blob")
}

func (f *failStop) createAfter(name string, category vfs.DiskWriteCategory) (vfs.File, error) {
	if isCompaction(category) {
		if err := f.stand(); err != nil {
			return nil, err
		}
	}
	if err := f.after.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		return nil, err
	}
	file, err := f.after.Create(name, category)
	if err != nil || !isCompaction(category) {
		return file, err
	}
	return &standingFile{file, f}, nil
}

// standingFile is a file of a compaction in a failed store.
type standingFile struct {
	vfs.File
	fs *failStop
}

func (f *standingFile) Write(p []byte) (int, error) {
	if err := f.fs.stand(); err != nil {
		return 0, err
	}
	return f.File.Write(p)
}

func (f *failStop) wrap(file vfs.File, name string, category vfs.DiskWriteCategory) vfs.File {
	return &failStopFile{File: file, fs: f, name: name, table: isTable(name), compaction: isCompaction(category)}
}

func (f *failStop) Create(name string, category vfs.DiskWriteCategory) (vfs.File, error) {
	if !f.stopped() && isTable(name) && f.beforeTable != nil {
		if err := f.beforeTable(); err != nil {
			f.stop("sync log before", name, err)
		}
	}
	if !f.stopped() {
		file, err := f.FS.Create(name, category)
		if err == nil && isManifest(name) {
			if err = syncDir(f.FS, filepath.Dir(name)); err != nil {
				_ = file.Close()
			}
		}
		if err == nil {
			return f.wrap(file, name, category), nil
		}
		f.stop("create", name, err)
	}
	return f.createAfter(name, category)
}

// isManifest tells files whose name must be on disk before Pebble makes the
// marker that points to them: it syncs the directory only once for both, and
// after a power loss in between there might be a marker to nothing.
func isManifest(name string) bool {
	return strings.HasPrefix(filepath.Base(name), "MANIFEST-")
}

func (f *failStop) ReuseForWrite(oldname, newname string, category vfs.DiskWriteCategory) (vfs.File, error) {
	if !f.stopped() {
		file, err := f.FS.ReuseForWrite(oldname, newname, category)
		if err == nil {
			return f.wrap(file, newname, category), nil
		}
		f.stop("reuse", oldname, err)
	}
	return f.createAfter(newname, category)
}

func (f *failStop) OpenReadWrite(name string, category vfs.DiskWriteCategory, opts ...vfs.OpenOption) (vfs.File, error) {
	if !f.stopped() {
		file, err := f.FS.OpenReadWrite(name, category, opts...)
		if err == nil {
			return f.wrap(file, name, category), nil
		}
		f.stop("open", name, err)
	}
	return f.createAfter(name, category)
}

func (f *failStop) Open(name string, opts ...vfs.OpenOption) (vfs.File, error) {
	if f.stopped() {
		if file, err := f.after.Open(name, opts...); err == nil {
			return file, nil
		}
	}
	return f.FS.Open(name, opts...)
}

func (f *failStop) OpenDir(name string) (vfs.File, error) {
	file, err := f.FS.OpenDir(name)
	if err != nil {
		return nil, err
	}
	return f.wrap(file, name, vfs.WriteCategoryUnspecified), nil
}

func (f *failStop) Remove(name string) error {
	if f.stopped() {
		_ = f.after.Remove(name)
		return nil
	}
	return f.FS.Remove(name) // a file left over is tidied up at the next Open
}

func (f *failStop) RemoveAll(name string) error {
	if f.stopped() {
		return nil
	}
	return f.FS.RemoveAll(name)
}

func (f *failStop) Rename(oldname, newname string) error {
	if !f.stopped() {
		err := f.FS.Rename(oldname, newname)
		if err == nil {
			return nil
		}
		f.stop("rename", oldname, err)
	}
	_ = f.after.Rename(oldname, newname)
	return nil
}

func (f *failStop) Link(oldname, newname string) error {
	if !f.stopped() {
		err := f.FS.Link(oldname, newname)
		if err == nil || os.IsExist(err) {
			return err
		}
		f.stop("link", oldname, err)
	}
	return f.copyAfter(oldname, newname)
}

// copyAfter is Link after the failure: a table that was to be ingested goes on
// to be read.
func (f *failStop) copyAfter(oldname, newname string) error {
	from, err := f.Open(oldname)
	if err != nil {
		return err
	}
	defer from.Close()
	to, err := f.createAfter(newname, vfs.WriteCategoryUnspecified)
	if err != nil {
		return err
	}
	_, err = io.Copy(to, from)
	return errors.Join(err, to.Close())
}

func (f *failStop) Stat(name string) (vfs.FileInfo, error) {
	if f.stopped() {
		if info, err := f.after.Stat(name); err == nil {
			return info, nil
		}
	}
	return f.FS.Stat(name)
}

func (f *failStop) Unwrap() vfs.FS { return f.FS }

// failStopFile is a file opened while the disk was well.
type failStopFile struct {
	vfs.File
	fs         *failStop
	name       string
	table      bool
	compaction bool
}

// write carries out one write operation, or drops it after the failure.
// Tables go on being written: nothing on disk refers to them any more.
func (f *failStopFile) write(op string, do func() error) error {
	if f.fs.stopped() && !f.table {
		return nil
	}
	if f.compaction {
		if err := f.fs.stand(); err != nil {
			return err
		}
	}
	err := do()
	if err == nil {
		return nil
	}
	f.fs.stop(op, f.name, err)
	if f.table {
		return err
	}
	return nil
}

func (f *failStopFile) Write(p []byte) (n int, err error) {
	err = f.write("write", func() error {
		n, err = f.File.Write(p)
		if err == nil && n < len(p) {
			err = io.ErrShortWrite
		}
		return err
	})
	if err != nil {
		return n, err
	}
	return len(p), nil
}

func (f *failStopFile) WriteAt(p []byte, off int64) (n int, err error) {
	err = f.write("write", func() error {
		n, err = f.File.WriteAt(p, off)
		return err
	})
	if err != nil {
		return n, err
	}
	return len(p), nil
}

func (f *failStopFile) Sync() error {
	return f.write("sync", f.File.Sync)
}

func (f *failStopFile) SyncData() error {
	return f.write("sync", f.File.SyncData)
}

func (f *failStopFile) SyncTo(length int64) (fullSync bool, err error) {
	err = f.write("sync", func() error {
		fullSync, err = f.File.SyncTo(length)
		return err
	})
	return fullSync, err
}

// Close hides errors: what mattered was synced before.
func (f *failStopFile) Close() error {
	if err := f.File.Close(); err != nil {
		f.fs.stop("close", f.name, err)
	}
	return nil
}
