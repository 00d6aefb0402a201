package indexer

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/signpost-index/signpost/api/admin"
)

// poolMapFile is the map an assigner leaves, in the data directory. It is a
// hint: a file that cannot be read is as good as none.
const poolMapFile = "poolmap.json"

func (ix *Indexer) poolMapPath() string { return filepath.Join(ix.cfg.DataDir, poolMapFile) }

func (r localRoles) PoolMap(context.Context) (m admin.PoolMap, err error) {
	if err := r.mode(); err != nil {
		return m, err
	}
	r.ix.mapping.Lock()
	defer r.ix.mapping.Unlock()
	return r.ix.readPoolMap()
}

// readPoolMap reads the file. The caller holds mapping.
func (ix *Indexer) readPoolMap() (admin.PoolMap, error) {
	m, err := loadPoolMap(ix.poolMapPath())
	if err == nil {
		return m, nil
	}
	if !errors.Is(err, fs.ErrNotExist) {
		ix.log.Warn("pool map cannot be read: there is none until an assigner leaves one", "file", ix.poolMapPath(), "err", err)
	}
	return admin.PoolMap{}, fmt.Errorf("pool map %w", admin.ErrNotFound)
}

func loadPoolMap(path string) (m admin.PoolMap, err error) {
	f, err := os.Open(path)
	if err != nil {
		return m, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, admin.MaxPoolMapBytes+1))
	if err != nil {
		return m, err
	}
	if len(b) > admin.MaxPoolMapBytes {
		return m, fmt.Errorf("larger than %d bytes", admin.MaxPoolMapBytes)
	}
	return m, json.Unmarshal(b, &m)
}

// SetPoolMap keeps the map unless one as new is there.
func (r localRoles) SetPoolMap(_ context.Context, m admin.PoolMap) error {
	if err := r.mode(); err != nil {
		return err
	}
	b, err := json.Marshal(m)
	if err != nil {
		return fmt.Errorf("%w: pool map: %w", admin.ErrBadRequest, err)
	}
	if len(b) > admin.MaxPoolMapBytes {
		return fmt.Errorf("%w: pool map of %d bytes, at most %d", admin.ErrBadRequest, len(b), admin.MaxPoolMapBytes)
	}
	r.ix.mapping.Lock()
	defer r.ix.mapping.Unlock()
	if known, err := r.ix.readPoolMap(); err == nil && known.Version >= m.Version {
		return nil
	}
	return replaceFile(r.ix.poolMapPath(), b)
}

// replaceFile writes a file so that after a crash the old one is there or the
// new one.
func replaceFile(path string, b []byte) (err error) {
	f, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+".*")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_ = os.Remove(f.Name())
		}
	}()
	_, err = f.Write(b)
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	if err := os.Rename(f.Name(), path); err != nil {
		return err
	}
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}
