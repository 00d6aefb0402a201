package store

import (
	"context"
	"errors"
	"fmt"
)

// All that benchmarks use of the inside of a store is in this file.

// flushStore makes both databases have everything, and drops the log.
func flushStore(ctx context.Context, s *Store) error { return s.tidyLog(ctx, true) }

// compactPostings merges all postings into one level.
func compactPostings(ctx context.Context, s *Store) error { return s.index.Compact(ctx) }

// storeIsBusy tells whether compactions or removals of files are still to
// come, as far as a store knows.
func storeIsBusy(s *Store) (bool, error) {
	st, err := s.index.Stats(0)
	m := s.db.Metrics()
	return st.ObsoleteBytes > 0 || m.Compact.NumInProgress > 0 || m.Table.ObsoleteSize > 0, err
}

// compactRows merges all rows into one level.
func compactRows(ctx context.Context, s *Store) error {
	return errors.Join(s.db.Flush(), s.db.Compact(ctx, []byte{0}, []byte{0xff}, true))
}

// rowBytes is the space the rows take on disk and what of it is behind each
// prefix byte, which is an estimate.
func rowBytes(s *Store) (sum uint64, byPrefix map[byte]uint64, err error) {
	byPrefix = make(map[byte]uint64)
	it, err := s.db.NewIter(nil)
	if err != nil {
		return 0, nil, err
	}
	for ok := it.First(); ok && err == nil; {
		p := it.Key()[0]
		byPrefix[p], err = s.db.EstimateDiskUsage([]byte{p}, []byte{p + 1})
		ok = it.SeekGE([]byte{p + 1})
	}
	if err := errors.Join(err, it.Error(), it.Close()); err != nil {
		return 0, nil, fmt.Errorf("size of rows: %w", err)
	}
	return uint64(s.db.Metrics().Total().TablesSize), byPrefix, nil
}

// ledgerPrefixes are of the rows that remember ads, and not records.
var ledgerPrefixes = []byte{prefixLedger, prefixAbove, prefixPending}
