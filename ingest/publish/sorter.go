package publish

import (
	"bufio"
	"bytes"
	"container/heap"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"

	"github.com/multiformats/go-multihash"
)

// sorterMemory is how many bytes of keys a sorter holds before it writes a
// sorted run to disk: 32 MiB are some 600,000 sha2-256 multihashes. With the
// references beside the keys a sorter stays below 40 MiB whatever it is fed.
const sorterMemory = 32 << 20

// A sorter puts (multihash, offset) pairs into the order of the CARv2 index:
// by hash code, digest length, digest. It holds a bounded number of them in
// memory and spills sorted runs to files in its directory, so that a CAR of any
// size can be indexed.
//
//	run file:  [2 bytes big-endian key length][key] ...
//	key:       [8 code][2 digest length][digest][8 offset], integers big-endian
//
// Keys therefore compare as bytes; of equal multihashes the one with the lowest
// offset comes first. A sorter is not safe for concurrent use.
type sorter struct {
	dir    string
	memory int

	arena []byte
	refs  []keyRef
	runs  []string
}

// A keyRef is the place of one key in the arena.
type keyRef struct{ start, end uint32 }

// A sortedEntry is one multihash of a sorted sequence. digest is valid until
// the next entry.
type sortedEntry struct {
	code   uint64
	digest []byte
	offset uint64
}

func newSorter(dir string) *sorter { return &sorter{dir: dir, memory: sorterMemory} }

// add takes one multihash; the caller may reuse mh.
func (s *sorter) add(mh multihash.Multihash, offset uint64) error {
	dec, err := multihash.Decode(mh)
	if err != nil {
		return fmt.Errorf("multihash of block at offset %d: %w", offset, err)
	}
	need := 8 + 2 + len(dec.Digest) + 8
	if len(s.arena)+need > s.memory {
		if err := s.spill(); err != nil {
			return err
		}
	}
	start := len(s.arena)
	s.arena = binary.BigEndian.AppendUint64(s.arena, dec.Code)
	s.arena = binary.BigEndian.AppendUint16(s.arena, uint16(len(dec.Digest)))
	s.arena = append(s.arena, dec.Digest...)
	s.arena = binary.BigEndian.AppendUint64(s.arena, offset)
	s.refs = append(s.refs, keyRef{uint32(start), uint32(len(s.arena))})
	return nil
}

func (s *sorter) sortMemory() {
	slices.SortFunc(s.refs, func(a, b keyRef) int {
		return bytes.Compare(s.arena[a.start:a.end], s.arena[b.start:b.end])
	})
}

// spill writes what is in memory as one sorted run and forgets it.
func (s *sorter) spill() error {
	if len(s.refs) == 0 {
		return nil
	}
	s.sortMemory()
	name := filepath.Join(s.dir, fmt.Sprintf("run-%d", len(s.runs)))
	f, err := os.Create(name)
	if err != nil {
		return fmt.Errorf("spill multihashes: %w", err)
	}
	w := bufio.NewWriterSize(f, 1<<20)
	var length [2]byte
	for _, r := range s.refs {
		binary.BigEndian.PutUint16(length[:], uint16(r.end-r.start))
		w.Write(length[:]) // a bufio.Writer keeps its first error for Flush
		w.Write(s.arena[r.start:r.end])
	}
	if err := errors.Join(w.Flush(), f.Close()); err != nil {
		return fmt.Errorf("spill multihashes: %w", err)
	}
	s.runs = append(s.runs, name)
	s.arena, s.refs = s.arena[:0], s.refs[:0]
	return nil
}

// each calls fn once for every different multihash, in order, and then drops
// everything it held. It may be called once.
func (s *sorter) each(fn func(sortedEntry) error) (err error) {
	if len(s.runs) > 0 {
		if err := s.spill(); err != nil {
			return err
		}
		s.arena, s.refs = nil, nil
		return s.mergeRuns(fn)
	}
	s.sortMemory()
	u := uniquely{fn: fn}
	for _, r := range s.refs {
		if err := u.next(s.arena[r.start:r.end]); err != nil {
			return err
		}
	}
	s.arena, s.refs = nil, nil
	return nil
}

func (s *sorter) mergeRuns(fn func(sortedEntry) error) error {
	var h runHeap
	defer func() {
		for _, r := range h {
			r.f.Close()
		}
	}()
	for _, name := range s.runs {
		f, err := os.Open(name)
		if err != nil {
			return fmt.Errorf("merge multihashes: %w", err)
		}
		r := &run{f: f, r: bufio.NewReaderSize(f, 64<<10)}
		if err := r.advance(); err != nil {
			f.Close()
			return fmt.Errorf("merge multihashes: %w", err)
		}
		h = append(h, r)
	}
	heap.Init(&h)
	u := uniquely{fn: fn}
	for len(h) > 0 {
		r := h[0]
		if err := u.next(r.key); err != nil {
			return err
		}
		switch err := r.advance(); {
		case err == io.EOF:
			r.f.Close()
			os.Remove(r.f.Name())
			heap.Pop(&h)
		case err != nil:
			return fmt.Errorf("merge multihashes: %w", err)
		default:
			heap.Fix(&h, 0)
		}
	}
	return nil
}

// uniquely passes on the first of each sequence of keys with equal multihashes.
type uniquely struct {
	fn   func(sortedEntry) error
	last []byte
}

func (u *uniquely) next(key []byte) error {
	id, offset := key[:len(key)-8], key[len(key)-8:]
	if u.last != nil && bytes.Equal(u.last, id) {
		return nil
	}
	u.last = append(u.last[:0], id...)
	return u.fn(sortedEntry{
		code:   binary.BigEndian.Uint64(id),
		digest: u.last[10:],
		offset: binary.BigEndian.Uint64(offset),
	})
}

// A run is one spilled file being read back.
type run struct {
	f   *os.File
	r   *bufio.Reader
	key []byte
}

// advance reads the next key; io.EOF after the last.
func (r *run) advance() error {
	var length [2]byte
	if _, err := io.ReadFull(r.r, length[:]); err != nil {
		return err
	}
	n := int(binary.BigEndian.Uint16(length[:]))
	if n < 8+2+8 {
		return errors.New("spilled run is damaged")
	}
	r.key = slices.Grow(r.key[:0], n)[:n]
	if _, err := io.ReadFull(r.r, r.key); err != nil {
		return io.ErrUnexpectedEOF
	}
	return nil
}

// runHeap orders runs by their current key; it implements heap.Interface.
type runHeap []*run

func (h runHeap) Len() int           { return len(h) }
func (h runHeap) Less(i, j int) bool { return bytes.Compare(h[i].key, h[j].key) < 0 }
func (h runHeap) Swap(i, j int)      { h[i], h[j] = h[j], h[i] }
func (h *runHeap) Push(x any)        { *h = append(*h, x.(*run)) }
func (h *runHeap) Pop() any {
	old := *h
	last := old[len(old)-1]
	old[len(old)-1] = nil
	*h = old[:len(old)-1]
	return last
}
