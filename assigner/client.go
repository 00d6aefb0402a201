package assigner

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	neturl "net/url"
	"strconv"
	"strings"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/signpost-index/signpost/api"
	"github.com/signpost-index/signpost/api/admin"
)

// maxAnswer bounds an answer of an assigner: assignments take about 200 bytes
// each.
const maxAnswer = 64 << 20

// Client asks an assigner's admin listener, as an operator does. It is safe for
// concurrent use. Its errors match the sentinels of package admin; an answer that
// is no success is an *api.StatusError as well. Indexers are named by peer ID or
// admin URL.
type Client struct {
	base  *neturl.URL
	http  *http.Client
	token string
}

// NewClient returns a client of the admin listener at baseURL, for example
// "http://127.0.0.1:3004". With hc nil it gets a connection pool of its own. token
// is sent if it is not empty.
func NewClient(baseURL string, hc *http.Client, token string) (*Client, error) {
	base, err := api.ParseBaseURL(baseURL)
	if err != nil {
		return nil, err
	}
	if hc == nil {
		hc = api.NewHTTPClient()
	}
	return &Client{base: base, http: hc, token: token}, nil
}

// String is the base URL, without a password.
func (c *Client) String() string { return c.base.Redacted() }

// Pool asks who is in the pool.
func (c *Client) Pool(ctx context.Context) (p PoolPage, err error) {
	err = c.call(ctx, http.MethodGet, PoolPath, nil, "", &p)
	return p, err
}

// Assignments asks who has whom.
func (c *Client) Assignments(ctx context.Context) (rows []Placement, err error) {
	err = c.call(ctx, http.MethodGet, AssignmentsPath, nil, "", &rows)
	return rows, err
}

// Intents asks for the operator's wishes.
func (c *Client) Intents(ctx context.Context) (p IntentsPage, err error) {
	err = c.call(ctx, http.MethodGet, IntentsPath, nil, "", &p)
	return p, err
}

// Events asks what happened.
func (c *Client) Events(ctx context.Context, q EventQuery) (p EventPage, err error) {
	values := neturl.Values{}
	setValue(values, "publisher", peerText(q.Publisher))
	setValue(values, "indexer", peerText(q.Indexer))
	if q.Since > 0 {
		values.Set("since", strconv.FormatUint(q.Since, 10))
	}
	if q.Limit > 0 {
		values.Set("limit", strconv.Itoa(q.Limit))
	}
	err = c.call(ctx, http.MethodGet, EventsPath, values, "", &p)
	return p, err
}

// Plan asks what would be done now.
func (c *Client) Plan(ctx context.Context) (p PlanPage, err error) {
	err = c.call(ctx, http.MethodGet, planPath, nil, "", &p)
	return p, err
}

// Explain asks where a publisher is and why. ErrNotFound if it is nowhere.
func (c *Client) Explain(ctx context.Context, publisher peer.ID) (x Explanation, err error) {
	err = c.call(ctx, http.MethodGet, explainPath, neturl.Values{"publisher": {publisher.String()}}, "", &x)
	return x, err
}

// Clean has what holders keep in surplus freed; with dryRun it only says what
// that is.
func (c *Client) Clean(ctx context.Context, dryRun bool, w Wish) (Done, error) {
	values := neturl.Values{}
	if dryRun {
		values.Set("dry-run", "true")
	}
	return c.do(ctx, http.MethodPut, cleanPath, w, values, "")
}

// Add adds a line to the pool.
func (c *Client) Add(ctx context.Context, l admin.PoolLine, w Wish) (Done, error) {
	return c.do(ctx, http.MethodPost, membersPath, w, neturl.Values{}, l.String())
}

// Remove takes an indexer out of the pool, or the members of a name that was
// added; with dryRun it only says whether that would be done. ErrRefused if it
// would do harm.
func (c *Client) Remove(ctx context.Context, indexer string, dryRun bool, w Wish) (Done, error) {
	values := neturl.Values{"indexer": {indexer}}
	if dryRun {
		values.Set("dry-run", "true")
	}
	return c.do(ctx, http.MethodDelete, membersPath, w, values, "")
}

// Tasks asks for what takes long and is under way, and for upgrades and re-indexes
// that were.
func (c *Client) Tasks(ctx context.Context) (p TasksPage, err error) {
	err = c.call(ctx, http.MethodGet, tasksPath, nil, "", &p)
	return p, err
}

// Upgrade begins an upgrade of some indexers, or of all. ErrRefused if one is under
// way.
func (c *Client) Upgrade(ctx context.Context, s UpgradeSettings, indexers []string, w Wish) (Done, error) {
	return c.do(ctx, http.MethodPost, tasksPath, w, neturl.Values{
		"max-down": {s.MaxDown}, "min-copies": {strconv.Itoa(s.MinCopies)}, "down-for": {s.DownFor.String()},
		"back-within": {s.BackWithin.String()}, "exec": {strconv.FormatBool(s.Exec)}, "indexer": {strings.Join(indexers, ",")},
	}, "")
}

// Reindex begins a re-index of some indexers, or of those that say that they have
// lost postings. ErrRefused if a task is under way.
func (c *Client) Reindex(ctx context.Context, s ReindexSettings, indexers []string, w Wish) (Done, error) {
	return c.do(ctx, http.MethodPost, tasksPath, w, neturl.Values{
		"kind": {string(TaskReindex)}, "back-within": {s.BackWithin.String()}, "mark-whole": {strconv.FormatBool(s.MarkWhole)},
		"indexer": {strings.Join(indexers, ",")},
	}, "")
}

