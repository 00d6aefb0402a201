package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/multiformats/go-multiaddr"
	"github.com/urfave/cli/v2"

	"github.com/signpost-index/signpost/announce"
	"github.com/signpost-index/signpost/api"
	"github.com/signpost-index/signpost/ingest/ipnisync"
	"github.com/signpost-index/signpost/ingest/metadata"
	"github.com/signpost-index/signpost/ingest/publish"
)

const (
	flagAnnounce       = "announce"
	flagFind           = "find"
	flagPublisherAddr  = "publisher-addr"
	flagProviderAddr   = "provider-addr"
	flagMetadata       = "metadata"
	flagUpdateMetadata = "update-metadata"
	flagRemove         = "remove"
	flagWait           = "wait"
	flagWaitLimit      = "wait-limit"
	flagHidden         = "hidden"
	flagCodec          = "codec"
	flagJSON           = "json"

	defaultAnnounceURL = "http://127.0.0.1:3001"
	defaultFindURL     = "http://127.0.0.1:3000"
)

func publishCommand() *cli.Command {
	return &cli.Command{
		Name:      "publish",
		Usage:     "publish CAR files, files or directories: advertise, serve and announce them",
		ArgsUsage: "[PATH...]",
		Description: "Example:\n" +
			"  signpost publish ./photos archive.car --wait\n" +
			"  signpost publish --remove ./photos --wait\n" +
			"  signpost publish --update-metadata bitswap,ipfs-gateway-http --wait\n\n" +
			"Content becomes a CAR, its multihashes a signed advertisement chain kept in\n" +
			"--data; both are served on --listen, the content as a trustless gateway. The\n" +
			"same directory goes on with the same chain and identity. Without --wait it\n" +
			"serves until it is told to stop; with --wait it ends once the pool has\n" +
			"indexed everything.",
		OnUsageError: usageError,
		Flags: append([]cli.Flag{
			&cli.StringFlag{Name: flagData, Value: homeDir("publish"), DefaultText: "~/.signpost/publish", EnvVars: env(flagData),
				Usage: "`DIR` with the identity, the chain and the CARs"},
			stringFlag(flagListen, ":3104", "`ADDR` to serve the chain and the content on"),
			listFlag(flagAnnounce, "`URL` of an assigner or indexer to announce to; repeatable (default: "+defaultAnnounceURL+"; none: nobody)"),
			stringFlag(flagFind, defaultFindURL, "`URL` of a frontend or indexer to ask whether everything is indexed"),
			listFlag(flagPublisherAddr, "`ADDR` (multiaddr or URL) indexers fetch the chain from; repeatable (default: guessed from --listen)"),
			listFlag(flagProviderAddr, "`ADDR` (multiaddr or URL) clients fetch the content from; repeatable (default: the publisher address)"),
			stringFlag(flagMetadata, "", "`NAMES` of the protocols advertised, such as bitswap,ipfs-gateway-http, or base64:... (default: ipfs-gateway-http)"),
			stringFlag(flagUpdateMetadata, "", "give everything published these protocols `NAMES` (as --metadata)"),
			listFlag(flagRemove, "`PATH` or context ID (base64 or root CID) to remove from the index; repeatable"),
			boolFlag(flagWait, "end once the pool has indexed everything"),
			&cli.DurationFlag{Name: flagWaitLimit, EnvVars: env(flagWaitLimit), Usage: "with --wait: fail after this `DURATION` (default: no limit)"},
			boolFlag(flagHidden, "include files whose name begins with a dot"),
			stringFlag(flagCodec, "dag-json", "`CODEC` of new advertisements: dag-json or dag-cbor"),
			boolFlag(flagJSON, "print what happens on stdout, one JSON object a line"),
			logLevelFlag(),
		}, append(tlsFlags(), gossipFlags(none)...)...),
		Action: runPublish,
	}
}

// homeDir is where a command keeps its data by default.
func homeDir(name string) string {
	home, err := os.UserHomeDir()
	if err != nil {
		return ""
	}
	return filepath.Join(home, ".signpost", name)
}

// publishing is one run of signpost publish.
type publishing struct {
	c        *cli.Context
	log      *slog.Logger
	tls      *api.TLS
	pub      *publish.Publisher
	addrs    []multiaddr.Multiaddr // where the chain is served
	provider []multiaddr.Multiaddr // where the content is served
	urls     []string              // to announce to
	hc       *http.Client
	say      *teller
	watch    *indexWatch
	g        *announce.Gossip
	streams  net.Listener // on g's host; nil if that does not listen
}

