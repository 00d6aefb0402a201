package postings

import (
	"errors"
	"fmt"
	"io/fs"

	"github.com/cockroachdb/pebble/v2/objstorage/objstorageprovider"
	"github.com/cockroachdb/pebble/v2/sstable"
	"github.com/cockroachdb/pebble/v2/vfs"
)

// tables writes sorted keys to files that are to be ingested together.
type tables struct {
	x     *Index
	w     *sstable.Writer
	size  int
	paths []string
	// closing gets the outcome of the table before w, which is completed and
	// synced while the next is written; nil if there is none under way.
	closing chan error
	// Buffers.
	run   []posting
	key   []byte
	value []byte
	enc   encoder
}

func (x *Index) newTables() *tables { return &tables{x: x} }

// writer returns the table to add to.
func (t *tables) writer() (*sstable.Writer, error) {
	if t.w != nil && int64(t.size) < t.x.opts.TargetFileSizes[0] {
		return t.w, nil
	}
	if err := t.closeTable(); err != nil {
		return nil, err
	}
	disk := t.x.cfg.FS
	t.x.nextFile++
	path := disk.PathJoin(t.x.ingestDir(), fmt.Sprintf("%06d.sst", t.x.nextFile))
	f, err := disk.Create(path, vfs.WriteCategoryUnspecified)
	if err != nil {
		return nil, fmt.Errorf("create table: %w", err)
	}
	t.paths = append(t.paths, path)
	t.w = sstable.NewWriter(objstorageprovider.NewFileWritable(f), t.x.opts.MakeWriterOptions(0, t.x.db.TableFormat()))
	t.size = 0
	return t.w, nil
}

// closeTable begins to complete the table. The error may be that of the one
// before.
func (t *tables) closeTable() error {
	if t.w == nil {
		return nil
	}
	err := t.awaitClosing()
	w, done := t.w, make(chan error, 1)
	t.w, t.closing = nil, done
	go func() { done <- w.Close() }()
	return err
}

// awaitClosing returns when no table is being closed.
func (t *tables) awaitClosing() error {
	if t.closing == nil {
		return nil
	}
	err := <-t.closing
	t.closing = nil
	if err != nil {
		return fmt.Errorf("write table: %w", err)
	}
	return nil
}

// addBucket adds the postings of the bucket that hash h is in. Buckets come in
// the order of their keys.
func (t *tables) addBucket(h *Hash, width uint, ps []posting) error {
	w, err := t.writer()
	if err != nil {
		return err
	}
	t.key = bucketKey(t.key[:0], h, width)
	t.value = t.enc.encode(t.value[:0], ps, HashBits-width)
	t.size += len(t.key) + len(t.value)
	if err := w.Merge(t.key, t.value); err != nil {
		return fmt.Errorf("write table: %w", err)
	}
	return nil
}

// finish adds the meta row in a table of its own, so that the others keep to
// buckets, and returns the paths of all, complete and synced.
func (t *tables) finish(m *meta) ([]string, error) {
	if err := t.closeTable(); err != nil {
		return nil, err
	}
	w, err := t.writer()
	if err != nil {
		return nil, err
	}
	if err := w.Set(metaKey, m.encode()); err != nil {
		return nil, fmt.Errorf("write table: %w", err)
	}
	return t.paths, errors.Join(t.closeTable(), t.awaitClosing())
}

// drop removes what was written and will not be ingested.
func (t *tables) drop() error {
	var errs []error
	// The files are removed: what closing them says does not matter.
	_ = t.closeTable()
	_ = t.awaitClosing()
	for _, path := range t.paths {
		if err := t.x.cfg.FS.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, fmt.Errorf("remove table: %w", err))
		}
	}
	return errors.Join(errs...)
}
