// Package health says what is wrong with a daemon in words that stay: codes with
// a severity and a remedy each, looked at while it runs, served as JSON and as a
// metric.
//
//	checks of a role ──► Board ──► GET /signpost/v1/health
//	                       │  └──► signpost_health_condition{code, severity}
//	                       └─────► log, when one begins and when it ends
//
// What a condition is belongs to the role that looks; what its code means, and
// what to do, to the table here and to doc/operations.md. A role lists only what
// it looks at.
package health

import (
	"context"
	"log/slog"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/signpost-index/signpost/api"
)

// Path is where a daemon serves its Report: at the admin listener, and a frontend
// at --listen-metrics.
const Path = "/signpost/v1/health"

const (
	// lookEvery is how often a Board looks by itself, for the log.
	lookEvery = 5 * time.Second
	// freshFor is how old what is served may be.
	freshFor = time.Second
)

// Check looks at one condition. Look returns what there is to say of it in words,
// such as which publisher; empty means that all is well. It does no I/O and is
// not called twice at once.
type Check struct {
	Code Code
	Look func(now time.Time) string
}

// Condition is what is so now.
type Condition struct {
	Code     Code
	Severity Severity
	Since    time.Time // when it was first seen
	Detail   string    // of now
	Meaning  string
	Remedy   string
}

// Report is the answer of GET Path. Conditions are the worst first.
type Report struct {
	Severity   Severity `json:",omitempty"` // of the worst; empty: there are none
	Conditions []Condition
}

// Config is what a Board is made of. Logger and Registerer may be nil.
type Config struct {
	Checks     []Check
	Logger     *slog.Logger
	Registerer prometheus.Registerer
}

// Board keeps what is so. It is safe for concurrent use.
type Board struct {
	checks []Check
	log    *slog.Logger
	now    func() time.Time

	mu      sync.Mutex // guards what is below, and Look is called under it
	looked  time.Time
	present map[Code]Condition
}

// New returns a Board. It panics if a check has a code that is not defined, or one
// that another has.
func New(cfg Config) *Board {
	b := &Board{checks: cfg.Checks, log: cfg.Logger, now: time.Now, present: make(map[Code]Condition)}
	if b.log == nil {
		b.log = slog.New(slog.DiscardHandler)
	}
	seen := make(map[Code]bool)
	for _, c := range b.checks {
		if _, ok := Of(c.Code); !ok || seen[c.Code] {
			panic("health: code " + c.Code + " is not defined, or checked twice")
		}
		seen[c.Code] = true
	}
	if cfg.Registerer != nil {
		cfg.Registerer.MustRegister(b)
	}
	return b
}

// Run looks again and again until ctx ends, so that the log tells what begins and
// ends when nobody asks.
func (b *Board) Run(ctx context.Context) error {
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	for {
		b.Report()
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// Report says what is so now, or was a second ago.
func (b *Board) Report() Report {
	b.mu.Lock()
	defer b.mu.Unlock()
	if now := b.now(); b.looked.IsZero() || now.Sub(b.looked) >= freshFor {
		b.look(now)
	}
	r := Report{Conditions: make([]Condition, 0, len(b.present))}
	for _, c := range b.present {
		r.Conditions = append(r.Conditions, c)
	}
	slices.SortFunc(r.Conditions, worseFirst)
	if len(r.Conditions) > 0 {
		r.Severity = r.Conditions[0].Severity
	}
	return r
}

func worseFirst(x, y Condition) int {
	if d := y.Severity.rank() - x.Severity.rank(); d != 0 {
		return d
	}
	at := func(c Condition) int {
		return slices.IndexFunc(definitions, func(d Definition) bool { return d.Code == c.Code })
	}
	return at(x) - at(y)
}

// look calls the checks. The caller holds mu.
func (b *Board) look(now time.Time) {
	b.looked = now
	for _, check := range b.checks {
		detail := check.Look(now)
		c, was := b.present[check.Code]
		switch {
		case detail != "" && !was:
			d, _ := Of(check.Code)
			c = Condition{Code: d.Code, Severity: d.Severity, Since: now.UTC().Truncate(time.Second), Meaning: d.Meaning, Remedy: d.Remedy}
			b.log.Log(context.Background(), level(d.Severity), "condition begins", "code", d.Code, "severity", d.Severity, "detail", detail, "remedy", d.Remedy)
		case detail == "" && was:
			delete(b.present, check.Code)
			b.log.Info("condition is over", "code", check.Code, "elapsed", now.Sub(c.Since).Round(time.Second))
			continue
		case detail == "":
			continue
		}
		c.Detail = detail
		b.present[check.Code] = c
	}
}

func level(s Severity) slog.Level {
	switch s {
	case Critical:
		return slog.LevelError
	case Warning:
		return slog.LevelWarn
	}
	return slog.LevelInfo
}

// ServeHTTP serves the Report at Path.
func (b *Board) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if !api.Method(w, r, http.MethodGet) {
		return
	}
	w.Header().Set("Cache-Control", "no-store")
	api.JSON(w, http.StatusOK, b.Report())
}

// Beside serves the Board at Path and h at every other path.
func (b *Board) Beside(h http.Handler) http.Handler {
	mux := http.NewServeMux()
	mux.Handle(Path, b)
	mux.Handle("/", h)
	return mux
}
