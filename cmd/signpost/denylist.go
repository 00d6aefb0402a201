package main

import (
	"context"
	"log/slog"

	"github.com/urfave/cli/v2"

	"github.com/signpost-index/signpost/api/find/deny"
)

const flagDenylist = "denylist"

func denylistFlag() cli.Flag {
	return stringFlag(flagDenylist, "", "`FILE` of multihashes, double hashes, providers and contexts not to answer for (410); read again when it changes and on SIGHUP")
}

// openDenylist reads the list of --denylist; nil if there is none. taken, if not
// nil, is called after each later list.
func openDenylist(c *cli.Context, log *slog.Logger, taken func()) (*deny.List, error) {
	file := c.String(flagDenylist)
	if file == "" {
		return nil, nil
	}
	list, err := deny.Open(deny.Config{File: file, Taken: taken, Logger: log})
	if err != nil {
		return nil, misused("--%s: %v", flagDenylist, err)
	}
	return list, nil
}

// followDenylist keeps list, if there is one, as its file is.
func followDenylist(list *deny.List, log *slog.Logger) task {
	if list == nil {
		return func(context.Context) error { return nil }
	}
	return together(list.Run, reloadOnHangup(log, "denylist", list.Reload))
}
