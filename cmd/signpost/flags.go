package main

import (
	"fmt"
	"log/slog"
	"math"
	"net"
	"os"
	"strconv"
	"strings"

	"github.com/dustin/go-humanize"
	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/multiformats/go-multiaddr"
	"github.com/urfave/cli/v2"

	"github.com/signpost-index/signpost/announce"
	"github.com/signpost-index/signpost/api"
)

// Flags shared by several commands. Each flag has an environment variable by
// one rule: SIGNPOST_ and the name in capitals with _ for -.
const (
	flagData        = "data"
	flagLogLevel    = "log-level"
	flagGossipPeer  = "gossip-peer"
	flagTopic       = "topic"
	flagListenP2P   = "listen-p2p"
	flagMetrics     = "listen-metrics"
	flagIndexSecret = "index-secret"
	flagPool        = "pool"
	none            = "none"
)

const envPrefix = "SIGNPOST_"

func env(name string) []string {
	return []string{envPrefix + strings.ToUpper(strings.ReplaceAll(name, "-", "_"))}
}

func stringFlag(name, value, usage string) *cli.StringFlag {
	return &cli.StringFlag{Name: name, Value: value, Usage: usage, EnvVars: env(name)}
}

func listFlag(name, usage string) *cli.StringSliceFlag {
	return &cli.StringSliceFlag{Name: name, Usage: usage, EnvVars: env(name)}
}

func boolFlag(name, usage string) *cli.BoolFlag {
	return &cli.BoolFlag{Name: name, Usage: usage, EnvVars: env(name)}
}

func logLevelFlag() cli.Flag {
	return stringFlag(flagLogLevel, "info", "least level logged to stderr: debug, info, warn or error")
}

func metricsFlag() cli.Flag {
	return stringFlag(flagMetrics, none, "`ADDR` to serve Prometheus metrics on, or none")
}

func gossipFlags(listen string) []cli.Flag {
	return []cli.Flag{
		stringFlag(flagListenP2P, listen, "`ADDR` (host:port) of the libp2p host for gossip, or none"),
		listFlag(flagGossipPeer, "`MULTIADDR` with /p2p/ of a peer to gossip with; repeatable"),
		stringFlag(flagTopic, announce.DefaultTopic, "gossip topic of announces"),
	}
}

// newLogger logs text for people to stderr at --log-level.
func newLogger(c *cli.Context) (*slog.Logger, error) {
	log, _, err := newLeveledLogger(c)
	return log, err
}

// newLeveledLogger is newLogger with what sets the level later.
func newLeveledLogger(c *cli.Context) (*slog.Logger, *slog.LevelVar, error) {
	level := new(slog.LevelVar)
	if err := level.UnmarshalText([]byte(c.String(flagLogLevel))); err != nil {
		return nil, nil, misused("--%s %q: use debug, info, warn or error", flagLogLevel, c.String(flagLogLevel))
	}
	return slog.New(slog.NewTextHandler(c.App.ErrWriter, &slog.HandlerOptions{Level: level})), level, nil
}

// checkListen refuses what is not host:port.
func checkListen(c *cli.Context, flag string) error {
	_, port, err := net.SplitHostPort(c.String(flag))
	if err == nil {
		_, err = net.LookupPort("tcp", port)
	}
	if err != nil {
		return misused("--%s %q: give host:port, for instance 127.0.0.1:3000 or :3000", flag, c.String(flag))
	}
	return nil
}

// listen opens the TCP listener a flag names; port 0 takes any free port.
func listen(c *cli.Context, flag string) (net.Listener, error) {
	addr := c.String(flag)
	if err := checkListen(c, flag); err != nil {
		return nil, err
	}
	ln, err := net.Listen("tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("--%s: %w; choose another port, or port 0 for any free one", flag, err)
	}
	return ln, nil
}

// baseURL is how a listener is reached from this machine.
func baseURL(ln net.Listener) string {
	a, ok := ln.Addr().(*net.TCPAddr)
	if !ok {
		return "http://" + ln.Addr().String()
	}
	host, scheme := a.IP.String(), "http://"
	if a.IP.IsUnspecified() {
		host = "127.0.0.1"
	}
	if api.IsTLS(ln) {
		scheme = "https://"
	}
	return scheme + net.JoinHostPort(host, strconv.Itoa(a.Port))
}

func dataGiven(c *cli.Context) error {
	if c.String(flagData) == "" {
		return misused("--%s is required: name a directory to keep the data in; it is made if absent", flagData)
	}
	return nil
}

// gossipConfig reads the gossip flags; nil when there is neither a listener
// nor a peer to dial.
func gossipConfig(c *cli.Context, key crypto.PrivKey, log *slog.Logger) (*announce.GossipConfig, error) {
	cfg := &announce.GossipConfig{Key: key, Topic: c.String(flagTopic), Logger: log}
	for _, p := range c.StringSlice(flagGossipPeer) {
		ai, err := peer.AddrInfoFromString(p)
		if err != nil {
			return nil, misused("--%s %q: %v; give a multiaddr that ends in /p2p/PEERID", flagGossipPeer, p, err)
		}
		cfg.Peers = append(cfg.Peers, *ai)
	}
	addr := c.String(flagListenP2P)
	if addr != none {
		ma, err := tcpMultiaddr(addr)
		if err != nil {
			return nil, misused("--%s %q: %v; give host:port or none", flagListenP2P, addr, err)
		}
		cfg.Listen = []string{ma}
	}
	if len(cfg.Listen) == 0 && len(cfg.Peers) == 0 {
		return nil, nil
	}
	return cfg, nil
}

func tcpMultiaddr(hostport string) (string, error) {
	host, port, err := net.SplitHostPort(hostport)
	if err != nil {
		return "", err
	}
	if host == "" {
		host = "0.0.0.0"
	}
	proto := "dns"
	if ip := net.ParseIP(host); ip != nil {
		proto = "ip4"
		if ip.To4() == nil {
			proto = "ip6"
		}
	}
	ma := "/" + proto + "/" + host + "/tcp/" + port
	_, err = multiaddr.NewMultiaddr(ma)
	return ma, err
}

// byteSize reads sizes such as 536870912, 512MiB or 4GiB.
func byteSize(c *cli.Context, flag string) (int64, error) {
	n, err := humanize.ParseBytes(c.String(flag))
	if err != nil || n > math.MaxInt64/2 {
		return 0, misused("--%s %q: give a number of bytes, or one with KiB, MiB, GiB or TiB", flag, c.String(flag))
	}
	return int64(n), nil
}

// dataDir makes the directory of --data, readable by its owner only.
func dataDir(c *cli.Context) (string, error) {
	if err := dataGiven(c); err != nil {
		return "", err
	}
	dir := c.String(flagData)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return "", fmt.Errorf("--%s: %w", flagData, err)
	}
	return dir, nil
}
