package api

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"unicode"
)

// maxStatusBody is how much of an unwanted answer's body is kept: enough for a
// sentence, too little to fill a log.
const maxStatusBody = 1 << 10

// StatusError is what our clients return for an answer whose status is not a
// success: the request's URL, the status, and the start of the body as text
// without control characters.
type StatusError struct {
	URL    string
	Status int
	Body   string
}

// Error says URL, status and body in one line.
func (e *StatusError) Error() string {
	text := fmt.Sprintf("%s: %d %s", e.URL, e.Status, http.StatusText(e.Status))
	if e.Body != "" {
		text += ": " + e.Body
	}
	return text
}

// ReadStatusError makes the error for resp. It reads up to 1 KiB of the body
// and leaves closing it to the caller.
func ReadStatusError(resp *http.Response) *StatusError {
	e := &StatusError{Status: resp.StatusCode}
	if resp.Request != nil {
		e.URL = resp.Request.URL.Redacted()
	}
	body, _ := io.ReadAll(io.LimitReader(resp.Body, maxStatusBody))
	e.Body = strings.TrimSpace(strings.Map(func(r rune) rune {
		if unicode.IsControl(r) || r == unicode.ReplacementChar {
			return ' '
		}
		return r
	}, string(body)))
	return e
}
