package postings

import (
	"errors"
	"fmt"
	"io/fs"
	"regexp"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
)

// openDB opens the database, also if tables are missing: each is replaced by
// an empty file, which is damage like any other. Pebble (v2.1.7) would open
// without them too, but then could not list its tables.
func (x *Index) openDB() (*pebble.DB, error) {
	for {
		db, err := pebble.Open(x.dbDir(), x.opts)
		if err != nil {
			return nil, err
		}
		_, err = db.SSTables()
		name := lostTable(err)
		if name == "" {
			return db, nil
		}
		x.cfg.Logger.Error("a file of the postings is missing", "table", name, "err", err)
		if err := errors.Join(db.Close(), x.standIn(name)); err != nil {
			return nil, err
		}
	}
}

var unknownTable = regexp.MustCompile(`file (\d+) \(type sstable\) unknown to the objstorage provider`)

// lostTable finds the name of a table in Pebble's complaint about it.
func lostTable(err error) string {
	if !errors.Is(err, fs.ErrNotExist) {
		return ""
	}
	if m := unknownTable.FindStringSubmatch(err.Error()); m != nil {
		return m[1] + ".sst"
	}
	return ""
}

func (x *Index) standIn(name string) error {
	disk := x.cfg.FS
	f, err := disk.Create(disk.PathJoin(x.dbDir(), name), vfs.WriteCategoryUnspecified)
	if err != nil {
		return fmt.Errorf("replace lost table: %w", err)
	}
	return errors.Join(f.Sync(), f.Close(), syncDir(disk, x.dbDir()))
}
