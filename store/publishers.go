package store

import (
	"encoding/binary"
	"time"

	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/peer"
)

// progressRow is how far a publisher is.
type progressRow struct {
	mark     AdRef
	markTime time.Time
	above    uint64 // rows under prefixAbove
	pending  uint64 // rows under prefixPending
	tombs    uint64 // rows under prefixTombstone
	again    uint64 // rows under prefixAgain
	scans    uint64 // rows under prefixScan
	// againFrom is at or below the lowest of the again rows; 0 if there are none.
	againFrom Position
	// height counts the ads at or below the mark, those of indexers gone on from
	// included; mhs the multihashes put here by committed ads.
	height, mhs uint64
	// epoch is the highest position of what was forgotten: what is left of it in
	// the ledger is not known any more.
	epoch Position
}

func (w progressRow) encode() []byte {
	b := appendCID(nil, w.mark.Ad)
	b = appendCID(b, w.mark.Prev)
	b = appendPos(b, w.mark.Pos)
	b = appendTime(b, w.markTime)
	b = binary.AppendUvarint(b, w.above)
	b = binary.AppendUvarint(b, w.pending)
	b = binary.AppendUvarint(b, w.tombs)
	if !w.unsettled() && !w.counted() {
		return b
	}
	b = binary.AppendUvarint(binary.AppendUvarint(b, w.again), w.scans)
	b = appendPos(b, w.againFrom)
	if !w.counted() {
		return b
	}
	b = binary.AppendUvarint(binary.AppendUvarint(b, w.height), w.mhs)
	return appendPos(b, w.epoch)
}

func (w progressRow) unsettled() bool { return w.again != 0 || w.scans != 0 }

func (w progressRow) counted() bool { return w.height != 0 || w.mhs != 0 || w.epoch != 0 }

// chain tells whether anything is known of the publisher's chain.
func (w progressRow) chain() bool {
	return w.mark.Ad.Defined() || w.above > 0 || w.pending > 0 || w.scans > 0
}

// isAgain counts another ad to be applied again.
func (w *progressRow) isAgain(pos Position) {
	if w.again == 0 || pos < w.againFrom {
		w.againFrom = pos
	}
	w.again++
}

// notAgain counts n such ads less.
func (w *progressRow) notAgain(n uint64) {
	if w.again -= min(n, w.again); w.again == 0 {
		w.againFrom = 0
	}
}

func decodeProgress(b []byte) (progressRow, error) {
	r := &reader{b: b}
	w := progressRow{mark: AdRef{Ad: r.cid(), Prev: r.cid(), Pos: r.pos()}, markTime: r.time(),
		above: r.uvarint(), pending: r.uvarint(), tombs: r.uvarint()}
	if len(r.b) > 0 {
		w.again, w.scans, w.againFrom = r.uvarint(), r.uvarint(), r.pos()
		if len(r.b) > 0 {
			w.height, w.mhs, w.epoch = r.uvarint(), r.uvarint(), r.pos()
			if !w.counted() {
				r.fail()
			}
		} else if !w.unsettled() {
			r.fail()
		}
		if (w.again == 0) != (w.againFrom == 0) {
			r.fail()
		}
	}
	if w.mark.Ad.Defined() != (w.mark.Pos != 0) {
		r.fail()
	}
	return w, r.done("progress")
}

// publisherRow is what is known of a publisher besides its progress.
type publisherRow struct {
	addrs         []string
	lastError     string
	lastErrorTime time.Time
	frozenAt      cid.Cid // mark when the latch fell; meaningful only while frozen
	// frozenPos and frozenHeight are the mark's; 0 if a store of format 5 froze.
	frozenPos    Position
	frozenHeight uint64
}

func (w publisherRow) encode() []byte {
	b := appendStrings(nil, w.addrs)
	b = appendString(b, w.lastError)
	b = appendTime(b, w.lastErrorTime)
	b = appendCID(b, w.frozenAt)
	if w.frozenPos == 0 {
		return b
	}
	return binary.AppendUvarint(appendPos(b, w.frozenPos), w.frozenHeight)
}

func decodePublisher(b []byte) (publisherRow, error) {
	r := &reader{b: b}
	w := publisherRow{addrs: r.strings(), lastError: r.string(), lastErrorTime: r.time(), frozenAt: r.cid()}
	if len(r.b) > 0 {
		w.frozenPos, w.frozenHeight = r.pos(), r.uvarint()
		if w.frozenPos == 0 || !w.frozenAt.Defined() {
			r.fail()
		}
	}
	return w, r.done("publisher")
}

// publisher is the part of a publisher's state kept in memory. Values are
// replaced, never edited.
type publisher struct {
	progress progressRow
	info     publisherRow
	runs     runs
	swept    Position // tombstones up to here are gone; not on disk
}

func (s *Store) loadPublishers() error {
	err := scanPrefix(s.db, []byte{prefixProgress}, func(k, v []byte) error {
		id, err := parsePeerKey(prefixProgress, k)
		if err != nil {
			return err
		}
		p := s.publisher(id)
		p.progress, err = decodeProgress(v)
		s.publishers[id] = p
		return err
	})
	if err != nil {
		return err
	}
	return scanPrefix(s.db, []byte{prefixPublisher}, func(k, v []byte) error {
		id, err := parsePeerKey(prefixPublisher, k)
		if err != nil {
			return err
		}
		p := s.publisher(id)
		p.info, err = decodePublisher(v)
		s.publishers[id] = p
		return err
	})
}

// publisher returns a copy of what is known of a publisher, to be changed and
// put into the map. The caller holds mu or view.
func (s *Store) publisher(id peer.ID) *publisher {
	p := publisher{}
	if known := s.publishers[id]; known != nil {
		p = *known
	}
	return &p
}

func (s *Store) setSwept(id peer.ID, swept Position) {
	p := s.publisher(id)
	p.swept = swept
	s.publishers[id] = p
}
