package ingest

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/multiformats/go-multiaddr"
	"github.com/multiformats/go-multihash"
	"go.opentelemetry.io/otel/attribute"

	"github.com/signpost-index/signpost/ingest/schema"
	"github.com/signpost-index/signpost/store"
)

// rejection is an ad that can never be applied; its text is kept as the reason.
type rejection struct{ err error }

func (r *rejection) Error() string { return r.err.Error() }
func (r *rejection) Unwrap() error { return r.err }

func reject(format string, args ...any) error {
	return &rejection{err: fmt.Errorf(format, args...)}
}

// lane applies ads of a session, one after the other, with buffers of its own.
type lane struct {
	*session
	decoder *schema.ChunkDecoder
	mhs     []multihash.Multihash
	file    *mirrored // of the ad in work; nil if it has none
}

// do applies one ad as far as that is possible. again is when it is to be tried
// again if it was not, zero if it was.
func (l *lane) do(ctx context.Context, j job) (again time.Time) {
	err := l.apply(ctx, j)
	if err == nil {
		return time.Time{}
	}
	if ctx.Err() != nil {
		return time.Now()
	}
	if errors.Is(err, store.ErrNoSpace) {
		return l.noRoom(j, err)
	}
	k := kindOf(err)
	if k == troubleOurs {
		l.stop(err)
		return time.Now()
	}
	l.failed(err, k)
	return l.later(j, err, k)
}

// noRoom leaves content for later; removals and updates, which need no room, go
// on. Nothing is held against the ad.
func (l *lane) noRoom(j job, err error) time.Time {
	now := time.Now()
	l.i.metrics.adsDelayed.Inc()
	l.st.failed()
	l.i.log.Debug("no room for the ad's content", "publisher", l.publisher, "ad", j.Ad, "err", err)
	if err := l.i.cfg.Store.SetError(l.publisher, err.Error(), now); err != nil {
		l.stop(err)
	}
	return now.Add(jitter(l.i.cfg.AdRetryMin))
}

// later notes the trouble an ad has met, or rejects it once that has lasted too
// long. An ad is given up only while the publisher serves other things.
func (l *lane) later(j job, err error, k kind) time.Time {
	now := time.Now()
	if hopeless(j.Trouble, k, now, l.i.cfg.GiveUpAfter) && l.hasServed() {
		no := &rejection{fmt.Errorf("given up after %d attempts since %s: %w", j.Trouble.Attempts+1, j.Trouble.Since.UTC().Format(time.RFC3339), err)}
		rerr := l.reject(j, no)
		if rerr == nil {
			return time.Time{}
		}
		l.stop(rerr)
		return now
	}
	t := worse(j.Trouble, err, k, now, l.i.cfg.AdRetryMin, l.i.cfg.AdRetryMax)
	if err := l.i.cfg.Store.SetTrouble(l.publisher, j.AdRef, t); err != nil {
		l.stop(err)
		return now
	}
	l.i.metrics.adsDelayed.Inc()
	l.st.failed()
	l.i.log.Warn("ad will be tried again", "publisher", l.publisher, "ad", j.Ad, "in", time.Until(t.Next), "attempts", t.Attempts, "err", err)
	if err := l.i.cfg.Store.SetError(l.publisher, err.Error(), now); err != nil {
		l.stop(err)
	}
	return t.Next
}

// apply gives one ad its verdict and, unless it is rejected, its effect. An
// error means nothing was decided: the ad stays pending.
func (l *lane) apply(ctx context.Context, j job) (err error) {
	ctx, span := l.i.span(ctx, "apply ad", "ad", j.Ad)
	defer func() { span.end(err) }()
	if j.ad == nil {
		var block []byte
		if j.ad, block, err = l.loadAd(ctx, j.Ad); err != nil {
			return err
		}
		j.raw = l.i.toMirror(block)
	}
	l.st.current(j.Ad)
	start := time.Now()
	done, err := l.applyAd(ctx, j)
	for again(ctx, err) {
		done, err = l.applyAd(ctx, j)
	}
	var no *rejection
	if errors.As(err, &no) {
		return l.reject(j, no)
	}
	if err != nil {
		return err
	}
	l.i.handed.ask()
	l.i.metrics.applied(done.verdict)
	span.said(attribute.String("signpost.verdict", done.verdict.String()), attribute.Int("signpost.multihashes", done.mhs))
	l.st.applied()
	l.i.stages.indexed(j.Ad, done.verdict)
	l.i.log.Debug("ad done", "publisher", l.publisher, "ad", j.Ad, "verdict", done.verdict, "mhs", done.mhs, "elapsed", time.Since(start))
	return nil
}

// takenWait is how long it may take until all know that content is taken now: a sync
// of the disk. It is looked again after so long.
const takenWait = 10 * time.Millisecond

