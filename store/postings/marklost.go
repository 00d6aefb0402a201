package postings

import (
	"fmt"
	"math"
)

// MarkLost notes that postings of any hash may be missing: a lookup that finds
// nothing answers ErrLost, until MarkWhole.
func (x *Index) MarkLost() error {
	if err := x.enter(); err != nil {
		return err
	}
	defer x.leave()
	x.ingesting.Lock()
	defer x.ingesting.Unlock()
	next := *x.meta.Load()
	next.lost = next.lost.with(span{0, math.MaxUint64})
	if err := x.ingest(x.newTables(), &next); err != nil {
		return fmt.Errorf("note that postings were lost: %w", err)
	}
	return nil
}
