package main

import (
	"math"
	"net/netip"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/signpost-index/signpost/api"
)

const (
	flagClientRate     = "client-rate"
	flagTrustedProxies = "trusted-proxies"
	flagDrainFor       = "drain-for"

	// frontendDrain is longer than load balancers commonly take to notice.
	frontendDrain = 5 * time.Second
	maxClientRate = 1e6
	maxDrain      = time.Hour
)

// clientFlags are about those who look up: how much each may ask for, and how
// long they have to leave.
func clientFlags(drain time.Duration) []cli.Flag {
	return []cli.Flag{
		&cli.Float64Flag{Name: flagClientRate, EnvVars: env(flagClientRate),
			Usage: "lookups a second, averaged, to answer one client address (IPv6: one /64) at most, `COUNT`; 0 for no limit"},
		listFlag(flagTrustedProxies, "`CIDR` of proxies whose X-Forwarded-For tells who the client is, for --client-rate; repeatable, or with commas"),
		&cli.DurationFlag{Name: flagDrainFor, Value: drain, EnvVars: env(flagDrainFor),
			Usage: "`TIME` to go on answering lookups after SIGTERM while /health says that this node is shutting down; a second SIGTERM ends it"},
	}
}

// clientConfig reads clientFlags. draining is closed when clients are to leave,
// and nil if they have no time for that.
func clientConfig(c *cli.Context) (limit api.LimitConfig, draining <-chan struct{}, err error) {
	limit.Rate = c.Float64(flagClientRate)
	if limit.Rate < 0 || limit.Rate > maxClientRate || math.IsNaN(limit.Rate) {
		return limit, nil, misused("--%s %v: give lookups a second, up to %v, or 0 for no limit", flagClientRate, limit.Rate, maxClientRate)
	}
	for _, text := range c.StringSlice(flagTrustedProxies) {
		p, err := prefix(strings.TrimSpace(text))
		if err != nil {
			return limit, nil, misused("--%s %q: give addresses such as 10.0.0.0/8 or 10.0.0.7, with commas between them", flagTrustedProxies, text)
		}
		limit.TrustedProxies = append(limit.TrustedProxies, p)
	}
	d := c.Duration(flagDrainFor)
	if d < 0 || d > maxDrain {
		return limit, nil, misused("--%s %v: give a time from 0s to %v", flagDrainFor, d, maxDrain)
	}
	if d > 0 {
		draining = c.Context.Done()
	}
	return limit, draining, nil
}

// prefix reads a CIDR, or an address, which is all of one.
func prefix(text string) (netip.Prefix, error) {
	if p, err := netip.ParsePrefix(text); err == nil {
		return p, nil
	}
	addr, err := netip.ParseAddr(text)
	if err != nil {
		return netip.Prefix{}, err
	}
	return netip.PrefixFrom(addr, addr.BitLen()), nil
}
