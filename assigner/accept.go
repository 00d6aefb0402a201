package assigner

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/signpost-index/signpost/announce"
	"github.com/signpost-index/signpost/api"
)

// takeTimeout is how long the sender of an announce waits for an indexer to take
// it when there is no journal. Senders wait a minute (announce.md, section 3).
const takeTimeout = 4 * time.Second

// AnnounceConfig says what becomes of announces. The zero value keeps them in
// memory and takes those of every publisher.
type AnnounceConfig struct {
	// Journal is the directory where announces are kept until an owner has
	// taken them; it is made if it is not there. Empty: they are kept in memory,
	// and a sender is told yes when an owner has taken his.
	Journal string
	// ForwardGossip has announces that came by HTTP published on gossip.
	ForwardGossip bool
	// ForwardURLs are base URLs that get every announce, besides the pool.
	ForwardURLs []string
	// StandbyFor is the base URL of another assigner: as long as it answers,
	// this one does nothing. Empty: there is none.
	StandbyFor string
}

func (c AnnounceConfig) validate(gossip bool) error {
	if c.ForwardGossip && !gossip {
		return errors.New("assigner: announces cannot be published without gossip")
	}
	seen := make(map[string]bool)
	for _, u := range c.ForwardURLs {
		if _, err := api.ParseBaseURL(u); err != nil {
			return fmt.Errorf("assigner: forward announces: %w", err)
		}
		if seen[u] {
			return fmt.Errorf("assigner: forward announces: %s is given twice", u)
		}
		seen[u] = true
	}
	if c.StandbyFor != "" {
		if _, err := api.ParseBaseURL(c.StandbyFor); err != nil {
			return fmt.Errorf("assigner: stand by: %w", err)
		}
	}
	return nil
}

// Why an announce is not taken: the reason in the metrics and the text of the
// answer, which says what to do.
var (
	errNoRoom      = unavailable("no_room", "too many publishers wait for an indexer: announce again later")
	errJournalFull = unavailable("journal_full", "the assigner's journal is full of announces that no indexer has taken: announce again later; its operator should look at the indexers")
	errNotTaken    = unavailable("not_taken", "no indexer has taken the announce yet: announce again later")
	errPassive     = unavailable("passive", "this assigner stands by for another: announce to that one, or again later")
)

type unavailableError struct {
	reason string
	*announce.UnavailableError
}

func unavailable(reason, text string) *unavailableError {
	return &unavailableError{reason: reason, UnavailableError: &announce.UnavailableError{Text: text, RetryAfter: 30 * time.Second}}
}

func (e *unavailableError) Unwrap() error { return e.UnavailableError }

// openAnnounces opens what AnnounceConfig asks for.
func (a *Assigner) openAnnounces() error {
	cfg := a.cfg.Announces
	if cfg.StandbyFor != "" {
		a.standby = newStandby()
	}
	if cfg.ForwardGossip {
		a.outlets = append(a.outlets, newOutlet("gossip", "gossip", a.log, a.metrics.announceMetrics, a.republish))
	}
	for _, u := range cfg.ForwardURLs {
		a.outlets = append(a.outlets, newOutlet("url", redacted(u), a.log, a.metrics.announceMetrics,
			func(ctx context.Context, an announce.Announce) error { return a.links.send(ctx, u, an) }))
	}
	if cfg.Journal == "" {
		return nil
	}
	j, found, err := openJournal(cfg.Journal, journalBytes, a.log, a.metrics.announceMetrics)
	if err != nil {
		return err
	}
	a.journal = j
	a.pool.useJournal(j, found, a.allowed, time.Now())
	a.pool.notePassive(!a.standby.active())
	if len(found) > 0 {
		a.log.Info("announces found in the journal", "publishers", len(found))
	}
	for _, e := range found {
		if a.allowed(e.Publisher.ID) == nil {
			a.passOn(e.Announce, true)
		}
	}
	return nil
}

// redacted is a base URL without its password, for the log.
func redacted(u string) string {
	base, err := api.ParseBaseURL(u)
	if err != nil {
		return "" // it was validated
	}
	return base.Redacted()
}

