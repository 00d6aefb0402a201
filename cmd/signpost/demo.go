package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"path/filepath"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/multiformats/go-multiaddr"

	"github.com/signpost-index/signpost/announce"
	"github.com/signpost-index/signpost/api"
	"github.com/signpost-index/signpost/api/find"
	"github.com/signpost-index/signpost/ingest/ipnisync"
	"github.com/signpost-index/signpost/ingest/publish"
)

// demoWait bounds how long the demo waits for the pool to index.
const demoWait = 2 * time.Minute

// demo goes the whole way of one advertisement with the path a user named:
// publish, announce, index, find through the frontend, fetch, verify. It goes
// on serving what it published until ctx ends.
func (p *devPool) demo(ctx context.Context, path string) error {
	dir := filepath.Join(p.dir, "publisher")
	key, err := loadIdentity(filepath.Join(dir, "identity.key"))
	if err != nil {
		return err
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	addr, err := listenerMultiaddr(ln)
	if err != nil {
		return errors.Join(err, ln.Close())
	}
	pub, err := publish.Open(publish.Config{Dir: dir, Key: key, Addrs: []multiaddr.Multiaddr{addr}, Skip: []string{p.dir}, Logger: p.log})
	if err != nil {
		return errors.Join(err, ln.Close())
	}
	err = together(
		func(ctx context.Context) error { return api.Serve(ctx, ln, pub.Handler(), p.log) },
		func(ctx context.Context) error {
			if err := p.demoSteps(ctx, pub, addr, path); err != nil {
				return err
			}
			if p.c.Bool(flagExit) {
				return errDemoDone
			}
			return waitEnd(ctx)
		},
	)(ctx)
	if errors.Is(err, errDemoDone) {
		err = nil
	}
	return errors.Join(err, pub.Close())
}

var errDemoDone = errors.New("demo done")

func listenerMultiaddr(ln net.Listener) (multiaddr.Multiaddr, error) {
	u, err := url.Parse(baseURL(ln))
	if err != nil {
		return nil, err
	}
	return ipnisync.FromURL(u)
}

func (p *devPool) demoSteps(ctx context.Context, pub *publish.Publisher, addr multiaddr.Multiaddr, path string) error {
	s := &stopwatch{w: p.c.App.ErrWriter, last: time.Now(), start: time.Now()}
	added, err := pub.Add(ctx, path, nil)
	if err != nil {
		return fmt.Errorf("--%s: %w", flagDemo, err)
	}
	root := added.Roots[0]
	s.lap("publish", "%s: %d multihashes, %s, root %s", path, added.Multihashes, bytesText(added.Bytes), root)
	if ad, err := pub.SetAddrs(ctx, []multiaddr.Multiaddr{addr}); err != nil {
		return err
	} else if ad.Defined() {
		s.lap("address", "moved to %s", addr)
	}

	head, err := pub.Head(ctx)
	if err != nil {
		return err
	}
	sender := announce.NewSender(api.NewHTTPClient())
	a := announce.Announce{Head: head.Head, Publisher: peer.AddrInfo{ID: pub.ID(), Addrs: []multiaddr.Multiaddr{addr}}}
	if err := sender.Send(ctx, p.ready.Assigner.HTTP, a); err != nil {
		return err
	}
	s.lap("announce", "head %s to the assigner", head.Head)

	watch, err := newIndexWatch(p.ready.Frontend.HTTP, api.NewHTTPClient(), newTeller(p.c))
	if err != nil {
		return err
	}
	wait, cancel := context.WithTimeout(ctx, demoWait)
	defer cancel()
	if err := watch.until(wait, pub.ID(), head.Head); err != nil {
		return fmt.Errorf("not indexed within %v: %s", demoWait, watch.last())
	}
	s.lap("index", "assigned, fetched, verified, stored on disk")

	client, err := find.NewClient(p.ready.Frontend.HTTP, api.NewHTTPClient())
	if err != nil {
		return err
	}
	results, partial, err := lookup(ctx, client, root.Hash())
	if err == nil && partial != nil {
		err = partial
	}
	if err == nil && len(results) == 0 {
		err = errNobody
	}
	if err != nil {
		return fmt.Errorf("find %s: %w", root, err)
	}
	s.lap("find", "GET %s/cid/%s", p.ready.Frontend.HTTP, root)

	block, from, err := fetchBlock(ctx, root, results)
	if err != nil {
		return err
	}
	s.lap("fetch", "%s from %s, verified against the CID", bytesText(int64(len(block))), from)
	fmt.Fprintf(s.w, "\n%s\n\nall in %v. Ask yourself:\n  curl %s/cid/%s\n", resultTable(results), time.Since(s.start).Round(time.Millisecond), p.ready.Frontend.HTTP, root)
	return nil
}

// stopwatch prints each step with the time it took.
type stopwatch struct {
	w           interface{ Write([]byte) (int, error) }
	start, last time.Time
}

func (s *stopwatch) lap(step, format string, args ...any) {
	now := time.Now()
	fmt.Fprintf(s.w, "%-9s %8v  %s\n", step, now.Sub(s.last).Round(100*time.Microsecond), fmt.Sprintf(format, args...))
	s.last = now
}
