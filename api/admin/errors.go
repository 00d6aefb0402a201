package admin

import (
	"context"
	"errors"
	"net/http"
	"strings"

	"github.com/signpost-index/signpost/api"
)

// HeaderError is the header of an error answer that names its kind.
const HeaderError = "X-Signpost-Error"

// The kinds of errors, with the texts of the reference where it has one.
var (
	// ErrNotAssigner: the indexer chooses its publishers itself.
	ErrNotAssigner = errors.New("not configured to work with assigner service")
	// ErrAlreadyAssigned: the indexer follows the publisher already.
	ErrAlreadyAssigned = errors.New("publisher already assigned to this indexer")
	// ErrNotAssigned: the indexer does not follow the publisher.
	ErrNotAssigned = errors.New("peer was not assigned")
	// ErrNotAllowed: the indexer's policy refuses the publisher or provider.
	ErrNotAllowed = errors.New("publisher not allowed by policy")
	// ErrFrozen: the indexer is frozen and takes no assignments.
	ErrFrozen = errors.New("indexer is frozen")
	// ErrFreezeDisabled: the indexer is configured never to freeze.
	ErrFreezeDisabled = errors.New("freezing disabled")
	// ErrDiskFull: the indexer cannot be unfrozen, as its disk is above the limit.
	ErrDiskFull = errors.New("disk is above the limit")
	// ErrHeld: the indexer has promised to stay frozen for a while (Node.Hold).
	ErrHeld = errors.New("the indexer is held")
	// ErrSyncRunning: a manual sync of the publisher is running.
	ErrSyncRunning = errors.New("sync in progress")
	// ErrBusy: something else on the store has to end first.
	ErrBusy = errors.New("the store is busy")
	// ErrNotFound: what the request is about is unknown.
	ErrNotFound = errors.New("not found")
	// ErrBadRequest: the request makes no sense to the indexer.
	ErrBadRequest = errors.New("bad request")
	// ErrUnavailable: the indexer, or one it needs for the answer, could not
	// be asked; what was to be done may or may not have been done.
	ErrUnavailable = errors.New("unavailable")
	// ErrNotSupported: the indexer does not do such a thing.
	ErrNotSupported = errors.New("not supported")
	// ErrRefused: it would do harm; the text says what, and what to do first.
	ErrRefused = errors.New("refused")
	// ErrUnauthorized: the token is missing or wrong.
	ErrUnauthorized = errors.New("token missing or wrong: the server wants the token of its --admin-token-file")
	// ErrForbidden: the caller may look, and this is for operators.
	ErrForbidden = errors.New("viewers may look only: this takes an operator's token or certificate")
)

// kinds is the one table of how errors cross the wire. Order matters only to
// errors that match several.
var kinds = []struct {
	err    error
	name   string // in HeaderError
	status int
}{
	{ErrNotAssigner, "not-assigner", http.StatusServiceUnavailable},
	{ErrAlreadyAssigned, "already-assigned", http.StatusBadRequest},
	{ErrNotAssigned, "not-assigned", http.StatusNotFound},
	{ErrNotAllowed, "not-allowed", http.StatusForbidden},
	{ErrFrozen, "frozen", http.StatusConflict},
	{ErrFreezeDisabled, "freeze-disabled", http.StatusBadRequest},
	{ErrDiskFull, "disk-full", http.StatusConflict},
	{ErrHeld, "held", http.StatusConflict},
	{ErrSyncRunning, "sync-running", http.StatusConflict},
	{ErrBusy, "busy", http.StatusConflict},
	{ErrNotFound, "not-found", http.StatusNotFound},
	{ErrBadRequest, "bad-request", http.StatusBadRequest},
	{ErrUnavailable, "unavailable", http.StatusBadGateway},
	{ErrNotSupported, "not-supported", http.StatusNotImplemented},
	{ErrRefused, "refused", http.StatusConflict},
	{ErrUnauthorized, "unauthorized", http.StatusUnauthorized},
	{ErrForbidden, "forbidden", http.StatusForbidden},
}

// writeError sends err as status, kind and text. An error of no kind is a 500
// without text, as its text is for this node's log.
func writeError(w http.ResponseWriter, err error) (known bool) {
	for _, k := range kinds {
		if errors.Is(err, k.err) {
			w.Header().Set(HeaderError, k.name)
			api.Error(w, k.status, oneLine(err.Error()))
			return true
		}
	}
	if errors.Is(err, context.DeadlineExceeded) {
		w.Header().Set(HeaderError, "unavailable")
		api.Error(w, http.StatusGatewayTimeout, "timed out")
		return true
	}
	api.Error(w, http.StatusInternalServerError, "")
	return false
}

// remoteError is an error that came over the wire: the kind it has there, and
// the answer.
type remoteError struct {
	kind   error // may be nil
	status *api.StatusError
	named  bool // the answer names its kind, so it is from one of ours
}

func (e *remoteError) Error() string { return e.status.Error() }

func (e *remoteError) Unwrap() []error {
	if e.kind == nil {
		return []error{e.status}
	}
	return []error{e.kind, e.status}
}

// readError makes the error for an answer that is no success.
func readError(resp *http.Response) error {
	status := api.ReadStatusError(resp)
	name := resp.Header.Get(HeaderError)
	return &remoteError{kind: kindOf(status, name), status: status, named: name != ""}
}

// kindOf is the kind of an answer: what it says itself, or, from a reference
// indexer, what its status and text mean. Nil if that is nothing known.
func kindOf(status *api.StatusError, name string) error {
	for _, k := range kinds {
		if k.name == name {
			return k.err
		}
	}
	for _, k := range kinds {
		if k.status == status.Status && strings.Contains(status.Body, k.err.Error()) {
			return k.err
		}
	}
	switch status.Status {
	case http.StatusBadRequest:
		return ErrBadRequest
	case http.StatusUnauthorized:
		return ErrUnauthorized
	case http.StatusForbidden:
		return ErrNotAllowed
	case http.StatusNotFound:
		return ErrNotFound
	case http.StatusConflict:
		return ErrSyncRunning // the reference has no other use for it
	case http.StatusNotImplemented:
		return ErrNotSupported
	case http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
		return ErrUnavailable
	}
	return nil
}

// oneLine keeps a text from breaking out of its line.
func oneLine(s string) string {
	return strings.Join(strings.Fields(s), " ")
}
