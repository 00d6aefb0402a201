package store

import (
	"fmt"

	"github.com/cockroachdb/pebble/v2"
	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/peer"
)

// Scan is a walk back along a publisher's chain that has not come to a known ad
// yet: it goes on at Next, which has position Pos.
//
//	pos   ≤ mark        Pos          pending
//	      ✓ ✓ ✓   ?  ?  Next ◄─────  ·  ·  ·  ·  head
//	              unknown            recorded
type Scan struct {
	Next    cid.Cid
	Pos     Position
	Depth   int // so many more ads are passed, those further back count as done; 0: no limit
	Trouble Trouble
}

// AddScanned remembers ads a walk has passed, newest first (see AddPending), and
// where it goes on: the walk that was to go on at position from goes on at
// next, or has come to its end if next is nil. from 0: the walk begins. Many
// ads are recorded a part at a time, and the walk goes on behind the last one
// recorded: at any crash all that it has passed is recorded or it is found
// where it was. A walk that would go on at or below the mark has come to its
// end.
func (s *Store) AddScanned(publisher peer.ID, ads []AdRef, from Position, next *Scan) error {
	if err := s.enterWrite(); err != nil {
		return err
	}
	defer s.exit()
	if err := checkScanned(publisher, ads, next); err != nil {
		return err
	}
	for more := true; more; {
		n, to := min(len(ads), pendingChunk), next
		if more = n < len(ads); more {
			to = &Scan{Next: ads[n].Ad, Pos: ads[n].Pos}
			if next != nil && next.Depth > 0 {
				to.Depth = next.Depth + len(ads) - n
			}
		}
		_, err := s.update(func(t *tx) error {
			if err := t.addPending(publisher, ads[:n]); err != nil {
				return err
			}
			return t.moveScan(publisher, from, to)
		})
		if err != nil {
			return fmt.Errorf("add scanned ads of %s: %w", publisher, err)
		}
		ads = ads[n:]
		if more {
			from = to.Pos
		}
	}
	return nil
}

func checkScanned(publisher peer.ID, ads []AdRef, next *Scan) error {
	if err := checkPeer("publisher", publisher); err != nil {
		return err
	}
	if err := checkRefs(ads); err != nil {
		return err
	}
	for i := range ads[min(1, len(ads)):] {
		if ads[i+1].Pos >= ads[i].Pos {
			return fmt.Errorf("scanned ad at %d after one at %d: %w", ads[i+1].Pos, ads[i].Pos, ErrInvalid)
		}
	}
	if next == nil {
		return nil
	}
	if err := checkRef(AdRef{Ad: next.Next, Pos: next.Pos}); err != nil {
		return err
	}
	if next.Depth < 0 {
		return fmt.Errorf("scan of depth %d: %w", next.Depth, ErrInvalid)
	}
	if n := len(ads); n > 0 && next.Pos >= ads[n-1].Pos {
		return fmt.Errorf("scan goes on at %d after an ad at %d: %w", next.Pos, ads[n-1].Pos, ErrInvalid)
	}
	return nil
}

// moveScan replaces the scan row at from.
func (t *tx) moveScan(pub peer.ID, from Position, next *Scan) error {
	if from != 0 {
		if err := t.dropScan(pub, from); err != nil {
			return err
		}
	}
	if w := t.peek(pub); next == nil || next.Pos <= max(w.mark.Pos, w.epoch) {
		return nil
	}
	key := peerPosKey(prefixScan, pub, next.Pos)
	known, err := t.has(key)
	if err != nil {
		return err
	}
	if !known {
		t.progress(pub).scans++
	}
	return t.set(key, scanRow{next.Next, uint64(next.Depth), next.Trouble.kept()}.encode())
}

func (t *tx) dropScan(pub peer.ID, pos Position) error {
	if t.peek(pub).scans == 0 {
		return nil
	}
	key := peerPosKey(prefixScan, pub, pos)
	known, err := t.has(key)
	if err != nil || !known {
		return err
	}
	t.progress(pub).scans--
	return t.delete(key)
}

// Scans returns the walks of a publisher that have not come to their end, newest
// first, at most MaxListed.
func (s *Store) Scans(publisher peer.ID) ([]Scan, error) {
	if err := s.enter(); err != nil {
		return nil, err
	}
	defer s.exit()
	s.view.RLock()
	n := s.publisher(publisher).progress.scans
	s.view.RUnlock()
	if n == 0 {
		return nil, nil
	}
	scans, err := listScans(s.db, publisher)
	if err != nil {
		return nil, fmt.Errorf("list scans of %s: %w", publisher, err)
	}
	return scans, nil
}

func listScans(r pebble.Reader, pub peer.ID) (scans []Scan, err error) {
	prefix := peerKey(prefixScan, pub)
	err = scanBack(r, prefix, keyEnd(prefix), func(k, v []byte) error {
		_, pos, err := parsePeerPosKey(prefixScan, k)
		if err != nil {
			return err
		}
		row, err := decodeScan(v)
		if err != nil {
			return err
		}
		if scans = append(scans, Scan{row.next, pos, int(row.depth), row.trouble}); len(scans) == MaxListed {
			return errStop
		}
		return nil
	})
	return scans, err
}

// SetScanTrouble notes the trouble of the walk that goes on at a position; the
// zero one takes it away. If there is no such walk it notes nothing.
func (s *Store) SetScanTrouble(publisher peer.ID, pos Position, t Trouble) error {
	return s.changeScan(publisher, pos, func(tx *tx) error {
		key := peerPosKey(prefixScan, publisher, pos)
		row, ok, err := getRow(tx.b, key, decodeScan)
		if err != nil || !ok {
			return err
		}
		row.trouble = t.kept()
		return tx.set(key, row.encode())
	})
}

// DropScan forgets the walk that goes on at a position, if there is one. What
// it has passed stays pending.
func (s *Store) DropScan(publisher peer.ID, pos Position) error {
	return s.changeScan(publisher, pos, func(t *tx) error { return t.dropScan(publisher, pos) })
}

func (s *Store) changeScan(publisher peer.ID, pos Position, change func(*tx) error) error {
	if err := s.enterWrite(); err != nil {
		return err
	}
	defer s.exit()
	if err := checkPeer("publisher", publisher); err != nil {
		return err
	}
	if _, err := s.update(change); err != nil {
		return fmt.Errorf("change scan of %s at %d: %w", publisher, pos, err)
	}
	return nil
}
