package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"sync"
	"time"

	"github.com/dustin/go-humanize"
	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/vbauerster/mpb/v8"
	"github.com/vbauerster/mpb/v8/decor"

	"github.com/signpost-index/signpost/api/find"
	"github.com/signpost-index/signpost/ingest/publish"
)

// watchInterval is how often the pool is asked whether a head is indexed.
const watchInterval = 200 * time.Millisecond

// indexWatch asks a frontend or indexer how far a provider's chain is indexed.
type indexWatch struct {
	client *find.Client
	say    *teller

	mu   sync.Mutex
	text string // what was learned last
}

// newIndexWatch returns nil for "none".
func newIndexWatch(url string, hc *http.Client, say *teller) (*indexWatch, error) {
	if url == none || url == "" {
		return nil, nil
	}
	client, err := find.NewClient(url, hc)
	if err != nil {
		return nil, err
	}
	return &indexWatch{client: client, say: say, text: "the pool does not know this provider yet"}, nil
}

func (w *indexWatch) last() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.text
}

func (w *indexWatch) set(format string, args ...any) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.text = fmt.Sprintf(format, args...)
}

// until waits for the provider's last advertisement, which is the durable
// contiguous mark of its publisher, to be head.
func (w *indexWatch) until(ctx context.Context, provider peer.ID, head cid.Cid) error {
	start := time.Now()
	bar := w.say.counter("indexing")
	defer bar.done()
	tick := time.NewTicker(watchInterval)
	defer tick.Stop()
	shown := ""
	for {
		done, err := w.look(ctx, provider, head, bar)
		if done {
			bar.done()
			w.say.event("indexed", map[string]any{"head": head.String(), "seconds": time.Since(start).Seconds()},
				"indexed head %s in %v", head, time.Since(start).Round(time.Millisecond))
			return nil
		}
		if err != nil && ctx.Err() == nil && err.Error() != shown {
			shown = err.Error()
			w.say.event("trouble", map[string]any{"error": shown}, "not indexed yet: %s", shown)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
	}
}

func (w *indexWatch) look(ctx context.Context, provider peer.ID, head cid.Cid, bar *bar) (bool, error) {
	info, err := w.client.Provider(ctx, provider)
	if errors.Is(err, find.ErrNotFound) {
		return false, nil
	}
	if info == nil {
		w.set("asking the pool: %v", err)
		return false, err
	}
	if info.LastAdvertisement == head {
		return true, nil
	}
	bar.left(info.Lag)
	w.set("%d ads left, last error: %q", info.Lag, info.LastError)
	if info.LastError != "" && time.Since(info.LastErrorTime) < time.Minute {
		return false, errors.New(info.LastError)
	}
	return false, nil
}

// bar is a progress bar on a terminal, and nothing elsewhere.
type bar struct {
	progress *mpb.Progress
	b        *mpb.Bar
	total    int64
	once     sync.Once
}

func (t *teller) terminal() *os.File {
	f, ok := t.c.App.ErrWriter.(*os.File)
	if !ok || t.json != nil {
		return nil
	}
	info, err := f.Stat()
	if err != nil || info.Mode()&os.ModeCharDevice == 0 {
		return nil
	}
	return f
}

// bar shows bytes read of a content.
func (t *teller) bar(name string) *bar {
	f := t.terminal()
	if f == nil {
		return &bar{}
	}
	p := mpb.New(mpb.WithOutput(f), mpb.WithWidth(40))
	return &bar{progress: p, b: p.AddBar(0,
		mpb.PrependDecorators(decor.Name(name+" ")),
		mpb.AppendDecorators(decor.CountersKibiByte("% .1f / % .1f"), decor.Name(" "), decor.AverageSpeed(decor.SizeB1024(0), "% .1f")),
		mpb.BarRemoveOnComplete(),
	)}
}

// counter shows ads left.
func (t *teller) counter(name string) *bar {
	f := t.terminal()
	if f == nil {
		return &bar{}
	}
	p := mpb.New(mpb.WithOutput(f), mpb.WithWidth(40))
	return &bar{progress: p, b: p.AddBar(0,
		mpb.PrependDecorators(decor.Name(name+" ")),
		mpb.AppendDecorators(decor.CountersNoUnit("%d / %d ads")),
		mpb.BarRemoveOnComplete(),
	)}
}

func (b *bar) update(p publish.Progress) {
	if b.b == nil {
		return
	}
	if p.TotalBytes > b.total {
		b.total = p.TotalBytes
		b.b.SetTotal(b.total, false)
	}
	b.b.SetCurrent(p.Bytes)
}

func (b *bar) left(n int) {
	if b.b == nil {
		return
	}
	if int64(n) > b.total {
		b.total = int64(n)
		b.b.SetTotal(b.total, false)
	}
	b.b.SetCurrent(b.total - int64(n))
}

func (b *bar) done() {
	if b.b == nil {
		return
	}
	b.once.Do(func() {
		b.b.Abort(true)
		b.progress.Wait()
	})
}

func bytesText(n int64) string { return humanize.IBytes(uint64(n)) }
