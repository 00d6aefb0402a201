package main

import (
	"fmt"

	"github.com/urfave/cli/v2"
)

func freezeCommand() *cli.Command {
	return &cli.Command{
		Name:  "freeze",
		Usage: "make an indexer take no new content, from now on and across restarts",
		Description: "Example:\n" +
			"  signpost freeze --admin http://localhost:3002\n\n" +
			"The node goes on answering lookups and applying removals and updates. In a pool\n" +
			"the assigner hands its publishers to other nodes. signpost unfreeze ends it.",
		OnUsageError: usageError,
		Flags:        adminFlags(),
		Action:       runFreeze,
	}
}

func unfreezeCommand() *cli.Command {
	return &cli.Command{
		Name:  "unfreeze",
		Usage: "make a frozen indexer take content again",
		Description: "Example:\n" +
			"  signpost unfreeze --admin http://localhost:3002\n\n" +
			"Refused while the disk is above the limit, as the node would freeze again at\n" +
			"once. What it was announced meanwhile and skipped is fetched, but of publishers\n" +
			"that were handed to other nodes.",
		OnUsageError: usageError,
		Flags:        adminFlags(),
		Action:       runUnfreeze,
	}
}

func runFreeze(c *cli.Context) error {
	if err := noArgs(c); err != nil {
		return err
	}
	client, err := adminClient(c)
	if err != nil {
		return err
	}
	if err := client.Freeze(c.Context); err != nil {
		return askedAdmin(c, err)
	}
	fmt.Fprintf(c.App.ErrWriter, "%s is frozen: it takes no new content; lookups, removals and updates go on\n", client)
	return nil
}

func runUnfreeze(c *cli.Context) error {
	if err := noArgs(c); err != nil {
		return err
	}
	client, err := adminClient(c)
	if err != nil {
		return err
	}
	if err := client.Unfreeze(c.Context); err != nil {
		return askedAdmin(c, err)
	}
	fmt.Fprintf(c.App.ErrWriter, "%s takes content again; what it skipped while frozen it fetches now\n", client)
	return nil
}