// ChangeTask has a task "pause", "resume" or "end", or a step of it "retry" or
// "skip", the current one if indexer is empty.
func (c *Client) ChangeTask(ctx context.Context, id, do, indexer string, w Wish) (Done, error) {
	return c.do(ctx, http.MethodPut, tasksPath, w, neturl.Values{"id": {id}, "do": {do}, "indexer": {indexer}}, "")
}

// Command tells what becomes of the command for an indexer: CommandBegun, before it
// is, or CommandFailed, with why. ErrRefused if the indexer must not be restarted
// now.
func (c *Client) Command(ctx context.Context, id, indexer, result, text string) error {
	_, err := c.do(ctx, http.MethodPut, tasksPath, Wish{}, neturl.Values{"id": {id}, "do": {"command"}, "indexer": {indexer}, "result": {result}, "text": {text}}, "")
	return err
}

// Drain has an indexer's publishers go to others, and Undrain ends that.
func (c *Client) Drain(ctx context.Context, indexer string, w Wish) (Done, error) {
	return c.do(ctx, http.MethodPut, drainPath, w, neturl.Values{"indexer": {indexer}}, "")
}

// Undrain ends a drain; what was given away stays where it is.
func (c *Client) Undrain(ctx context.Context, indexer string, w Wish) (Done, error) {
	return c.do(ctx, http.MethodDelete, drainPath, w, neturl.Values{"indexer": {indexer}}, "")
}

// Freeze has an indexer take no new content.
func (c *Client) Freeze(ctx context.Context, indexer string, w Wish) (Done, error) {
	return c.do(ctx, http.MethodPut, freezePath, w, neturl.Values{"indexer": {indexer}}, "")
}

// Unfreeze has it take content again. ErrDiskFull if it would freeze at once.
func (c *Client) Unfreeze(ctx context.Context, indexer string, w Wish) (Done, error) {
	return c.do(ctx, http.MethodPut, unfreezePath, w, neturl.Values{"indexer": {indexer}}, "")
}

// SetReplication gives a publisher a replication of its own; 0 takes it away.
func (c *Client) SetReplication(ctx context.Context, publisher peer.ID, copies int, w Wish) (Done, error) {
	return c.do(ctx, http.MethodPut, replicationPath, w, neturl.Values{"publisher": {publisher.String()}, "copies": {strconv.Itoa(copies)}}, "")
}

// Pin binds a publisher to indexers; none frees it.
func (c *Client) Pin(ctx context.Context, publisher peer.ID, indexers []string, w Wish) (Done, error) {
	return c.do(ctx, http.MethodPut, pinPath, w, neturl.Values{"publisher": {publisher.String()}, "indexer": {strings.Join(indexers, ",")}}, "")
}

// Move binds a publisher to the indexers it has now, with to in the place of from.
func (c *Client) Move(ctx context.Context, publisher peer.ID, from, to string, w Wish) (Done, error) {
	return c.do(ctx, http.MethodPut, pinPath, w, neturl.Values{"publisher": {publisher.String()}, "from": {from}, "indexer": {to}}, "")
}

// SetAllowed has the pool take a publisher, or not; an empty one stands for all,
// without exceptions.
func (c *Client) SetAllowed(ctx context.Context, publisher peer.ID, allowed bool, w Wish) (Done, error) {
	who := allPublishers
	if publisher != "" {
		who = publisher.String()
	}
	return c.do(ctx, http.MethodPut, policyPath, w, neturl.Values{map[bool]string{true: "allow", false: "deny"}[allowed]: {who}}, "")
}

// SetRebalance says whether publishers are moved to even out load.
func (c *Client) SetRebalance(ctx context.Context, on bool, w Wish) (Done, error) {
	return c.do(ctx, http.MethodPut, rebalancePath, w, neturl.Values{"on": {strconv.FormatBool(on)}}, "")
}

func (c *Client) do(ctx context.Context, method, path string, w Wish, values neturl.Values, body string) (d Done, err error) {
	setValue(values, "by", w.By)
	setValue(values, "reason", w.Reason)
	err = c.call(ctx, method, path, values, body, &d)
	return d, err
}

func setValue(values neturl.Values, key, value string) {
	if value != "" {
		values.Set(key, value)
	}
}

func peerText(id peer.ID) string {
	if id == "" {
		return ""
	}
	return id.String()
}

// call asks, and reads the answer.
func (c *Client) call(ctx context.Context, method, path string, values neturl.Values, body string, answer any) error {
	u := c.base.JoinPath(path)
	u.RawQuery = values.Encode()
	var content io.Reader
	if body != "" {
		content = strings.NewReader(body)
	}
	req, err := http.NewRequestWithContext(ctx, method, u.String(), content)
	if err != nil {
		return err
	}
	if c.token != "" {
		req.Header.Set("Authorization", "Bearer "+c.token)
	}
	req.Header.Set("User-Agent", "signpost")
	resp, err := c.http.Do(req)
	if err != nil {
		return fmt.Errorf("%w: %w", admin.ErrUnavailable, err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return admin.ReadError(resp)
	}
	b, err := api.ReadBody(resp.Body, maxAnswer)
	if err != nil {
		return fmt.Errorf("%w: %s: %w", admin.ErrUnavailable, u.Redacted(), err)
	}
	if err := json.Unmarshal(b, answer); err != nil {
		return fmt.Errorf("answer of %s: %w", u.Redacted(), err)
	}
	return nil
}