func runPublish(c *cli.Context) error {
	log, level, err := newLeveledLogger(c)
	if err != nil {
		return err
	}
	secure, err := openTLS(c, log)
	if err != nil {
		return err
	}
	p := &publishing{c: c, log: log, tls: secure, hc: api.NewHTTPClient(), say: newTeller(c)}
	cfg, ln, err := p.configure()
	if err != nil {
		return err
	}
	defer ln.Close()
	if p.pub, err = publish.Open(cfg); err != nil {
		if errors.Is(err, publish.ErrLocked) {
			return fmt.Errorf("%w; stop the other signpost publish, or give another --%s", err, flagData)
		}
		return err
	}
	gossip, err := gossipConfig(c, cfg.Key, log)
	if err == nil && gossip != nil {
		if p.g, err = announce.OpenGossip(*gossip); err == nil {
			err = p.listenStreams()
		}
	}
	if err != nil {
		return errors.Join(err, closeGossip(p.g), p.pub.Close())
	}
	ctx, cancel := context.WithCancel(c.Context)
	defer cancel()
	err = together(
		func(ctx context.Context) error { return api.Serve(ctx, ln, p.pub.Handler(), log) },
		onHangup(c, log, live{flagLogLevel: changeLevel(level)}),
		p.gossip,
		p.serveStreams,
		func(ctx context.Context) error {
			err := p.work(ctx)
			if ctx.Err() != nil {
				return nil // told to stop
			}
			if err == nil && c.Bool(flagWait) {
				cancel()
			}
			return err
		},
	)(ctx)
	return errors.Join(err, closeGossip(p.g), p.pub.Close())
}

// gossip keeps the gossip host in its mesh; what is heard is not for us.
func (p *publishing) gossip(ctx context.Context) error {
	if p.g == nil {
		return nil
	}
	return p.g.Run(ctx, func(context.Context, announce.Announce) error { return nil })
}

// listenStreams lets the chain be fetched over libp2p as well, if the gossip
// host listens: by indexers that know a libp2p address of this publisher.
func (p *publishing) listenStreams() (err error) {
	if p.g != nil && len(p.g.Addrs()) > 0 {
		p.streams, err = ipnisync.ListenStreams(p.g.Host())
	}
	return err
}

func (p *publishing) serveStreams(ctx context.Context) error {
	if p.streams == nil {
		return nil
	}
	return ipnisync.ServeStreams(ctx, p.streams, p.pub.Handler())
}

// configure reads the flags; everything a person can get wrong is found here.
func (p *publishing) configure() (cfg publish.Config, ln net.Listener, err error) {
	c := p.c
	for _, path := range c.Args().Slice() {
		if _, err := os.Stat(path); err != nil {
			return cfg, nil, misused("PATH: %v", err)
		}
	}
	if p.urls, err = announceURLs(c); err != nil {
		return cfg, nil, err
	}
	if cfg.Dir, err = dataDir(c); err != nil {
		return cfg, nil, err
	}
	if cfg.Key, err = loadIdentity(filepath.Join(cfg.Dir, "identity.key")); err != nil {
		return cfg, nil, err
	}
	cfg.Topic, cfg.Hidden, cfg.Logger = c.String(flagTopic), c.Bool(flagHidden), p.log
	if cfg.Codec, err = codecFlag(c); err != nil {
		return cfg, nil, err
	}
	if cfg.Metadata, err = metadataFlag(c, flagMetadata); err != nil {
		return cfg, nil, err
	}
	if _, err = metadataFlag(c, flagUpdateMetadata); err != nil {
		return cfg, nil, err
	}
	if p.watch, err = newIndexWatch(c.String(flagFind), p.hc, p.say); err != nil {
		return cfg, nil, misused("--%s: %v", flagFind, err)
	}
	if c.Bool(flagWait) && p.watch == nil {
		return cfg, nil, misused("--%s needs --%s URL: somebody to ask whether everything is indexed", flagWait, flagFind)
	}
	if ln, err = listen(c, flagListen); err != nil {
		return cfg, nil, err
	}
	ln = secured(p.tls, flagListen, ln)
	if p.addrs, err = p.publisherAddrs(ln); err == nil {
		cfg.Addrs, err = addrFlag(c, flagProviderAddr)
	}
	if err != nil {
		return cfg, nil, errors.Join(err, ln.Close())
	}
	if len(cfg.Addrs) == 0 {
		cfg.Addrs = p.addrs
	}
	p.provider = cfg.Addrs
	return cfg, ln, nil
}

