package mirror

import (
	"context"
	"errors"
	"io"
	"time"
)

// errStalled is the cause of a read that was given up.
var errStalled = errors.New("mirror: bucket is too slow")

// minBytesPerSecond is the pace below which a bucket counts as stalled.
const minBytesPerSecond = 64 << 10

// timeFor is how long n bytes may take.
func timeFor(n int64) time.Duration {
	return time.Duration(float64(n) / minBytesPerSecond * float64(time.Second))
}

// pacedReader gives up on a body whose reads have waited for longer than stall
// and what its bytes so far may take. Time in which nobody reads does not count.
type pacedReader struct {
	r      io.ReadCloser
	ctx    context.Context // of the request; cancel ends it
	cancel context.CancelCauseFunc
	stall  time.Duration
	waited time.Duration
	bytes  int64
}

func (p *pacedReader) Read(b []byte) (int, error) {
	start := time.Now()
	t := time.AfterFunc(p.stall+timeFor(p.bytes)-p.waited, func() { p.cancel(errStalled) })
	n, err := p.r.Read(b)
	t.Stop()
	p.waited += time.Since(start)
	p.bytes += int64(n)
	if err != nil && err != io.EOF && p.ctx.Err() != nil {
		err = context.Cause(p.ctx)
	}
	return n, err
}

func (p *pacedReader) Close() error {
	p.cancel(nil)
	return p.r.Close()
}
