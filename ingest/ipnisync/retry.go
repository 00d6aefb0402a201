package ipnisync

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"net/http"
	"time"

	"github.com/cenkalti/backoff/v5"
)

// maxRetries bounds how often one fetch goes round the addresses again. It is
// for what passes in a second; the caller's own back-off is for the rest.
const maxRetries = 2

// maxRetryAfter is the longest wait that a publisher may ask for; an answer that
// asks for more is returned, and says how much.
const maxRetryAfter = 30 * time.Second

// pauses are those between the rounds of one fetch.
type pauses struct{ first, max time.Duration }

var defaultPauses = pauses{first: 200 * time.Millisecond, max: 2 * time.Second}

// retried calls ask until it succeeds, fails in a way that waiting a moment
// does not mend, or has been repeated maxRetries times. The pauses grow, with
// jitter; none is begun that ctx would not outlast.
func retried(ctx context.Context, ps pauses, again func(), ask func() (*answer, error)) (*answer, error) {
	var next *backoff.ExponentialBackOff
	for try := 0; ; try++ {
		a, err := ask()
		if err == nil || try == maxRetries || ctx.Err() != nil || !passesSoon(err) {
			return a, err
		}
		if next == nil {
			next = backoff.NewExponentialBackOff()
			next.InitialInterval, next.MaxInterval, next.Multiplier = ps.first, ps.max, 3
		}
		pause := next.NextBackOff()
		if status := (*StatusError)(nil); errors.As(err, &status) && status.RetryAfter > 0 {
			if status.RetryAfter > maxRetryAfter {
				return nil, err
			}
			pause = max(pause, status.RetryAfter)
		}
		if deadline, ok := ctx.Deadline(); ok && time.Until(deadline) <= pause {
			return nil, err
		}
		if sleep(ctx, pause) != nil {
			return nil, err
		}
		again()
	}
}

// passesSoon reports whether err is worth another try in a moment: a connection
// that was refused or broke, or a server that says it is busy. What has taken
// its time already, as time-outs have, is not.
func passesSoon(err error) bool {
	var status *StatusError
	if errors.As(err, &status) {
		switch status.Code {
		case http.StatusTooManyRequests, http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
			return true
		}
		return false
	}
	for _, final := range []error{
		ErrTimeout, ErrStalled, ErrTooLarge, ErrBadHead, ErrPrivateAddress, errImplausible, errRedirects, errNoStreamHTTP,
		context.Canceled, context.DeadlineExceeded,
	} {
		if errors.Is(err, final) {
			return false
		}
	}
	return !isTimeout(err) && !isNoSuchHost(err) && !isTLS(err)
}

func isTimeout(err error) bool {
	var n net.Error
	return errors.As(err, &n) && n.Timeout()
}

func isNoSuchHost(err error) bool {
	var dns *net.DNSError
	return errors.As(err, &dns) && dns.IsNotFound
}

// isTLS reports whether the two sides disagree about TLS.
func isTLS(err error) bool {
	var cert *tls.CertificateVerificationError
	var record tls.RecordHeaderError
	var alert tls.AlertError
	return errors.Is(err, http.ErrSchemeMismatch) || errors.As(err, &cert) || errors.As(err, &record) || errors.As(err, &alert)
}
