package main

import (
	"slices"

	"github.com/urfave/cli/v2"

	"github.com/signpost-index/signpost/api"
	"github.com/signpost-index/signpost/assigner"
)

const (
	flagJournal         = "journal"
	flagForwardGossip   = "forward-gossip"
	flagForwardAnnounce = "forward-announce"
	flagStandbyFor      = "standby-for"
)

// announceFlags say what an assigner does with announces.
func announceFlags() []cli.Flag {
	return []cli.Flag{
		stringFlag(flagJournal, "", "`DIR` where announces are kept until an indexer has taken them; without it a sender waits for that"),
		boolFlag(flagForwardGossip, "publish announces that came by HTTP on gossip"),
		listFlag(flagForwardAnnounce, "base `URL` that gets every announce besides the pool; repeatable"),
		stringFlag(flagStandbyFor, "", "base `URL` of another assigner of the same pool: do nothing as long as it answers"),
	}
}

func announceConfig(c *cli.Context, gossip bool) (assigner.AnnounceConfig, error) {
	cfg := assigner.AnnounceConfig{
		Journal:       c.String(flagJournal),
		ForwardGossip: c.Bool(flagForwardGossip),
		ForwardURLs:   c.StringSlice(flagForwardAnnounce),
		StandbyFor:    c.String(flagStandbyFor),
	}
	if cfg.ForwardGossip && !gossip {
		return cfg, misused("--%s: there is no gossip; give --%s or --%s", flagForwardGossip, flagListenP2P, flagGossipPeer)
	}
	for i, u := range cfg.ForwardURLs {
		if _, err := api.ParseBaseURL(u); err != nil {
			return cfg, misused("--%s: %v", flagForwardAnnounce, err)
		}
		if slices.Contains(cfg.ForwardURLs[:i], u) {
			return cfg, misused("--%s %s: given twice", flagForwardAnnounce, u)
		}
	}
	if cfg.StandbyFor != "" {
		if _, err := api.ParseBaseURL(cfg.StandbyFor); err != nil {
			return cfg, misused("--%s: %v", flagStandbyFor, err)
		}
	}
	return cfg, nil
}
