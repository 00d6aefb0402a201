package assigner

import (
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/signpost-index/signpost/api"
	"github.com/signpost-index/signpost/api/admin"
	"github.com/signpost-index/signpost/api/health"
	"github.com/signpost-index/signpost/api/openapi"
	"github.com/signpost-index/signpost/assigner/page"
)

// Paths of the operator's API, served at the admin listener only.
const (
	IntentsPath     = "/signpost/v1/intents"
	EventsPath      = "/signpost/v1/events"
	membersPath     = PoolPath + "/members"
	drainPath       = PoolPath + "/drain"
	freezePath      = PoolPath + "/freeze"
	unfreezePath    = PoolPath + "/unfreeze"
	replicationPath = PoolPath + "/replication"
	pinPath         = PoolPath + "/pin"
	policyPath      = PoolPath + "/policy"
	rebalancePath   = PoolPath + "/rebalance"
)

const (
	// memberTimeout bounds a call to one indexer for an operator.
	memberTimeout = 20 * time.Second
	// maxEventsPage bounds one answer.
	maxEventsPage = maxEvents
)

// allPublishers stands for every publisher in a policy request.
const allPublishers = "all"

// notKept is the note on a wish without a file.
const notKept = "not kept: no --intents file"

// Done is the answer to an action.
type Done struct {
	Text   string // what is so now, or would be
	DryRun bool   `json:",omitzero"`
	// Note is what to know besides, such as that the wish ends with the process.
	Note string `json:",omitempty"`
}

// IntentsPage is the answer of GET /signpost/v1/intents.
type IntentsPage struct {
	Kept    bool // in a file
	Intents Intents
}

// operatorHandler serves the operator's API, and the read-only pages.
func (a *Assigner) operatorHandler() http.Handler {
	mux := http.NewServeMux()
	reading := a.handler()
	mux.Handle(PoolPath, reading)
	mux.Handle(AssignmentsPath, reading)
	mux.Handle(admin.CoveragePath, reading)
	mux.Handle("/health", reading)
	mux.Handle(openapi.Path, reading)
	mux.Handle(health.Path, a.board)
	get := func(path string, f func(r *http.Request) (any, error)) {
		mux.HandleFunc(path, a.answer(map[string]func(*http.Request) (any, error){http.MethodGet: f}))
	}
	get(IntentsPath, func(*http.Request) (any, error) {
		return IntentsPage{Kept: a.intents.Kept(), Intents: a.intents.Current()}, nil
	})
	get(EventsPath, a.askEvents)
	get(planPath, a.askPlan)
	get(explainPath, a.askExplain)
	put := func(path string, f func(*request) (Done, error)) {
		mux.HandleFunc(path, a.answer(map[string]func(*http.Request) (any, error){http.MethodPut: a.action(f)}))
	}
	mux.HandleFunc(membersPath, a.answer(map[string]func(*http.Request) (any, error){
		http.MethodPost: a.action(a.addMember), http.MethodDelete: a.action(a.removeMember)}))
	mux.HandleFunc(drainPath, a.answer(map[string]func(*http.Request) (any, error){
		http.MethodPut: a.action(a.drain), http.MethodDelete: a.action(a.undrain)}))
	mux.HandleFunc(tasksPath, a.answer(map[string]func(*http.Request) (any, error){
		http.MethodGet: a.askTasks, http.MethodPost: a.action(a.beginTask), http.MethodPut: a.action(a.changeTask)}))
	put(freezePath, a.freeze)
	put(cleanPath, a.clean)
	put(unfreezePath, a.unfreeze)
	put(replicationPath, a.setReplication)
	put(pinPath, a.pin)
	put(policyPath, a.setPolicy)
	put(rebalancePath, a.setRebalance)
	full, looking := a.pages.handler(page.Operate), a.pages.handler(page.ReadOnly)
	mux.HandleFunc("/{$}", func(w http.ResponseWriter, r *http.Request) {
		if admin.RightOf(r) == admin.MayLook {
			looking.ServeHTTP(w, r)
			return
		}
		full.ServeHTTP(w, r)
	})
	access := a.cfg.Operating.Access
	protected := admin.Protect(mux, access)
	if access.Token == "" && access.Callers == nil {
		return protected
	}
	// Who shows nothing sees the page, and is asked for a token there.
	asking := a.pages.handler(page.AskToken)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		shows := r.Header.Get("Authorization") != "" || r.TLS != nil && len(r.TLS.VerifiedChains) > 0
		if r.URL.Path == "/" && !shows {
			asking.ServeHTTP(w, r)
			return
		}
		protected.ServeHTTP(w, r)
	})
}