// again tells whether an ad is to be begun again at once: a removal took what was put
// along, or its publisher was taken over while it was being left out.
func again(ctx context.Context, err error) bool {
	switch {
	case errors.Is(err, store.ErrConflict):
	case errors.Is(err, store.ErrTaken):
		select {
		case <-ctx.Done():
		case <-time.After(takenWait):
		}
	default:
		return false
	}
	return ctx.Err() == nil
}

// done says what became of an ad.
type done struct {
	verdict store.Verdict
	mhs     int
}

// reject records that an ad is not applied, and why.
func (l *lane) reject(j job, no *rejection) error {
	l.i.log.Warn("ad rejected", "publisher", l.publisher, "ad", j.Ad, "err", no)
	if err := l.commitRejected(j, no); err != nil {
		return err
	}
	l.i.metrics.applied(store.Rejected)
	l.st.applied()
	l.i.stages.indexed(j.Ad, store.Rejected)
	return nil
}

// applyAd follows the table of advertisement.md section 7.
func (l *lane) applyAd(ctx context.Context, j job) (done, error) {
	ad := j.ad
	end, err := l.i.turns.take(ctx, l.publisher)
	if err != nil {
		return done{}, err
	}
	provider, err := l.judge(ad)
	end()
	if err != nil {
		return done{}, err
	}
	if !j.Again && l.i.cfg.Store.Passed(l.publisher, j.Pos) {
		return done{verdict: store.MarkedDone}, nil // the mark was set above it meanwhile
	}
	e := store.Effect{Verdict: store.Applied, Provider: registryUpdate(ad), HeldOnly: !l.i.cfg.Store.TakesAd(l.publisher, j.Pos, j.Again)}
	switch {
	case ad.IsRm:
		e.Kind = store.EffectRemove
	case len(ad.Metadata) == 0: // CheckIngest has refused entries without metadata
		e.Kind = store.EffectNone
	case ad.Entries == schema.NoEntries:
		e.Kind = store.EffectMetadata
	default:
		return l.applyContent(ctx, j, provider, e)
	}
	file := l.mirrorOf(j, schema.NoEntries)
	defer file.close()
	done, err := l.commit(j, provider, e)
	if err == nil {
		file.keep(ctx)
	}
	return done, err
}

// judge decides whether the ad may be applied at all.
func (s *session) judge(ad *schema.Advertisement) (peer.ID, error) {
	signer, err := ad.Verify()
	if err != nil {
		return "", reject("verify: %w", err)
	}
	if err := ad.CheckIngest(); err != nil {
		return "", &rejection{err: err}
	}
	provider, err := ad.ProviderID()
	if err != nil {
		return "", &rejection{err: err}
	}
	if !s.i.cfg.MayPublish(signer, provider) {
		return "", reject("signed by %s, which may not publish for provider %s", signer, provider)
	}
	if !s.i.cfg.MayPublish(s.publisher, provider) {
		return "", reject("in the chain of %s, which may not publish for provider %s", s.publisher, provider)
	}
	return provider, nil
}

// begin begins an ad as long as the store is the one the session began with:
// once it has recovered from a failure, older ads that were done may not be, and
// this one would stand above a gap that no later scan would find. A writer
// begun before that does no harm: its Put and Commit fail.
func (s *session) begin(j job, provider peer.ID) (*store.AdWriter, error) {
	w, err := s.i.cfg.Store.Begin(store.Ad{
		AdRef: j.AdRef, Publisher: s.publisher, Provider: provider,
		ContextID: j.ad.ContextID, Metadata: j.ad.Metadata,
	})
	if err != nil {
		return nil, err
	}
	select {
	case <-s.recovered:
		w.Abort()
		return nil, errRecovered
	default:
		return w, nil
	}
}

// commit commits an ad without multihashes.
func (s *session) commit(j job, provider peer.ID, e store.Effect) (done, error) {
	w, err := s.begin(j, provider)
	if err != nil {
		return done{}, err
	}
	defer w.Abort()
	_, err = w.Commit(e)
	return done{verdict: w.Verdict()}, err
}

// commitRejected records the verdict; an ad without a usable provider is
// booked under its publisher.
func (s *session) commitRejected(j job, no *rejection) error {
	bare := schema.Advertisement{}
	if j.ad != nil {
		bare = *j.ad
	}
	provider, err := bare.ProviderID()
	if err != nil {
		provider = s.publisher
	}
	if len(bare.ContextID) > schema.MaxContextIDBytes {
		bare.ContextID = nil
	}
	if len(bare.Metadata) > schema.MaxMetadataBytes {
		bare.Metadata = nil
	}
	j.ad = &bare
	_, err = s.commit(j, provider, store.Effect{Kind: store.EffectNone, Verdict: store.Rejected, Reason: no.Error()})
	return err
}

