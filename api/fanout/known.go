package fanout

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/signpost-index/signpost/api/find"
)

// Provider returns the newest record of a provider. It is ErrNotFound only if
// every backend said so, and denied if one denies it.
func (f *Finder) Provider(ctx context.Context, id peer.ID) (*find.ProviderInfo, error) {
	type known struct {
		info   *find.ProviderInfo
		denied *find.DeniedError
	}
	found, missing := scatter(ctx, f, func(ctx context.Context, b find.Finder) (k known, err error) {
		k.info, err = b.Provider(ctx, id)
		if k.denied = deniedBy(err); k.denied != nil || errors.Is(err, find.ErrNotFound) {
			return known{denied: k.denied}, nil
		}
		return k, err
	})
	var newest *find.ProviderInfo
	var first denial
	for _, k := range found {
		if k.denied != nil {
			first.add(k.denied.Reason, k.denied) // in an order, if not that of names
		}
		info := k.info
		if info != nil && (newest == nil || newer(info, newest) > 0) {
			newest = info
		}
	}
	if first.err != nil {
		return nil, first.err
	}
	err := partial(ctx, missing)
	if newest == nil && err == nil {
		return nil, find.ErrNotFound
	}
	return newest, err
}

// Stats is the sum over the backends. Multihashes that several backends know
// are counted by each.
func (f *Finder) Stats(ctx context.Context) (find.Stats, error) {
	all, missing := scatter(ctx, f, func(ctx context.Context, b find.Finder) (find.Stats, error) {
		return b.Stats(ctx)
	})
	var sum find.Stats
	for _, s := range all {
		sum.EntriesEstimate += s.EntriesEstimate
		sum.EntriesCount += s.EntriesCount
	}
	return sum, partial(ctx, missing)
}

// scatter calls each backend and returns what they gave, by backend, with the
// zero value for those that gave nothing, and the names of those that failed
// or took too long. A backend that gives a value with a *find.PartialError is
// counted with both.
func scatter[T any](ctx context.Context, f *Finder, call func(context.Context, find.Finder) (T, error)) (values []T, missing []string) {
	links := *f.links.Load()
	if len(links) == 0 {
		return nil, []string{noBackends}
	}
	ctx, cancel := context.WithTimeout(ctx, f.timeout)
	defer cancel()
	// How long a long list takes says nothing of finds: breakers are not told.
	for i, a := range ask(ctx, f, links, (*link).askPlainly, func(ctx context.Context, l *link) (T, error) { return call(ctx, l.Finder) }) {
		values = append(values, a.value)
		if a.err != nil {
			missing = append(missing, missingOf(links[i], a.err)...)
		}
	}
	return values, missing
}

// answer is what a backend gave.
type answer[T any] struct {
	value T
	err   error
}

// errLate is the error of a backend that has not answered when ctx ended.
var errLate = fmt.Errorf("%w: no answer in time", find.ErrUnavailable)

// ask calls each backend at once, in a way, and waits for them until ctx ends.
func ask[T any](ctx context.Context, f *Finder, links []*link, way func(*link, func() error) error, call func(context.Context, *link) (T, error)) []answer[T] {
	type from struct {
		backend int
		answer[T]
	}
	came := make(chan from, len(links)) // no one waits to send
	for i, l := range links {
		go func() {
			a := from{backend: i}
			start := time.Now()
			a.err = way(l, func() (err error) {
				a.value, err = guarded(ctx, l, call)
				return err
			})
			f.observe(l.Name, time.Since(start), a.err)
			came <- a
		}()
	}
	answers := make([]answer[T], len(links))
	for i := range answers {
		answers[i].err = errLate
	}
	for range links {
		select {
		case a := <-came:
			answers[a.backend] = a.answer
			continue
		case <-ctx.Done():
		}
		for len(came) > 0 {
			a := <-came
			answers[a.backend] = a.answer
		}
		break
	}
	return answers
}

// guarded calls one backend and makes an error of its panic. The value that
// comes with an error counts only if that is a *find.PartialError.
func guarded[T any](ctx context.Context, l *link, call func(context.Context, *link) (T, error)) (value T, err error) {
	defer recovered(&err)
	v, err := call(ctx, l)
	if partial := (*find.PartialError)(nil); err == nil || errors.As(err, &partial) {
		value = v
	}
	return value, err
}

// newestOfEach keeps the newest record of each provider, sorted by peer ID.
func newestOfEach(infos []find.ProviderInfo) []find.ProviderInfo {
	slices.SortFunc(infos, func(a, b find.ProviderInfo) int {
		return cmp.Or(cmp.Compare(a.AddrInfo.ID, b.AddrInfo.ID), newer(&b, &a))
	})
	return slices.CompactFunc(infos, func(a, b find.ProviderInfo) bool { return a.AddrInfo.ID == b.AddrInfo.ID })
}

// newer orders two records of one provider: positive if a is the one to
// believe. It is a total order, down to the bytes, so that what is believed
// does not depend on who answered first.
func newer(a, b *find.ProviderInfo) int {
	if c := a.LastAdvertisementTime.Compare(b.LastAdvertisementTime); c != 0 {
		return c
	}
	aJSON, aErr := json.Marshal(a)
	bJSON, bErr := json.Marshal(b)
	if aErr != nil || bErr != nil {
		return 0 // neither can be sent to anyone
	}
	return bytes.Compare(aJSON, bJSON)
}
