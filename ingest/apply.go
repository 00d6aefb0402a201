package ingest

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/multiformats/go-multiaddr"
	"github.com/multiformats/go-multihash"

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

// apply gives one ad its verdict and, unless it is rejected, its effect. An
// error means nothing was decided: the ad stays pending.
func (s *chainSync) apply(ctx context.Context, ref store.AdRef) error {
	ad, err := s.loadAd(ctx, ref.Ad)
	if err != nil {
		return err
	}
	s.st.current(ref.Ad)
	start := time.Now()
	mhs, frozen, err := s.applyAd(ctx, ref, ad)
	var no *rejection
	switch {
	case errors.As(err, &no):
		s.i.log.Warn("ad rejected", "publisher", s.publisher, "ad", ref.Ad, "err", no)
		s.i.metrics.adsRejected.Inc()
		return s.commitRejected(ref, ad, no)
	case err != nil:
		return err
	case frozen:
		s.i.metrics.adsSkippedFrozen.Inc()
	default:
		s.i.metrics.adsApplied.Inc()
	}
	s.i.log.Debug("ad applied", "publisher", s.publisher, "ad", ref.Ad, "mhs", mhs, "frozen", frozen, "elapsed", time.Since(start))
	return nil
}

// applyAd follows the table of advertisement.md section 7.
func (s *chainSync) applyAd(ctx context.Context, ref store.AdRef, ad *schema.Advertisement) (mhs int, frozen bool, err error) {
	provider, err := s.judge(ad)
	if err != nil {
		return 0, false, err
	}
	e := store.Effect{Verdict: store.Applied, Provider: s.registryUpdate(ad)}
	noEntries := ad.Entries == schema.NoEntries
	switch {
	case ad.IsRm:
		e.Kind = store.EffectRemove
	case len(ad.Metadata) == 0: // CheckIngest has refused entries without metadata
		e.Kind = store.EffectNone
	case noEntries:
		e.Kind = store.EffectMetadata
	default:
		return s.applyContent(ctx, ref, provider, ad, e)
	}
	return 0, false, s.commit(ref, provider, ad, e)
}

// judge decides whether the ad may be applied at all.
func (s *chainSync) judge(ad *schema.Advertisement) (peer.ID, error) {
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

// begin begins an ad as long as the store is the one the sync began with:
// once it has recovered from a failure, older ads that were done may not be, and
// this one would stand above a gap that no later scan would find. A writer
// begun before that does no harm: its Put and Commit fail.
func (s *chainSync) begin(ref store.AdRef, provider peer.ID, ad *schema.Advertisement) (*store.AdWriter, error) {
	w, err := s.i.cfg.Store.Begin(store.Ad{
		AdRef: ref, Publisher: s.publisher, Provider: provider,
		ContextID: ad.ContextID, Metadata: ad.Metadata,
	})
	if err != nil {
		return nil, err
	}
	select {
	case <-s.recovered:
		w.Abort()
		return nil, fmt.Errorf("the store has recovered since this sync began: %w", store.ErrFailed)
	default:
		return w, nil
	}
}

func (s *chainSync) commit(ref store.AdRef, provider peer.ID, ad *schema.Advertisement, e store.Effect) error {
	w, err := s.begin(ref, provider, ad)
	if err != nil {
		return err
	}
	defer w.Abort()
	_, err = w.Commit(e)
	return err
}

// commitRejected records the verdict; an ad without a usable provider is
// booked under its publisher.
func (s *chainSync) commitRejected(ref store.AdRef, ad *schema.Advertisement, no *rejection) error {
	provider, err := ad.ProviderID()
	if err != nil {
		provider = s.publisher
	}
	bare := *ad
	if len(bare.ContextID) > schema.MaxContextIDBytes {
		bare.ContextID = nil
	}
	if len(bare.Metadata) > schema.MaxMetadataBytes {
		bare.Metadata = nil
	}
	return s.commit(ref, provider, &bare, store.Effect{Kind: store.EffectNone, Verdict: store.Rejected, Reason: no.Error()})
}

// applyContent fetches the ad's entries and puts them. On a frozen node the
// entries are left alone and only the metadata of what is held changes.
func (s *chainSync) applyContent(ctx context.Context, ref store.AdRef, provider peer.ID, ad *schema.Advertisement, e store.Effect) (mhs int, frozen bool, err error) {
	e.Kind = store.EffectContent
	if !s.i.cfg.Store.Frozen() {
		mhs, err = s.putEntries(ctx, ref, provider, ad, e)
		if !errors.Is(err, store.ErrFrozen) {
			return mhs, false, err
		}
	}
	e.Kind, e.Verdict = store.EffectMetadata, store.SkippedFrozen
	return 0, true, s.commit(ref, provider, ad, e)
}

func (s *chainSync) putEntries(ctx context.Context, ref store.AdRef, provider peer.ID, ad *schema.Advertisement, e store.Effect) (int, error) {
	w, err := s.begin(ref, provider, ad)
	if err != nil {
		return 0, err
	}
	defer w.Abort()
	resume, err := w.Resume()
	if err != nil {
		return 0, err
	}
	from := decodeEntriesCursor(resume, ad.Entries)
	if from.chunks > 0 {
		s.i.log.Info("ad is resumed", "publisher", s.publisher, "ad", ref.Ad, "chunks", from.chunks)
	}
	n, since := 0, 0
	err = s.fetchEntries(ctx, from, func(mhs []multihash.Multihash, behind *entriesCursor) error {
		n += len(mhs)
		s.i.metrics.multihashes.Add(float64(len(mhs)))
		if since += len(mhs); behind == nil || since < s.i.cursorEvery {
			return w.Put(mhs)
		}
		since = 0
		return w.PutTo(mhs, behind.encode())
	})
	if err != nil {
		return n, err
	}
	_, err = w.Commit(e)
	return n, err
}

// registryUpdate is what the ad says about its provider. Malformed addresses
// are left out; an extended provider without any address has no effect (spec).
func (s *chainSync) registryUpdate(ad *schema.Advertisement) *store.ProviderUpdate {
	u := &store.ProviderUpdate{Addrs: validAddrs(ad.Addresses), Time: time.Now()}
	if a := s.pub.Addr(); a != nil {
		u.PublisherAddrs = []string{a.String()}
	}
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
