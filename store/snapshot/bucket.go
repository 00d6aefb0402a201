package snapshot

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"path"
	"strings"
	"time"

	"github.com/minio/minio-go/v7"
	"golang.org/x/time/rate"

	"github.com/signpost-index/signpost/store"
	"github.com/signpost-index/signpost/store/objects"
)

const (
	// answerWithin is how long a server may take to begin an answer.
	answerWithin = time.Minute
	// minBytesPerSecond is the pace below which a transfer is given up and begun
	// again.
	minBytesPerSecond = 64 << 10
	// maxObjects bounds what is listed.
	maxObjects = 4 * maxFiles
)

// bucket is a place in a bucket of an S3 server. A file is one PUT, which
// servers make visible whole or not at all; tables and segments are far below
// its limit of 5 GiB.
type bucket struct {
	core         minio.Core
	name, prefix string
	pace         *rate.Limiter
	transport    *http.Transport
}

func openBucket(ctx context.Context, p objects.Place, pace *rate.Limiter) (*bucket, error) {
	core, transport, err := p.Connect(answerWithin)
	if err != nil {
		return nil, err
	}
	b := &bucket{core: *core, name: p.Bucket, pace: pace, transport: transport}
	if p.Prefix != "" {
		b.prefix = p.Prefix + "/"
	}
	ctx, cancel := context.WithTimeout(ctx, objects.MaxTries*answerWithin)
	defer cancel()
	is, err := core.BucketExists(ctx, p.Bucket)
	switch {
	case minio.ToErrorResponse(err).StatusCode == http.StatusForbidden:
		err = nil // who may read and write objects need not be permitted to ask
	case err == nil && !is:
		err = errors.New("no such bucket")
	}
	if err != nil {
		b.close()
		return nil, fmt.Errorf("open %s: %w", p, err)
	}
	return b, nil
}

func (b *bucket) close() { b.transport.CloseIdleConnections() }

func (b *bucket) flush() error { return nil }

// timeFor is how long a request with n bytes may take.
func timeFor(n int64) time.Duration {
	return answerWithin + time.Duration(float64(n)/minBytesPerSecond*float64(time.Second))
}

func (b *bucket) list(ctx context.Context, folder string) (map[string]int64, error) {
	sizes := make(map[string]int64)
	err := retry(ctx, b.again, func() error {
		ctx, cancel := context.WithCancel(ctx) // ends the listing
		defer cancel()
		clear(sizes)
		prefix := b.prefix + folder + "/"
		for o := range b.core.Client.ListObjects(ctx, b.name, minio.ListObjectsOptions{Prefix: prefix, Recursive: true}) {
			if o.Err != nil {
				return o.Err
			}
			if len(sizes) >= maxObjects {
				return fmt.Errorf("more than %d objects below %s", maxObjects, prefix)
			}
			sizes[strings.TrimPrefix(o.Key, prefix)] = o.Size
		}
		return ctx.Err()
	})
	return sizes, err
}

// keep reads the file twice: its name has to be known before it is sent.
func (b *bucket) keep(ctx context.Context, file string, sizeBytes int64, have func(string) bool) (sum string, copied bool, err error) {
	f, err := os.Open(file)
	if err != nil {
		return "", false, err
	}
	defer f.Close()
	if sum, err = copySum(io.Discard, pacedReader{ctx, f, b.pace}, sizeBytes); err != nil || have(sum) {
		return sum, false, err
	}
	err = retry(ctx, b.again, func() error {
		if _, err := f.Seek(0, io.SeekStart); err != nil {
			return err
		}
		return b.send(ctx, path.Join(filesDir, sum), pacedFile{pacedReader{ctx, f, b.pace}, f}, sizeBytes, sum)
	})
	return sum, err == nil, err
}

// pacedFile can be sent again from its beginning.
type pacedFile struct {
	pacedReader
	io.Seeker
}

// send is one PUT. The server compares the bytes with sum, their SHA-256.
func (b *bucket) send(ctx context.Context, name string, r io.ReadSeeker, n int64, sum string) error {
	limit := timeFor(n)
	if b.pace != nil {
		limit += time.Duration(float64(n) / float64(b.pace.Limit()) * 8 * float64(time.Second)) // others share it
	}
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	_, err := b.core.PutObject(ctx, b.name, b.prefix+name, r, n, "", sum, minio.PutObjectOptions{
		ContentType: "application/octet-stream", DisableMultipart: true,
	})
	return err
}

func (b *bucket) put(ctx context.Context, name string, content []byte) error {
	sum := sha256.Sum256(content)
	return retry(ctx, b.again, func() error {
		return b.send(ctx, name, bytes.NewReader(content), int64(len(content)), hex.EncodeToString(sum[:]))
	})
}

func (b *bucket) get(ctx context.Context, name string) (io.ReadCloser, error) {
	ctx, cancel := context.WithCancel(ctx)
	body, info, _, err := b.core.GetObject(ctx, b.name, b.prefix+name, minio.GetObjectOptions{})
	if err != nil {
		cancel()
		if minio.ToErrorResponse(err).StatusCode == http.StatusNotFound {
			return nil, fmt.Errorf("%w: %w", ErrNotFound, err)
		}
		return nil, err
	}
	// A body that hardly moves is given up.
	timer := time.AfterFunc(timeFor(info.Size), cancel)
	return &cancelled{body, timer, cancel}, nil
}

// cancelled ends its request when it is closed.
type cancelled struct {
	io.ReadCloser
	timer  *time.Timer
	cancel func()
}

func (c *cancelled) Close() error {
	c.timer.Stop()
	c.cancel()
	return c.ReadCloser.Close()
}

func (b *bucket) remove(ctx context.Context, name string) error {
	return retry(ctx, b.again, func() error {
		ctx, cancel := context.WithTimeout(ctx, answerWithin)
		defer cancel()
		err := b.core.RemoveObject(ctx, b.name, b.prefix+name, minio.RemoveObjectOptions{})
		if minio.ToErrorResponse(err).StatusCode == http.StatusNotFound {
			return nil
		}
		return err
	})
}

// again: all but what the server has refused for good. Bytes that were not those
// of the manifest may have come so over the wire.
func (b *bucket) again(err error) bool {
	var local *fs.PathError
	if errors.Is(err, ErrNotFound) || errors.Is(err, store.ErrNewerFormat) || errors.As(err, &local) {
		return false
	}
	code := minio.ToErrorResponse(err).StatusCode
	return code < 400 || code >= 500 || code == http.StatusRequestTimeout || code == http.StatusTooManyRequests
}