// answer serves what the method's function returns as JSON, or its error.
func (a *Assigner) answer(methods map[string]func(*http.Request) (any, error)) http.HandlerFunc {
	var allowed []string
	for m := range methods {
		allowed = append(allowed, m)
	}
	slices.Sort(allowed)
	return func(w http.ResponseWriter, r *http.Request) {
		if !api.Method(w, r, allowed...) {
			return
		}
		w.Header().Set("Cache-Control", "no-store")
		v, err := methods[r.Method](r)
		if err == nil {
			api.JSON(w, http.StatusOK, v)
			return
		}
		if !admin.WriteError(w, err) && r.Context().Err() == nil {
			a.log.Error("operator's request failed", "method", r.Method, "path", r.URL.Path, "err", err)
		}
	}
}

// request is an action that was asked for, with what its event will say.
type request struct {
	*http.Request
	event Event
	wish  bool // it changes intents
}

func (r *request) value(key string) string { return r.URL.Query().Get(key) }

// why is when, why and by whom.
func (r *request) why() Wish {
	return Wish{Since: time.Now(), By: r.value("by"), Reason: r.value("reason")}.plain()
}

// publisher reads the publisher the request is about.
func (r *request) publisher() (peer.ID, error) {
	id, err := decodePeer(r.value("publisher"))
	if err != nil {
		return "", fmt.Errorf("%w: publisher: %w", admin.ErrBadRequest, err)
	}
	r.event.Publisher = id
	return id, nil
}

// dryRun reads whether nothing is to be done.
func (r *request) dryRun() (bool, error) {
	text := r.value("dry-run")
	if text == "" {
		return false, nil
	}
	dry, err := strconv.ParseBool(text)
	if err != nil {
		return false, fmt.Errorf("%w: dry-run=%q: want true or false", admin.ErrBadRequest, text)
	}
	return dry, nil
}

// action runs f, and keeps and logs that it was asked for and what came of it.
func (a *Assigner) action(f func(*request) (Done, error)) func(*http.Request) (any, error) {
	return func(hr *http.Request) (any, error) {
		r := &request{Request: hr, event: Event{Kind: EventOperator}}
		done, err := f(r)
		if done.DryRun {
			return done, err
		}
		e := r.event
		e.Text = done.Text
		if err != nil {
			e.Text, e.Error = hr.Method+" "+strings.TrimPrefix(hr.URL.Path, PoolPath+"/"), err.Error()
		}
		if why := r.why(); why.By != "" || why.Reason != "" {
			e.Text += " (" + strings.TrimLeft(why.By+": "+why.Reason, ": ") + ")"
		}
		a.events.add(e)
		a.log.Info("operator's request", "what", e.Text, "publisher", e.Publisher, "indexer", e.Indexer, "err", err)
		if r.wish && !a.intents.Kept() {
			done.Note = strings.TrimLeft(done.Note+"; "+notKept, "; ")
		}
		return done, err
	}
}

// want changes the intents for r.
func (a *Assigner) want(r *request, f func(Intents) (Intents, error)) error {
	r.wish = true
	return a.intents.Change(f)
}

// member is the member of the pool that indexer, a peer ID or an admin URL, names.
func (a *Assigner) member(indexer string) (foundMember, error) {
	if indexer == "" {
		return foundMember{}, fmt.Errorf("%w: no indexer: give its peer ID or admin URL", admin.ErrBadRequest)
	}
	id, err := decodePeer(indexer)
	if err != nil {
		id = ""
	}
	m, ok := a.pool.find(strings.TrimRight(indexer, "/"), id)
	if !ok {
		return m, fmt.Errorf("%w: no indexer %.200q in the pool: give the peer ID or admin URL of one that signpost pool list shows", admin.ErrNotFound, indexer)
	}
	return m, nil
}

// knownMember is member, which has to have been read once, as it is known by ID.
func (a *Assigner) knownMember(indexer string) (foundMember, error) {
	m, err := a.member(indexer)
	if err == nil && m.id == "" {
		err = fmt.Errorf("%w: the indexer at %s was never read, and who it is is not known: try again when it is up", admin.ErrUnavailable, m.member.Admin)
	}
	return m, err
}

func (a *Assigner) askEvents(r *http.Request) (any, error) {
	q := EventQuery{Limit: maxEventsPage}
	values := r.URL.Query()
	var errs []error
	if text := values.Get("since"); text != "" {
		var err error
		q.Since, err = strconv.ParseUint(text, 10, 64)
		errs = append(errs, err)
	}
	if text := values.Get("limit"); text != "" {
		n, err := strconv.ParseUint(text, 10, 31)
		errs = append(errs, err)
		if n > 0 {
			q.Limit = min(q.Limit, int(n))
		}
	}
	for key, to := range map[string]*peer.ID{"publisher": &q.Publisher, "indexer": &q.Indexer} {
		if text := values.Get(key); text != "" {
			var err error
			*to, err = decodePeer(text)
			errs = append(errs, err)
		}
	}
	if err := errors.Join(errs...); err != nil {
		return nil, fmt.Errorf("%w: %w", admin.ErrBadRequest, err)
	}
	return a.events.page(q), nil
}
