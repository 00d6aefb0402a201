package api

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"unicode"
	"unicode/utf8"
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
	e.Body = PlainText(string(body), 0)
	return e
}

// PlainText is text from elsewhere as it may be shown on a terminal or in a
// log: one line, in which what does not print, such as control characters and
// those that turn the direction of writing, is a space. It is cut to limit
// characters, with an ellipsis as the last; 0 is no limit.
func PlainText(s string, limit int) string {
	s = strings.TrimSpace(strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) || r == unicode.ReplacementChar {
			return ' '
		}
		return r
	}, s))
	if limit > 0 && utf8.RuneCountInString(s) > limit {
		s = string([]rune(s)[:limit-1]) + "…"
	}
	return s
}
