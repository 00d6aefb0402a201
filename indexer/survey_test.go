package indexer

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/multiformats/go-multihash"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/signpost-index/signpost/store"
)

// lagBook is publishers with the ads that wait, for a surveyor.
type lagBook map[peer.ID]store.Progress

func (l lagBook) surveyor(now *time.Time) *surveyor {
	s := newSurveyor(func() (ids []peer.ID) {
		for id := range l {
			ids = append(ids, id)
		}
		return ids
	}, func(id peer.ID) store.Progress { return l[id] })
	s.now = func() time.Time { return *now }
	return s
}

func testCID(t *testing.T, of string) cid.Cid {
	t.Helper()
	c, err := cid.NewPrefixV1(cid.Raw, multihash.SHA2_256).Sum([]byte(of))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestLagIsNamedOfTwentyPublishersHoweverManyThereAre(t *testing.T) {
	now := time.Date(2026, 11, 27, 12, 0, 0, 0, time.UTC)
	book := make(lagBook)
	for n := range 1000 {
		book[peer.ID(fmt.Sprintf("publisher-%04d", n))] = store.Progress{Pending: 2, MarkTime: now.Add(-time.Duration(n+1) * time.Second)}
	}
	book["idle"] = store.Progress{MarkTime: now.Add(-time.Hour)}
	s := book.surveyor(&now)
	s.look(context.Background())
	if n := testutil.CollectAndCount(s, "signpost_indexer_publisher_lag_seconds"); n != laggardsShown {
		t.Errorf("%d publishers are named, want %d", n, laggardsShown)
	}
	v := s.result()
	if v.behind[0].publisher != "publisher-0999" || v.behind[0].lag != 1000*time.Second || v.pending != 2000 || v.publishers != 1001 {
		t.Errorf("longest %+v, %d pending, %d publishers", v.behind[0], v.pending, v.publishers)
	}
	want := `
# HELP signpost_indexer_publishers_lag_seconds The lags of all publishers as they are now, 0 if nothing waits.
# TYPE signpost_indexer_publishers_lag_seconds histogram
signpost_indexer_publishers_lag_seconds_bucket{le="1"} 2
signpost_indexer_publishers_lag_seconds_bucket{le="10"} 11
signpost_indexer_publishers_lag_seconds_bucket{le="60"} 61
signpost_indexer_publishers_lag_seconds_bucket{le="300"} 301
signpost_indexer_publishers_lag_seconds_bucket{le="1800"} 1001
signpost_indexer_publishers_lag_seconds_bucket{le="3600"} 1001
signpost_indexer_publishers_lag_seconds_bucket{le="21600"} 1001
signpost_indexer_publishers_lag_seconds_bucket{le="86400"} 1001
signpost_indexer_publishers_lag_seconds_bucket{le="604800"} 1001
signpost_indexer_publishers_lag_seconds_bucket{le="+Inf"} 1001
signpost_indexer_publishers_lag_seconds_sum 500500
signpost_indexer_publishers_lag_seconds_count 1001
`
	if err := testutil.CollectAndCompare(s, strings.NewReader(want), "signpost_indexer_publishers_lag_seconds"); err != nil {
		t.Error(err)
	}
}

func TestAPublisherThatWasIdleForLongDoesNotLagAtOnce(t *testing.T) {
	now := time.Date(2026, 11, 27, 12, 0, 0, 0, time.UTC)
	book := lagBook{"p": {MarkTime: now.Add(-30 * 24 * time.Hour)}}
	s := book.surveyor(&now)
	s.look(context.Background())
	book["p"] = store.Progress{MarkTime: book["p"].MarkTime, Pending: 1}
	s.look(context.Background())
	if v := s.result(); v.behind[0].lag != 0 || v.lagging() != "" {
		t.Errorf("lag %s as soon as an ad comes", v.behind[0].lag)
	}
	now = now.Add(laggingAfter)
	s.look(context.Background())
	if v := s.result(); v.behind[0].lag != laggingAfter || !strings.Contains(v.lagging(), "1 publishers") {
		t.Errorf("lag %s, %q, when the ad has waited for so long", v.behind[0].lag, v.lagging())
	}
	book["p"] = store.Progress{MarkTime: now}
	s.look(context.Background())
	if v := s.result(); len(v.behind) != 0 || v.lagging() != "" {
		t.Errorf("still behind when it is applied: %+v", v.behind)
	}
}

func TestAGapIsAConditionThatNamesThePublisher(t *testing.T) {
	now := time.Now()
	gap := store.Scan{Next: testCID(t, "missing"), Trouble: store.Trouble{Attempts: 1, Reason: "404 Not Found"}}
	book := lagBook{"p": {Scans: []store.Scan{gap}}, "walks": {Scans: []store.Scan{{Next: testCID(t, "next")}}}}
	s := book.surveyor(&now)
	s.look(context.Background())
	v := s.result()
	said := v.broken()
	for _, part := range []string{"1 publishers", peer.ID("p").String(), gap.Next.String(), "404"} {
		if !strings.Contains(said, part) {
			t.Errorf("%q does not say %q", said, part)
		}
	}
	if n := len(slices.DeleteFunc(slices.Clone(v.behind), func(b behind) bool { return !b.gap.Defined() })); n != 1 {
		t.Errorf("%d gaps, want 1: a walk under way is none", n)
	}
}
