package mirror

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"time"

	"github.com/minio/minio-go/v7"

	"github.com/signpost-index/signpost/store/objects"
)

// bucket is a mirror in a bucket of an S3 server.
//
// A file is one PUT, which servers make visible whole or not at all; parts would
// leave something behind in a crash. Its limit of 5 GiB is above Config's.
type bucket struct {
	core           minio.Core
	bucket, prefix string
	stall          time.Duration
	transport      *http.Transport
}

// maxTries bounds how often one request is made.
const maxTries = objects.MaxTries

func openBucket(ctx context.Context, p objects.Place, cfg Config) (*bucket, error) {
	core, transport, err := p.Connect(cfg.StallTimeout)
	if err != nil {
		return nil, err
	}
	b := &bucket{core: *core, bucket: p.Bucket, stall: cfg.StallTimeout, transport: transport}
	if p.Prefix != "" {
		b.prefix = p.Prefix + "/"
	}
	if err := b.check(ctx); err != nil {
		b.close()
		return nil, err
	}
	return b, nil
}

func (b *bucket) close() { b.transport.CloseIdleConnections() }

// check reports whether the bucket is there. Who may read and write files need
// not be permitted to ask that, so "forbidden" is no answer.
func (b *bucket) check(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, maxTries*b.stall)
	defer cancel()
	is, err := b.core.BucketExists(ctx, b.bucket)
	if minio.ToErrorResponse(err).StatusCode == http.StatusForbidden {
		return nil
	}
	if err == nil && !is {
		return errors.New("no such bucket")
	}
	return err
}

func (b *bucket) put(ctx context.Context, name, path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, maxTries*(b.stall+timeFor(st.Size())))
	defer cancel()
	_, err = b.core.Client.PutObject(ctx, b.bucket, b.prefix+name, f, st.Size(), minio.PutObjectOptions{
		ContentType:      "application/octet-stream",
		DisableMultipart: true,
		SendContentMd5:   true,
	})
	return err
}

func (b *bucket) get(ctx context.Context, name string, limitBytes int64) (io.ReadCloser, error) {
	var opts minio.GetObjectOptions
	if limitBytes > 0 {
		if err := opts.SetRange(0, limitBytes-1); err != nil {
			return nil, err
		}
	}
	ctx, cancel := context.WithCancelCause(ctx)
	waiting := time.AfterFunc(maxTries*b.stall, func() { cancel(errStalled) })
	body, _, _, err := b.core.GetObject(ctx, b.bucket, b.prefix+name, opts)
	waiting.Stop()
	if err != nil {
		if ctx.Err() != nil {
			err = context.Cause(ctx)
		}
		cancel(nil)
		return nil, b.getError(err)
	}
	// A server may answer a range with the whole file.
	return limited(&pacedReader{r: body, ctx: ctx, cancel: cancel, stall: b.stall}, limitBytes), nil
}

func (b *bucket) getError(err error) error {
	switch minio.ToErrorResponse(err).StatusCode {
	case http.StatusNotFound:
		if minio.ToErrorResponse(err).Code == minio.NoSuchBucket {
			return err
		}
		return ErrNotFound
	case http.StatusRequestedRangeNotSatisfiable:
		return fmt.Errorf("%w: empty", ErrCorrupt)
	}
	return err
}

func (b *bucket) exists(ctx context.Context, name string) (bool, error) {
	ctx, cancel := context.WithTimeout(ctx, maxTries*b.stall)
	defer cancel()
	_, err := b.core.StatObject(ctx, b.bucket, b.prefix+name, minio.StatObjectOptions{})
	if minio.ToErrorResponse(err).StatusCode == http.StatusNotFound {
		return false, nil
	}
	return err == nil, err
}
