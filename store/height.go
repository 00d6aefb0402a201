package store

import "github.com/libp2p/go-libp2p/core/peer"

// countHeights counts the ads at or below each mark, of a store that has not
// done so. It reads the whole ledger, once. After an error, or a crash in
// between, heights are too low, which an assigner can live with.
func (s *Store) countHeights() {
	_, err := s.update(func(t *tx) error {
		heights := make(map[uint32]uint64)
		marks := make(map[uint32]Position)
		numbers := make(map[peer.ID]uint32)
		for id, p := range s.publishers {
			n, ok, err := getRow(t.b, peerKey(prefixNumber, id), decodeNumber)
			if err != nil {
				return err
			}
			if ok && p.progress.mark.Ad.Defined() {
				marks[n], numbers[id] = p.progress.mark.Pos, n
			}
		}
		err := scanPrefix(t.b, []byte{prefixLedger}, func(_, v []byte) error {
			w, err := decodeLedger(v)
			if err == nil && w.pos <= marks[w.publisher] {
				heights[w.publisher]++
			}
			return err
		})
		if err != nil {
			return err
		}
		for id, n := range numbers {
			t.progress(id).height = max(heights[n], 1)
		}
		return nil
	})
	if err != nil {
		s.cfg.Logger.Warn("heights of publishers are not counted", "err", err)
	}
}
