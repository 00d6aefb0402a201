package ipnisync

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"strconv"
	"time"
)

// request is what is wanted from a publisher, whichever address serves it.
type request struct {
	resource   string // last element of the path
	hint       Hint   // may be empty
	accept     string // may be empty
	limitBytes int64
	budget     *Budget // may be nil
	// check reports whether a body is plausibly the resource. It is used to
	// find out which address and path work; what they then serve is the
	// caller's to judge.
	check func(body []byte) error
}

// answer is what came: the body, decompressed, and the memory it stands for.
type answer struct {
	body  []byte
	held  *reservation
	rtt   time.Duration // from the request to the head of the answer
	proto string        // such as HTTP/2.0
}

// release gives the memory back; the body must not be used any more.
func (a *answer) release() {
	if a != nil {
		a.held.release()
	}
}

// route is the way requests of one endpoint take.
type route struct {
	hc        *http.Client
	userAgent string
	pace      *pace
	peer      *peerState
}

// get performs one GET below base, waiting for one of the publisher's slots.
// Any status but 200 is a *StatusError.
func (rt *route) get(ctx context.Context, base *url.URL, r request) (*answer, error) {
	u := base.JoinPath(r.resource).String()
	if err := rt.peer.enter(ctx); err != nil {
		return nil, fmt.Errorf("fetch %s: %w", u, err)
	}
	defer rt.peer.leave()
	rt.peer.requests.Add(1)
	wctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	timeout := rt.pace.timeout()
	w := newWatch(timeout, cancel)
	defer w.stop()
	a, err := rt.exchange(wctx, w, u, r)
	if err == nil {
		return a, nil
	}
	if cause := context.Cause(wctx); cause != nil && ctx.Err() == nil {
		err = fmt.Errorf("fetch %s: %w", u, cause) // it says what the error came from
	}
	switch {
	case errors.Is(err, ErrTimeout):
		rt.peer.timeouts.Add(1)
		rt.pace.timedOut(timeout)
	case errors.Is(err, ErrStalled):
		rt.peer.stalls.Add(1)
	}
	return nil, err
}

func (rt *route) exchange(ctx context.Context, w *watch, u string, r request) (*answer, error) {
	ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
		GotConn: func(httptrace.GotConnInfo) { w.connected() },
	})
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u, nil)
	if err != nil {
		return nil, fmt.Errorf("fetch %s: %w", u, err)
	}
	req.Header.Set("User-Agent", rt.userAgent)
	if r.hint != "" {
		req.Header.Set(HintHeader, string(r.hint))
	}
	if r.accept != "" {
		req.Header.Set("Accept", r.accept)
	}
	resp, err := rt.hc.Do(req)
	if err != nil {
		return nil, fmt.Errorf("fetch: %w", err) // names the URL itself
	}
	defer resp.Body.Close()
	a := &answer{rtt: w.answered(), proto: resp.Proto}
	rt.pace.answered(a.rtt)
	if resp.StatusCode != http.StatusOK {
		// Read so that the connection can be used again; the text is of no use.
		_, _ = io.CopyN(io.Discard, resp.Body, maxDrainBytes)
		return nil, &StatusError{URL: u, Code: resp.StatusCode, RetryAfter: retryAfter(resp.Header)}
	}
	if r.budget != nil {
		a.held = &reservation{b: r.budget}
	}
	if a.body, err = rt.readBody(ctx, w, resp, r.limitBytes, a.held); err != nil {
		a.release()
		return nil, fmt.Errorf("fetch %s: %w", u, err)
	}
	return a, nil
}

// retryAfter reads the header of that name: seconds or a date. Zero without.
func retryAfter(h http.Header) time.Duration {
	text := h.Get("Retry-After")
	if n, err := strconv.ParseUint(text, 10, 31); err == nil {
		return time.Duration(n) * time.Second
	}
	if t, err := http.ParseTime(text); err == nil {
		return max(time.Until(t), 0)
	}
	return 0
}

// firstBytes is where the buffer of a body of unknown length begins: most
// advertisements fit in it.
const firstBytes = 4 << 10

// readBody reads all of a body that has to be at most limit bytes long.
func (rt *route) readBody(ctx context.Context, w *watch, resp *http.Response, limit int64, held *reservation) ([]byte, error) {
	if resp.ContentLength > limit {
		return nil, fmt.Errorf("%w: %d bytes, more than %d", ErrTooLarge, resp.ContentLength, limit)
	}
	final, first := limit, int64(firstBytes) // final: the most that the body can come to
	if resp.ContentLength >= 0 {
		final, first = resp.ContentLength, min(resp.ContentLength, freeBytes)
	}
	buf := make([]byte, 0, min(final, first))
	var beyond [1]byte // seeing the end takes room for one byte more
	for {
		room := buf[len(buf):cap(buf)]
		if len(room) == 0 {
			if int64(len(buf)) == final {
				room = beyond[:]
			} else {
				grown, err := grow(ctx, w, buf, final, resp.ContentLength >= 0, held)
				if err != nil {
					return nil, err
				}
				buf = grown
				continue
			}
		}
		n, err := resp.Body.Read(room[:min(len(room), rt.peer.step())])
		w.progress(n)
		rt.peer.bytes.Add(int64(n))
		if n > 0 && int64(len(buf)) == final {
			return nil, fmt.Errorf("%w: more than %d bytes", ErrTooLarge, final)
		}
		buf = buf[:len(buf)+n]
		if err != nil && err != io.EOF {
			return nil, err
		}
		// The last bytes count too: small bodies have no others.
		if paceErr := rt.keepRate(ctx, w, n); paceErr != nil {
			return nil, paceErr
		}
		if err == io.EOF {
			held.settle(reserved(cap(buf)))
			return buf, nil
		}
	}
}

// keepRate waits until the publisher's rate allows the n bytes just read.
func (rt *route) keepRate(ctx context.Context, w *watch, n int) error {
	owed := rt.peer.owe(n)
	if owed <= 0 {
		return nil
	}
	w.hold(true)
	defer w.hold(false)
	return sleep(ctx, owed)
}

// grow moves a full buffer to a larger one that the budget allows: four times
// as large while it is free, then twice; of a body of unknown length by a
// quarter above 1 MiB, where what is left unused would weigh most.
func grow(ctx context.Context, w *watch, buf []byte, final int64, known bool, held *reservation) ([]byte, error) {
	size := int64(2 * cap(buf))
	switch {
	case cap(buf) >= 1<<20 && !known:
		size = int64(cap(buf) + cap(buf)/4)
	case cap(buf) < freeBytes:
		size = min(int64(4*cap(buf)), freeBytes)
	}
	size = min(size, final)
	if err := held.grow(ctx, reserved(int(size)), w.hold); err != nil {
		return nil, fmt.Errorf("wait for memory: %w", err)
	}
	grown := make([]byte, len(buf), size)
	copy(grown, buf)
	return grown, nil
}

// reserved is what a buffer of size bytes takes of a budget.
func reserved(size int) int64 { return max(int64(size)-freeBytes, 0) }
