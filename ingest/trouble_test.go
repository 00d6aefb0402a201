package ingest

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"testing"
	"time"

	"github.com/signpost-index/signpost/ingest/ipnisync"
	"github.com/signpost-index/signpost/ingest/schema"
	"github.com/signpost-index/signpost/store"
)

func TestTroubleIsSortedByWhoseItIs(t *testing.T) {
	status := func(code int) error { return fmt.Errorf("fetch: %w", &ipnisync.StatusError{Code: code}) }
	for _, c := range []struct {
		name string
		err  error
		want kind
	}{
		{"block not there", status(http.StatusNotFound), troubleBlock},
		{"server fails on it", status(http.StatusInternalServerError), troubleBlock},
		{"server unavailable", status(http.StatusServiceUnavailable), troubleBlock},
		{"forbidden", status(http.StatusForbidden), troubleBlock},
		{"told to slow down", status(http.StatusTooManyRequests), troubleWay},
		{"wrong bytes", fmt.Errorf("ad: %w", schema.ErrHashMismatch), troubleBlock},
		{"undecodable", fmt.Errorf("ad: %w", schema.ErrMalformed), troubleBlock},
		{"too large", ipnisync.ErrTooLarge, troubleBlock},
		{"refused", errors.New("connection refused"), troubleWay},
		{"timed out", context.DeadlineExceeded, troubleWay},
		{"ended by the other side", context.Canceled, troubleWay}, // an end of ours is seen before
		{"disk full", store.ErrNoSpace, troubleOurs},
		{"disk failed", store.ErrFailed, troubleOurs},
	} {
		if got := kindOf(c.err); got != c.want {
			t.Errorf("%s: kind %d, want %d", c.name, got, c.want)
		}
	}
}

func TestTroubleBacksOffAndCountsSinceThePublisherAnswers(t *testing.T) {
	now := time.Unix(1_700_000_000, 0)
	var tr store.Trouble
	last := time.Duration(0)
	for n := range 12 {
		tr = worse(tr, errors.New("refused"), troubleWay, now, time.Minute, time.Hour)
		wait := tr.Next.Sub(now)
		if wait < last/2 || wait > 75*time.Minute || int(tr.Attempts) != n+1 {
			t.Fatalf("attempt %d: waits %v after %v", tr.Attempts, wait, last)
		}
		last = wait
		now = tr.Next
	}
	if last < 45*time.Minute {
		t.Errorf("the last wait is %v, want about an hour", last)
	}
	if hopeless(tr, troubleWay, now.Add(24*time.Hour), 6*time.Hour) {
		t.Error("an ad was given up though its publisher never answered")
	}
	missing := &ipnisync.StatusError{Code: http.StatusNotFound}
	if hopeless(worse(tr, missing, troubleBlock, now, time.Minute, time.Hour), troubleBlock, now, 6*time.Hour) {
		t.Error("an ad was given up at the first answer after a long silence")
	}
	tr = worse(tr, missing, troubleBlock, now, time.Minute, time.Hour)
	if tr.Attempts != 1 || !tr.Since.Equal(now) {
		t.Errorf("trouble %+v, want it to begin anew with the first answer", tr)
	}
	tr = worse(tr, missing, troubleBlock, now.Add(time.Hour), time.Minute, time.Hour)
	if hopeless(tr, troubleBlock, now.Add(6*time.Hour-time.Second), 6*time.Hour) || !hopeless(tr, troubleBlock, now.Add(6*time.Hour), 6*time.Hour) {
		t.Error("want an ad given up 6 h after the publisher first did not have it")
	}
}
