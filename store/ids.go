package store

import (
	"encoding/binary"
	"fmt"

	"github.com/cockroachdb/pebble/v2"
)

// idAllocator hands out record IDs from 1 up. It reserves them in blocks: the
// row is written before or with the first use of a block, and the log is
// replayed as a prefix, so an ID on disk is never handed out again. mu guards
// it.
type idAllocator struct {
	next, reserved uint64
}

const idBlock = 1024

func decodeNextID(b []byte) (uint64, error) {
	r := &reader{b: b}
	id := r.uint64()
	if id == 0 {
		r.fail()
	}
	return id, r.done("next record ID")
}

func (a *idAllocator) load(r pebble.Reader) error {
	a.reserved = 1
	if err := loadRow(r, []byte(keyNextID), decodeNextID, &a.reserved); err != nil {
		return fmt.Errorf("load record IDs: %w", err)
	}
	a.next = a.reserved
	return nil
}

// newID returns an ID never used before, reserving a block with the change if
// none is left. The IDs of a change that is not applied were not used.
func (t *tx) newID() (uint64, error) {
	if t.ids.next == t.ids.reserved {
		t.ids.reserved += idBlock
		if err := t.set([]byte(keyNextID), binary.BigEndian.AppendUint64(nil, t.ids.reserved)); err != nil {
			return 0, err
		}
	}
	t.ids.next++
	return t.ids.next - 1, nil
}
