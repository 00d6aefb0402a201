package ingest

import (
	"context"
	"errors"
	"time"

	"github.com/ipfs/go-cid"

	"github.com/signpost-index/signpost/ingest/ipnisync"
	"github.com/signpost-index/signpost/ingest/mirror"
)

const (
	// maxUploads bounds the mirror files on their way at once; the next waits, and
	// the lane with it.
	maxUploads = 8
	// uploadTimeout bounds one of them.
	uploadTimeout = 10 * time.Minute
)

// mirrored is an ad that a lane reads from one mirror and writes to another,
// both of which may be missing. Nothing that goes wrong with a mirror is held
// against the ad: what cannot be read comes from the publisher, what cannot be
// written is missing.
type mirrored struct {
	l     *lane
	ad    cid.Cid
	read  *mirror.Entries
	tried bool // to open read
	write *mirror.Writer
}

// mirrorOf opens the file of an ad to be written. entries is undefined for an ad
// whose entries, if any, have no effect.
func (l *lane) mirrorOf(j job, entries cid.Cid) *mirrored {
	m := &mirrored{l: l, ad: j.Ad}
	if l.i.cfg.Mirror == nil || j.raw == nil {
		return m
	}
	w, err := l.i.cfg.Mirror.Create(j.Ad, entries)
	if err == nil {
		m.write = w
		m.wrote(j.Ad, j.raw)
		return m
	}
	m.unwritten(err)
	return m
}

// fetch returns a block of the entries from the mirror, if it is there.
func (m *mirrored) fetch(ctx context.Context, c cid.Cid) (ipnisync.Block, bool) {
	if m == nil || m.l.i.cfg.MirrorFrom == nil {
		return ipnisync.Block{}, false
	}
	if !m.tried {
		m.tried = true
		var err error
		if m.read, err = m.l.i.cfg.MirrorFrom.Entries(ctx, m.ad); err != nil {
			m.l.i.unread(m.ad, err)
			m.read = nil
		}
	}
	if m.read == nil {
		return ipnisync.Block{}, false
	}
	b, err := m.read.Block(c)
	if err != nil {
		m.l.i.unread(c, err)
		return ipnisync.Block{}, false
	}
	m.l.i.metrics.mirrorBlocks.Inc()
	return ipnisync.Block{Bytes: b}, true
}

// reads says whether entries may come from a mirror, which has them in order.
func (m *mirrored) reads() bool { return m != nil && m.l.i.cfg.MirrorFrom != nil }

// wrote adds a block, verified by the caller, to the file.
func (m *mirrored) wrote(c cid.Cid, block []byte) {
	if m == nil || m.write == nil {
		return
	}
	if err := m.write.Block(c, block); err != nil {
		m.write.Abort()
		m.write = nil
		m.unwritten(err)
	}
}

// keep makes the file visible, in the background: the ad was applied.
func (m *mirrored) keep(ctx context.Context) {
	if m.write == nil {
		return
	}
	w, i := m.write, m.l.i
	m.write = nil
	if err := i.uploads.Acquire(ctx, 1); err != nil {
		w.Abort()
		return
	}
	ad := m.ad
	i.wg.Go(func() {
		defer i.uploads.Release(1)
		ctx, cancel := context.WithTimeout(i.ctx, uploadTimeout)
		defer cancel()
		if err := w.Commit(ctx); err != nil {
			i.metrics.mirrorFailed.Inc()
			i.log.Warn("ad not mirrored", "ad", ad, "err", err)
			return
		}
		i.metrics.mirrorFiles.Inc()
	})
}

// close gives up what was not kept.
func (m *mirrored) close() {
	if m.write != nil {
		m.write.Abort()
	}
	if m.read != nil {
		_ = m.read.Close()
	}
}

func (m *mirrored) unwritten(err error) {
	m.l.i.metrics.mirrorFailed.Inc()
	m.l.i.log.Warn("ad not mirrored", "publisher", m.l.publisher, "ad", m.ad, "err", err)
}

// unread notes that a mirror was asked in vain.
func (i *Ingester) unread(c cid.Cid, err error) {
	if errors.Is(err, mirror.ErrNotFound) || errors.Is(err, context.Canceled) {
		return
	}
	i.metrics.mirrorUnread.Inc()
	i.log.Warn("mirror not read, the publisher is asked", "cid", c, "err", err)
}

// mirrorAd returns an ad's block from the mirror, if it is there.
func (s *session) mirrorAd(ctx context.Context, c cid.Cid) ([]byte, bool) {
	if s.i.cfg.MirrorFrom == nil {
		return nil, false
	}
	b, err := s.i.cfg.MirrorFrom.Ad(ctx, c)
	if err != nil {
		s.i.unread(c, err)
		return nil, false
	}
	s.i.metrics.mirrorBlocks.Inc()
	return b, true
}

// mirrorHead writes down how far the chain is applied.
func (s *session) mirrorHead(ctx context.Context) {
	mark := s.i.cfg.Store.DurableProgress(s.publisher).Mark.Ad
	if s.i.cfg.Mirror == nil || !mark.Defined() || mark == s.w.mirrored {
		return
	}
	if err := s.i.cfg.Mirror.SetHead(ctx, s.publisher, mark); err != nil {
		if ctx.Err() == nil {
			s.i.metrics.mirrorFailed.Inc()
			s.i.log.Warn("head not mirrored", "publisher", s.publisher, "head", mark, "err", err)
		}
		return
	}
	s.w.mirrored = mark
}