// applyContent fetches the ad's entries and puts them, unless that changes
// nothing: a newer removal is known, or the very ad was applied before as part
// of another publisher's chain and stands; or the indexer this one has taken
// over from has it. On a frozen node, and of a publisher that is closed, the
// entries are left alone and only the metadata of what is held changes.
func (l *lane) applyContent(ctx context.Context, j job, provider peer.ID, e store.Effect) (done, error) {
	st := l.i.cfg.Store
	removed, err := st.RemovedAt(l.publisher, provider, j.ad.ContextID, j.Pos)
	if err != nil {
		return done{}, err
	}
	if removed {
		e.Kind, e.Verdict = store.EffectNone, store.Superseded
		return l.commit(j, provider, e)
	}
	if !j.Again {
		by, stands, err := st.Stands(j.Ad, provider, j.ad.ContextID)
		if err != nil {
			return done{}, err
		}
		if stands && by != l.publisher {
			if err := st.LeansOn(l.publisher, by); err != nil {
				return done{}, err
			}
			l.i.metrics.adsKnown.Inc()
			e.Kind = store.EffectNone
			return l.commit(j, provider, e)
		}
	}
	elsewhere, err := st.HeldElsewhere(l.publisher, j.Ad)
	if err != nil {
		return done{}, err
	}
	if elsewhere {
		e.Kind, e.Verdict, e.HeldOnly = store.EffectMetadata, store.MarkedDone, true
		return l.commit(j, provider, e)
	}
	e.Kind = store.EffectContent
	if st.TakesAd(l.publisher, j.Pos, j.Again) {
		mhs, err := l.putEntries(ctx, j, provider, e)
		if !errors.Is(err, store.ErrFrozen) {
			return done{e.Verdict, mhs}, err
		}
	}
	e.Kind, e.Verdict = store.EffectMetadata, store.SkippedFrozen
	return l.commit(j, provider, e)
}

func (l *lane) putEntries(ctx context.Context, j job, provider peer.ID, e store.Effect) (int, error) {
	w, err := l.begin(j, provider)
	if err != nil {
		return 0, err
	}
	defer w.Abort()
	resume, err := w.Resume()
	if err != nil {
		return 0, err
	}
	from := decodeEntriesCursor(resume, j.ad.Entries)
	if from.chunks > 0 {
		l.i.log.Info("ad is resumed", "publisher", l.publisher, "ad", j.Ad, "chunks", from.chunks)
	}
	if err := w.Put(nil); err != nil { // frozen or full: nothing need be fetched
		return 0, err
	}
	if from.chunks == 0 {
		l.file = l.mirrorOf(j, j.ad.Entries)
	} else {
		l.file = &mirrored{l: l, ad: j.Ad} // it can be read from the middle, not written
	}
	defer func() {
		l.file.close()
		l.file = nil
	}()
	n, since := 0, 0
	err = l.fetchEntries(ctx, from, func(mhs []multihash.Multihash, behind *entriesCursor) error {
		n += len(mhs)
		l.i.metrics.multihashes.Add(uint64(len(mhs)))
		if since += len(mhs); behind == nil || !behind.next.Defined() || since < l.i.cursorEvery {
			return w.Put(mhs)
		}
		since = 0
		err := w.PutTo(mhs, behind.encode())
		l.i.handed.ask()
		return err
	})
	if err != nil {
		return n, err
	}
	l.i.stages.fetched(j.Ad)
	if _, err = w.Commit(e); err == nil {
		l.file.keep(ctx)
		l.countRepeated(w, n)
	}
	return n, err
}

// countRepeated counts the multihashes of an ad that may be stored elsewhere too:
// its chain was taken over in the middle and its context is new here, so it may
// be an update of what the other indexer holds that repeats the entries.
func (l *lane) countRepeated(w *store.AdWriter, mhs int) {
	if !w.Fresh() {
		return
	}
	if a, ok := l.i.cfg.Store.Assignment(l.publisher); ok && a.Continued != "" {
		l.i.metrics.maybeRepeated.Add(float64(mhs))
	}
}

// registryUpdate is what the ad says about its provider. Malformed addresses
// are left out; an extended provider without any address has no effect (spec).
// Where the publisher is reached is no part of it: a walk from a new head says
// that, see promoteAddr.
func registryUpdate(ad *schema.Advertisement) *store.ProviderUpdate {
	u := &store.ProviderUpdate{Addrs: validAddrs(ad.Addresses), Time: time.Now()}
	if ad.ExtendedProvider == nil {
		return u
	}
	set := &store.ExtendedSet{Override: ad.ExtendedProvider.Override}
	for _, p := range ad.ExtendedProvider.Providers {
		id, err := peer.Decode(p.ID)
		addrs := validAddrs(p.Addresses)
		if err != nil || (len(addrs) == 0 && p.ID != ad.Provider) {
			continue
		}
		set.Providers = append(set.Providers, store.ExtendedProvider{ID: id, Addrs: addrs, Metadata: p.Metadata})
	}
	u.Extended = set
	return u
}

func validAddrs(texts []string) []string {
	out := make([]string, 0, len(texts))
	for _, t := range texts {
		if _, err := multiaddr.NewMultiaddr(t); err == nil {
			out = append(out, t)
		}
	}
	return out
}
