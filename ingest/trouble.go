package ingest

import (
	"errors"
	"math/rand/v2"
	"net/http"
	"strings"
	"time"

	"github.com/signpost-index/signpost/ingest/ipnisync"
	"github.com/signpost-index/signpost/ingest/schema"
	"github.com/signpost-index/signpost/store"
)

// kind says whose trouble an error is.
type kind int

const (
	// troubleOurs: the store's, or the session was ended. Nothing is noted.
	troubleOurs kind = iota
	// troubleWay: the publisher could not be reached, or has no time for us.
	troubleWay
	// troubleBlock: the publisher answered, but not with the block. It may stand
	// for long; other ads go on.
	troubleBlock
)

// errOverBudget: a publisher has used what one may use at a time.
var errOverBudget = errors.New("publisher is over its budget")

// kindOf sorts an error of a fetch.
func kindOf(err error) kind {
	var status *ipnisync.StatusError
	switch {
	case isOurs(err), errors.Is(err, store.ErrInvalid):
		return troubleOurs
	case errors.As(err, &status):
		if status.Code == http.StatusTooManyRequests {
			return troubleWay
		}
		return troubleBlock
	case errors.Is(err, errOverBudget), errors.Is(err, ipnisync.ErrNotFound), errors.Is(err, ipnisync.ErrTooLarge),
		errors.Is(err, schema.ErrHashMismatch), errors.Is(err, schema.ErrMalformed),
		errors.Is(err, schema.ErrUnsupported), errors.Is(err, schema.ErrTooLarge):
		return troubleBlock
	}
	return troubleWay
}

// noAnswer begins the reason of a trouble of the way.
const noAnswer = "no answer: "

// worse is the trouble of a thing after another failed try at now. The time
// since when counts anew when the publisher begins to answer.
func worse(t store.Trouble, err error, k kind, now time.Time, first, most time.Duration) store.Trouble {
	reason := err.Error()
	if k == troubleWay {
		reason = noAnswer + reason
	} else if strings.HasPrefix(t.Reason, noAnswer) {
		t = store.Trouble{}
	}
	if t.Attempts == 0 {
		t.Since = now
	}
	delay := first
	for range t.Attempts {
		if delay *= 2; delay >= most {
			delay = most
			break
		}
	}
	t.Attempts++
	t.Next = now.Add(jitter(delay))
	t.Reason = reason
	return t
}

// jitter spreads a delay by a quarter to both sides.
func jitter(d time.Duration) time.Duration {
	return d - d/4 + time.Duration(rand.Int64N(int64(d)/2+1))
}

// hopeless decides whether an ad whose entries do not come is rejected: the
// publisher has answered, and not with them, for so long.
func hopeless(t store.Trouble, k kind, now time.Time, giveUpAfter time.Duration) bool {
	return k == troubleBlock && t.Attempts > 1 && now.Sub(t.Since) >= giveUpAfter
}
