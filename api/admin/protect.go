package admin

import (
	"net/http"

	"github.com/signpost-index/signpost/api"
)

// Protect lets requests to h pass as the admin API does: with a token, those
// that carry it; without one, all if insecure, else those [api.GuardLocal] lets
// in, which is right for a loopback listener only ([CheckListen]). Bodies are
// limited to 1 MiB.
func Protect(h http.Handler, token string, insecure bool) http.Handler {
	return guard(http.MaxBytesHandler(h, maxRequestBody), token, insecure)
}

// guard lets requests pass as Protect does.
func guard(h http.Handler, token string, insecure bool) http.Handler {
	switch {
	case token != "":
		return requireToken(token, h)
	case insecure:
		return h
	default:
		return api.GuardLocal(h)
	}
}

// WriteError answers with err as the admin API does: status, kind and text of
// the sentinel it matches, and else 500 without text, as that is for the log. It
// reports whether err had a kind.
func WriteError(w http.ResponseWriter, err error) (known bool) { return writeError(w, err) }

// ReadError makes the error for an answer that is no success: it matches the
// sentinel the answer names, and an *api.StatusError.
func ReadError(resp *http.Response) error { return readError(resp) }