func announceURLs(c *cli.Context) ([]string, error) {
	urls := c.StringSlice(flagAnnounce)
	switch {
	case len(urls) == 0:
		return []string{defaultAnnounceURL}, nil
	case len(urls) == 1 && urls[0] == none:
		return nil, nil
	case slices.Contains(urls, none):
		return nil, misused("--%s none goes with no other --%s", flagAnnounce, flagAnnounce)
	}
	return urls, nil
}

func metadataFlag(c *cli.Context, flag string) ([]byte, error) {
	text := c.String(flag)
	if text == "" {
		return nil, nil
	}
	md, err := metadata.ParseNames(text)
	if err != nil {
		return nil, misused("--%s %q: %v", flag, text, err)
	}
	return md, nil
}

// addrFlag reads addresses given as multiaddrs or URLs.
func addrFlag(c *cli.Context, flag string) ([]multiaddr.Multiaddr, error) {
	var out []multiaddr.Multiaddr
	for _, text := range c.StringSlice(flag) {
		a, err := parseAddr(text)
		if err != nil {
			return nil, misused("--%s %q: %v; give a multiaddr such as /dns/example.com/tcp/443/https, or a URL", flag, text, err)
		}
		out = append(out, a)
	}
	return out, nil
}

func parseAddr(text string) (multiaddr.Multiaddr, error) {
	if strings.HasPrefix(text, "/") {
		return multiaddr.NewMultiaddr(text)
	}
	u, err := url.Parse(text)
	if err != nil {
		return nil, err
	}
	return ipnisync.FromURL(u)
}

// publisherAddrs is where indexers find the chain: what was given, or the
// listener's address as the announced-to host sees this machine.
func (p *publishing) publisherAddrs(ln net.Listener) ([]multiaddr.Multiaddr, error) {
	addrs, err := addrFlag(p.c, flagPublisherAddr)
	if err != nil || len(addrs) > 0 {
		return addrs, err
	}
	a, ok := ln.Addr().(*net.TCPAddr)
	if !ok {
		return nil, misused("--%s is required with this --%s", flagPublisherAddr, flagListen)
	}
	ip := a.IP
	if ip.IsUnspecified() {
		ip = localIPFacing(p.urls)
	}
	u := &url.URL{Scheme: "http", Host: net.JoinHostPort(ip.String(), fmt.Sprint(a.Port))}
	guess, err := ipnisync.FromURL(u)
	return []multiaddr.Multiaddr{guess}, err
}

// localIPFacing is this machine's address on the way to the first URL. No
// packet is sent: a connected UDP socket only looks up the route.
func localIPFacing(urls []string) net.IP {
	for _, text := range urls {
		u, err := url.Parse(text)
		if err != nil {
			continue
		}
		conn, err := net.Dial("udp", net.JoinHostPort(u.Hostname(), "9"))
		if err != nil {
			continue
		}
		defer conn.Close()
		if a, ok := conn.LocalAddr().(*net.UDPAddr); ok {
			return a.IP
		}
	}
	return net.IPv4(127, 0, 0, 1)
}

// work makes the changes, announces the head and waits for the pool.
func (p *publishing) work(ctx context.Context) error {
	serving := map[string]any{"id": p.pub.ID().String(), "addrs": addrTexts(p.addrs)}
	if p.streams != nil {
		serving["p2p"] = addrTexts(p.g.Addrs())
	}
	p.say.event("serving", serving,
		"publisher %s serves at %s", p.pub.ID(), addrTexts(p.addrs)[0])
	if err := p.change(ctx); err != nil {
		return err
	}
	head, err := p.pub.Head(ctx)
	if errors.Is(err, ipnisync.ErrNoHead) {
		if p.c.Bool(flagWait) {
			return misused("nothing is published yet: give a PATH")
		}
		p.say.event("empty", nil, "nothing is published yet; give a PATH")
		return waitEnd(ctx)
	}
	if err != nil {
		return err
	}
	if err := p.announce(ctx, head.Head); err != nil {
		return err
	}
	if p.watch != nil {
		if err := p.waitIndexed(ctx, head.Head); err != nil {
			return err
		}
	}
	if p.c.Bool(flagWait) {
		return nil
	}
	p.say.event("waiting", nil, "serving until told to stop (Ctrl-C)")
	return waitEnd(ctx)
}

func waitEnd(ctx context.Context) error {
	<-ctx.Done()
	return nil
}

