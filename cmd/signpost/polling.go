package main

import (
	"time"

	"github.com/urfave/cli/v2"

	"github.com/signpost-index/signpost/indexer"
)

const (
	flagPollInterval    = "poll-interval"
	flagPollRetry       = "poll-retry"
	flagDeactivateAfter = "deactivate-after"
	flagRemoveAfter     = "remove-after"
)

// pollFlags are about publishers that are silent.
func pollFlags() []cli.Flag {
	flag := func(name string, value time.Duration, usage string) cli.Flag {
		return &cli.DurationFlag{Name: name, Value: value, EnvVars: env(name), Usage: usage}
	}
	return []cli.Flag{
		flag(flagPollInterval, indexer.DefaultPollInterval, "ask a publisher that was silent for this `TIME`; 0: never, and then none is removed"),
		flag(flagPollRetry, indexer.DefaultPollRetry, "`TIME` between two questions to a silent publisher; 0: --poll-interval"),
		flag(flagDeactivateAfter, indexer.DefaultDeactivateAfter, "hide the providers of a publisher that was asked in vain for this `TIME`; 0: never"),
		flag(flagRemoveAfter, indexer.DefaultRemoveAfter, "remove what a publisher that was asked in vain for this `TIME` has published; 0: never"),
	}
}

// pollConfig reads the flags; what is 0 there is never.
func pollConfig(c *cli.Context) (p indexer.PollConfig, err error) {
	for name, to := range map[string]*time.Duration{
		flagPollInterval: &p.Interval, flagPollRetry: &p.Retry, flagDeactivateAfter: &p.DeactivateAfter, flagRemoveAfter: &p.RemoveAfter,
	} {
		d := c.Duration(name)
		if d != 0 && d < time.Second {
			return p, misused("--%s %v: give a time of a second or more, such as 24h, or 0", name, d)
		}
		if *to = d; d == 0 {
			*to = -1
		}
	}
	return p, nil
}