// runAnnounces does what goes on in the background until ctx ends.
func (a *Assigner) runAnnounces(ctx context.Context) error {
	var wg sync.WaitGroup
	defer wg.Wait()
	for _, o := range a.outlets {
		for range outletWorkers {
			wg.Go(func() { o.run(ctx, a.standby, a.cfg.CallTimeout) })
		}
	}
	if a.standby != nil {
		a.watchPrimary(ctx)
	}
	return nil
}

func (a *Assigner) allowed(publisher peer.ID) error {
	if !a.intents.Current().Policy.Allows(publisher) {
		return announce.ErrNotAllowed
	}
	return nil
}

// accept takes an announce that came by HTTP. It returns nil when an owner has
// it on disk, or the journal: from then on it will reach an owner, or a newer
// one of the publisher will. The error is [announce.ErrNotAllowed], or matches
// [announce.ErrUnavailable] and says what to do.
func (a *Assigner) accept(ctx context.Context, an announce.Announce) error {
	err := a.acceptNow(ctx, an)
	var un *unavailableError
	if errors.As(err, &un) {
		a.metrics.unavailable.WithLabelValues(un.reason).Inc()
	}
	return err
}

func (a *Assigner) acceptNow(ctx context.Context, an announce.Announce) error {
	if !a.standby.active() {
		a.metrics.received(an.Direct)
		return errPassive
	}
	ad, err := a.admit(an)
	if err != nil || ad.taken {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, takeTimeout)
	defer cancel()
	if ad.batch != nil {
		select {
		case <-ctx.Done():
			return errNotTaken
		case <-ad.batch.done:
			if ad.batch.err == nil {
				return nil
			}
		}
	}
	taken, stop := a.pool.awaitTaken(an.Publisher.ID, ad.seq)
	defer stop()
	select {
	case <-ctx.Done():
		return errNotTaken
	case <-taken:
		return nil
	}
}

// hear takes an announce that came by gossip, of which nobody waits for an
// answer.
func (a *Assigner) hear(_ context.Context, an announce.Announce) error {
	_, err := a.admit(an)
	return err
}

// admit keeps an announce in memory and has it journalled.
func (a *Assigner) admit(an announce.Announce) (admission, error) {
	a.metrics.received(an.Direct)
	if err := a.allowed(an.Publisher.ID); err != nil {
		a.metrics.refused.Inc()
		a.log.Debug("announce refused", "publisher", an.Publisher.ID, "err", err)
		return admission{}, announce.ErrNotAllowed
	}
	an = trim(an)
	now := time.Now()
	var payload []byte
	if a.journal != nil {
		var err error
		if payload, err = encodePut(an, now); err != nil {
			return admission{}, err
		}
	}
	ad, err := a.pool.keep(an, an.Key(), payload, now)
	if err != nil {
		return ad, err
	}
	if !ad.fresh {
		a.metrics.duplicates.Inc()
		return ad, nil
	}
	a.passOn(an, ad.known)
	a.log.Debug("announce accepted", "publisher", an.Publisher.ID, "head", an.Head, "direct", an.Direct)
	return ad, nil
}

// passOn offers an announce to those outside the pool. What gossip brought is on
// gossip already; what a passive assigner hears the other one passes on.
func (a *Assigner) passOn(an announce.Announce, known bool) {
	for _, o := range a.outlets {
		if o.way != "gossip" || an.Direct {
			o.offer(an, known, time.Now())
		}
	}
}

func (a *Assigner) republish(ctx context.Context, an announce.Announce) error {
	return a.cfg.Gossip.Republish(ctx, an)
}

// healthText is the answer of GET /health.
func (a *Assigner) healthText() string {
	if a.standby.active() {
		return "assigner ready"
	}
	return "assigner standing by"
}

// askHealth returns a function that asks whether an assigner answers.
func askHealth(hc *http.Client) func(ctx context.Context, baseURL string) error {
	return func(ctx context.Context, baseURL string) error {
		u, err := api.ParseBaseURL(baseURL)
		if err != nil {
			return err
		}
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.JoinPath("health").String(), nil)
		if err != nil {
			return err
		}
		resp, err := hc.Do(req)
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		if resp.StatusCode != http.StatusOK {
			return api.ReadStatusError(resp)
		}
		_, err = api.ReadBody(resp.Body, 1<<10)
		return err
	}
}