func (p *publishing) waitIndexed(ctx context.Context, head cid.Cid) error {
	if limit := p.c.Duration(flagWaitLimit); limit > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, limit)
		defer cancel()
	}
	err := p.watch.until(ctx, p.pub.ProviderID(), head)
	if errors.Is(err, context.DeadlineExceeded) {
		return fmt.Errorf("not indexed within --%s %v: %s", flagWaitLimit, p.c.Duration(flagWaitLimit), p.watch.last())
	}
	return err
}

// change carries out what the flags and arguments ask for.
func (p *publishing) change(ctx context.Context) error {
	for _, what := range p.c.StringSlice(flagRemove) {
		ad, err := p.pub.Remove(ctx, what)
		if err != nil {
			return fmt.Errorf("--%s %s: %w", flagRemove, what, err)
		}
		p.say.event("removed", map[string]any{"what": what, "ad": ad.String()}, "removed %s (ad %s)", what, ad)
	}
	md, err := metadataFlag(p.c, flagUpdateMetadata)
	if err != nil {
		return err
	}
	if md != nil {
		ads, err := p.pub.UpdateMetadata(ctx, md)
		if err != nil {
			return fmt.Errorf("--%s: %w", flagUpdateMetadata, err)
		}
		p.say.event("metadata", map[string]any{"ads": len(ads)}, "metadata updated (%d ads)", len(ads))
	}
	if ad, err := p.pub.SetAddrs(ctx, p.provider); err != nil {
		return err
	} else if ad.Defined() {
		p.say.event("addresses", map[string]any{"ad": ad.String()}, "addresses changed (ad %s)", ad)
	}
	for _, path := range p.c.Args().Slice() {
		if err := p.add(ctx, path); err != nil {
			return err
		}
	}
	return nil
}

func (p *publishing) add(ctx context.Context, path string) error {
	start := time.Now()
	bar := p.say.bar(path)
	added, err := p.pub.Add(ctx, path, bar.update)
	bar.done()
	if err != nil {
		return fmt.Errorf("publish %s: %w", path, err)
	}
	var roots []string
	for _, r := range added.Roots {
		roots = append(roots, r.String())
	}
	fields := map[string]any{
		"path": path, "context": added.ContextID, "roots": roots, "multihashes": added.Multihashes,
		"bytes": added.Bytes, "unchanged": added.Unchanged, "ad": added.Ad.String(), "seconds": time.Since(start).Seconds(),
	}
	verb := "published"
	if added.Unchanged {
		verb = "unchanged"
	}
	p.say.event("added", fields, "%s %s: root %s, %d multihashes, %v",
		verb, path, strings.Join(roots, " "), added.Multihashes, time.Since(start).Round(time.Millisecond))
	return nil
}

// announce tells everybody; it fails if nobody took it.
func (p *publishing) announce(ctx context.Context, head cid.Cid) error {
	a := announce.Announce{Head: head, Publisher: peer.AddrInfo{ID: p.pub.ID(), Addrs: p.addrs}}
	sender := announce.NewSender(p.hc)
	var errs []error
	for _, u := range p.urls {
		if err := sender.Send(ctx, u, a); err != nil {
			errs = append(errs, err)
			continue
		}
		p.say.event("announced", map[string]any{"head": head.String(), "to": u}, "announced head %s to %s", head, u)
	}
	if p.g != nil {
		if err := p.announceGossip(ctx, a); err != nil {
			errs = append(errs, err)
		}
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("announce: %w; is the assigner or indexer at --%s running?", err, flagAnnounce)
	}
	return nil
}

func (p *publishing) announceGossip(ctx context.Context, a announce.Announce) error {
	if err := p.g.WaitForPeer(ctx); err != nil {
		return err
	}
	if err := p.g.Publish(ctx, &announce.Message{Cid: a.Head, Addrs: a.Publisher.Addrs}); err != nil {
		return err
	}
	p.say.event("announced", map[string]any{"head": a.Head.String(), "to": "gossip"}, "announced head %s by gossip", a.Head)
	return nil
}

// teller tells people on stderr and, with --json, machines on stdout.
type teller struct {
	c    *cli.Context
	json *json.Encoder
}

func newTeller(c *cli.Context) *teller {
	t := &teller{c: c}
	if c.Bool(flagJSON) {
		t.json = json.NewEncoder(c.App.Writer)
	}
	return t
}

func (t *teller) event(name string, fields map[string]any, format string, args ...any) {
	if t.json == nil {
		fmt.Fprintf(t.c.App.ErrWriter, format+"\n", args...)
		return
	}
	if fields == nil {
		fields = make(map[string]any)
	}
	fields["event"] = name
	// A failed write to stdout has nobody left to be told.
	_ = t.json.Encode(fields)
}
