package announce

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"
)

// sendTimeout bounds one send when the caller's context does not
// (announce.md, section 3: the reference's default).
const sendTimeout = time.Minute

// maxAnswerBytes is how much of an answer is read: enough for an error text.
const maxAnswerBytes = 1 << 10

// userAgent names this program to receivers and to gossip peers.
const userAgent = "signpost"

// StatusError is the answer of a receiver that did not take an announce.
type StatusError struct {
	URL  string // where the announce went, without user and password
	Code int    // HTTP status
	Body string // beginning of the answer's text, trimmed
}

func (e *StatusError) Error() string {
	text := fmt.Sprintf("announce to %s: status %d %s", e.URL, e.Code, http.StatusText(e.Code))
	if e.Body == "" {
		return text
	}
	return fmt.Sprintf("%s: %q", text, e.Body)
}

// Is makes errors.Is work as on the receiving side: 403 is [ErrNotAllowed], 503
// is [ErrUnavailable], 400 is [ErrMalformed].
func (e *StatusError) Is(target error) bool {
	switch target {
	case ErrNotAllowed:
		return e.Code == http.StatusForbidden
	case ErrUnavailable:
		return e.Code == http.StatusServiceUnavailable
	case ErrMalformed:
		return e.Code == http.StatusBadRequest
	}
	return false
}

// Sender announces by HTTP. Safe for concurrent use.
type Sender struct {
	hc *http.Client
}

// NewSender returns a sender that uses hc, or if that is nil
// [http.DefaultClient]. The caller's context and hc's own timeout bound a send;
// without either it ends after a minute.
func NewSender(hc *http.Client) *Sender {
	if hc == nil {
		hc = http.DefaultClient
	}
	return &Sender{hc: hc}
}

// Send announces a, in CBOR, to the indexer or assigner at baseURL with PUT
// /announce. Any path baseURL has is replaced by that one, as the reference's
// client does; its query stays. /p2p/<publisher> is added to every address; with
// no address it stands alone. An answer of 200 or 204 is success, any other a
// [StatusError].
func (s *Sender) Send(ctx context.Context, baseURL string, a Announce) error {
	m, err := directMessage(a)
	if err != nil {
		return err
	}
	body, err := m.EncodeCBOR()
	if err != nil {
		return err
	}
	_, err = s.put(ctx, baseURL, "application/octet-stream", body)
	return err
}

// SendProbe is [Sender.Send] that asks the receiver to probe the publisher, and
// returns its verdict, JSON; nil if it took the announce and does not probe.
func (s *Sender) SendProbe(ctx context.Context, baseURL string, a Announce) ([]byte, error) {
	u, err := announceURL(baseURL)
	if err != nil {
		return nil, err
	}
	query := u.Query()
	query.Set("probe", "true")
	u.RawQuery = query.Encode()
	m, err := directMessage(a)
	if err != nil {
		return nil, err
	}
	body, err := m.EncodeCBOR()
	if err != nil {
		return nil, err
	}
	return s.put(ctx, u.String(), "application/octet-stream", body)
}

// SendJSON is [Sender.Send] with a JSON body, which few receivers besides
// storetheindex and this one understand.
func (s *Sender) SendJSON(ctx context.Context, baseURL string, a Announce) error {
	m, err := directMessage(a)
	if err != nil {
		return err
	}
	body, err := m.MarshalJSON()
	if err != nil {
		return err
	}
	_, err = s.put(ctx, baseURL, "application/json", body)
	return err
}

// put returns the body of an answer of 200.
func (s *Sender) put(ctx context.Context, baseURL, contentType string, body []byte) ([]byte, error) {
	u, err := announceURL(baseURL)
	if err != nil {
		return nil, err
	}
	if _, bounded := ctx.Deadline(); !bounded && s.hc.Timeout == 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, sendTimeout)
		defer cancel()
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPut, u.String(), bytes.NewReader(body))
	if err != nil {
		return nil, fmt.Errorf("announce to %s: %w", u.Redacted(), err)
	}
	req.Header.Set("Content-Type", contentType)
	req.Header.Set("User-Agent", userAgent)
	resp, err := s.hc.Do(req)
	if err != nil {
		return nil, fmt.Errorf("announce: %w", err) // names method and URL itself
	}
	defer resp.Body.Close()
	// Read so that the connection can be used again. That the text may be cut
	// short does not matter.
	text, _ := io.ReadAll(io.LimitReader(resp.Body, maxAnswerBytes))
	switch resp.StatusCode {
	case http.StatusOK:
		return text, nil
	case http.StatusNoContent:
		return nil, nil
	}
	u.User = nil
	return nil, &StatusError{URL: u.String(), Code: resp.StatusCode, Body: strings.TrimSpace(string(text))}
}

func announceURL(baseURL string) (*url.URL, error) {
	u, err := url.Parse(baseURL)
	if err != nil {
		return nil, fmt.Errorf("announce: %w", err)
	}
	if u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
		return nil, errors.New("announce: " + u.Redacted() + " is not an http or https URL")
	}
	u.Path, u.RawPath, u.Fragment, u.RawFragment = "/announce", "", "", ""
	return u, nil
}
