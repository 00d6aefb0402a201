package admin

import "net/http"

// WriteError answers with err as the admin API does: status, kind and text of
// the sentinel it matches, and else 500 without text, as that is for the log. It
// reports whether err had a kind.
func WriteError(w http.ResponseWriter, err error) (known bool) { return writeError(w, err) }

// ReadError makes the error for an answer that is no success: it matches the
// sentinel the answer names, and an *api.StatusError.
func ReadError(resp *http.Response) error { return readError(resp) }
