package publish

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync/atomic"

	"github.com/ipfs/go-cid"
	format "github.com/ipfs/go-ipld-format"
)

// A source is one path's blocks, ready to be served: a CAR and its index. It is
// immutable and safe for concurrent use, and holds no file open: a block costs
// two opens, and a publisher of many thousand paths no more descriptors than
// requests it is answering.
type source struct {
	rec       sourceRecord
	carPath   string
	indexPath string
	car       car
	index     *index
	broken    error        // why index is nil
	reported  *atomic.Bool // a failure to read a block has been logged
}

// openSource loads the index of rec, whose files are in cars. It always returns
// a source; one that cannot be used says why in broken.
func openSource(cars string, rec sourceRecord) *source {
	s := &source{rec: rec, carPath: rec.Path, reported: new(atomic.Bool),
		car: car{dataOffset: rec.DataOffset, dataSize: rec.DataSize, roots: rec.Roots}}
	if rec.CAR != "" {
		s.carPath = filepath.Join(cars, rec.CAR)
	}
	s.indexPath = s.carPath
	if rec.Index != "" {
		s.indexPath = filepath.Join(cars, rec.Index)
	}
	f, err := os.Open(s.indexPath)
	if err != nil {
		s.broken = err
		return s
	}
	defer f.Close()
	if s.index, err = readIndex(f, rec.IndexAt); err != nil {
		s.broken = fmt.Errorf("index %s: %w", s.indexPath, err)
	}
	return s
}

// files names what the source owns in cars/.
func (r sourceRecord) files() []string {
	return slices.DeleteFunc([]string{r.CAR, r.Index}, func(n string) bool { return n == "" })
}

// problem says why the source's blocks cannot be served now, or may not be:
// its file is gone or no longer the one that was read in.
func (s *source) problem() error {
	if s.broken != nil {
		return s.broken
	}
	st, err := os.Stat(s.carPath)
	if err != nil {
		return err
	}
	// The time of a CAR of ours says nothing: the directory may have been copied.
	if st.Size() != s.rec.Size || s.rec.CAR == "" && !st.ModTime().Equal(s.rec.ModTime) {
		return fmt.Errorf("%s has changed since it was published; publish it again", s.carPath)
	}
	return nil
}

// has reports whether the source's index knows the block.
func (s *source) has(k cid.Cid) (bool, error) {
	_, found, err := s.offset(k)
	return found, err
}

func (s *source) offset(k cid.Cid) (offset uint64, found bool, err error) {
	if s.index == nil || !s.index.filter.has(k.Hash()) {
		return 0, false, nil
	}
	f, err := os.Open(s.indexPath)
	if err != nil {
		return 0, false, err
	}
	defer f.Close()
	return s.index.find(f, k.Hash())
}

// block returns the bytes of k, compared with k. The error is a
// format.ErrNotFound if the source does not have it.
func (s *source) block(k cid.Cid) ([]byte, error) {
	offset, found, err := s.offset(k)
	if err != nil {
		return nil, err
	}
	if !found {
		return nil, format.ErrNotFound{Cid: k}
	}
	f, err := os.Open(s.carPath)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	_, data, err := s.car.readSection(f, offset)
	if err == nil {
		err = checkBlock(k, data)
	}
	if errors.Is(err, errDamagedIndex) || errors.Is(err, errHashMismatch) {
		return nil, fmt.Errorf("%s has changed since it was published: %w", s.carPath, err)
	}
	return data, err
}
