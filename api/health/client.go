package health

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"

	"github.com/signpost-index/signpost/api"
)

// maxReport bounds an answer.
const maxReport = 1 << 20

// Ask asks the daemon at baseURL for its Report. token is sent if it is not empty.
// An answer that is no success is an *api.StatusError.
func Ask(ctx context.Context, hc *http.Client, baseURL, token string) (r Report, err error) {
	base, err := api.ParseBaseURL(baseURL)
	if err != nil {
		return r, err
	}
	u := base.JoinPath(Path)
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return r, err
	}
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	resp, err := hc.Do(req)
	if err != nil {
		return r, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return r, api.ReadStatusError(resp)
	}
	b, err := api.ReadBody(resp.Body, maxReport)
	if err != nil {
		return r, fmt.Errorf("%s: %w", u.Redacted(), err)
	}
	if err := json.Unmarshal(b, &r); err != nil {
		return r, fmt.Errorf("answer of %s: %w", u.Redacted(), err)
	}
	return r, nil
}

// String is a Condition in one line.
func (c Condition) String() string {
	return strings.TrimSpace(fmt.Sprintf("%s (%s): %s", c.Code, c.Severity, c.Detail))
}
