package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/jedib0t/go-pretty/v6/table"
	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/urfave/cli/v2"

	"github.com/signpost-index/signpost/store"
	"github.com/signpost-index/signpost/store/snapshot"
)

const (
	flagSnapshot = "snapshot"
	flagList     = "list"
)

func restoreCommand() *cli.Command {
	return &cli.Command{
		Name:      "restore",
		Usage:     "make a data directory of a snapshot; the indexer started on it catches up from the chains",
		ArgsUsage: "SOURCE",
		Description: "Example:\n" +
			"  signpost restore /mnt/backup/node1 --list\n" +
			"  signpost restore /mnt/backup/node1 --data /var/lib/signpost \\\n" +
			"    --index-secret /safe/index-secret --identity /safe/node1/identity.key\n" +
			"  signpost indexer --data /var/lib/signpost\n\n" +
			"The index secret must be that of the snapshot; every node of the pool has it.\n" +
			"Without the node's identity key the restored node is a new one to the pool.\n" +
			"Every file is compared with what was written. A restore that was killed is\n" +
			"begun again with the same command.",
		OnUsageError: usageError,
		Flags: []cli.Flag{
			stringFlag(flagData, "", "`DIR` to restore to: missing or empty (required)"),
			stringFlag(flagSnapshot, "", "`ID` of the snapshot; the newest if absent"),
			stringFlag(flagIndexSecret, "", "`FILE` with the pool's index secret; required unless it is in the snapshot"),
			stringFlag(flagIdentity, "", "`FILE` with the lost node's identity.key"),
			boolFlag(flagList, "list the snapshots of SOURCE and do nothing"),
			boolFlag(flagJSON, "print JSON"),
		},
		Action: runRestore,
	}
}

func runRestore(c *cli.Context) error {
	if c.NArg() != 1 {
		return misused("restore takes one SOURCE, a directory or s3:// URL, got %d; see signpost restore --help", c.NArg())
	}
	if c.Bool(flagList) {
		return listSnapshots(c)
	}
	cfg := snapshot.RestoreConfig{URL: c.Args().First(), ID: c.String(flagSnapshot), Dir: c.String(flagData)}
	if cfg.Dir == "" {
		return misused("--%s is required: name a directory that is missing or empty", flagData)
	}
	var err error
	if file := c.String(flagIndexSecret); file != "" {
		if cfg.Secret, err = readSecret(file); err != nil {
			return err
		}
	}
	if file := c.String(flagIdentity); file != "" {
		if cfg.Identity, err = os.ReadFile(file); err != nil {
			return fmt.Errorf("--%s: %w", flagIdentity, err)
		}
		if _, err := crypto.UnmarshalPrivateKey(cfg.Identity); err != nil {
			return misused("--%s %s: %v", flagIdentity, file, err)
		}
	}
	done, err := snapshot.Restore(c.Context, cfg)
	switch {
	case errors.Is(err, snapshot.ErrNoSecret):
		return misused("%v; give the pool's --%s file: another node of the pool has it", err, flagIndexSecret)
	case errors.Is(err, store.ErrOtherSecret):
		return fmt.Errorf("--%s: %w; give the file of the pool this node was in", flagIndexSecret, err)
	case err != nil:
		return err
	}
	return printRestored(c, cfg, done)
}

func printRestored(c *cli.Context, cfg snapshot.RestoreConfig, done snapshot.Restored) error {
	m := done.Manifest
	if c.Bool(flagJSON) {
		return json.NewEncoder(c.App.Writer).Encode(snapshotResult{Snapshot: m.ID, Time: m.Time, Files: len(m.Files), Bytes: m.Bytes(),
			CopiedFiles: len(m.Files), CopiedBytes: m.Bytes(), Seconds: done.Elapsed.Seconds()})
	}
	fmt.Fprintln(c.App.Writer, m.ID)
	fmt.Fprintf(c.App.ErrWriter, "restored what %s had at %s: %d files of %s in %s (%s)\n", m.Node, m.Time.Format(time.RFC3339), len(m.Files),
		bytesText(m.Bytes()), done.Elapsed.Round(time.Millisecond), rateText(m.Bytes(), done.Elapsed))
	node := m.Node
	if cfg.Identity != nil {
		key, err := crypto.UnmarshalPrivateKey(cfg.Identity)
		if err != nil {
			return err
		}
		if node, err = peer.IDFromPrivateKey(key); err != nil {
			return err
		}
	}
	switch {
	case cfg.Identity == nil && !m.Has(snapshot.IdentityFile):
		fmt.Fprintf(c.App.ErrWriter, "the node gets an identity of its own when it starts: to the pool it is a new indexer. To make it %s again,\n"+
			"put its identity.key into %s first\n", m.Node, cfg.Dir)
	case node != m.Node:
		fmt.Fprintf(c.App.ErrWriter, "the identity is that of %s, the snapshot was taken of %s\n", node, m.Node)
	}
	return nil
}

func listSnapshots(c *cli.Context) error {
	list, err := snapshot.List(c.Context, c.Args().First())
	if c.Bool(flagJSON) {
		out := make([]snapshotResult, len(list))
		for n, m := range list {
			out[n] = snapshotResult{Snapshot: m.ID, Time: m.Time, Files: len(m.Files), Bytes: m.Bytes()}
		}
		return errors.Join(err, json.NewEncoder(c.App.Writer).Encode(out))
	}
	t := table.NewWriter()
	t.SetStyle(table.StyleLight)
	t.AppendHeader(table.Row{"snapshot", "age", "size", "files", "publishers", "format", "keys", "node"})
	for _, m := range list {
		keys := "not in it"
		if m.Private() {
			keys = "in it"
		}
		t.AppendRow(table.Row{m.ID, age(m.Time), bytesText(m.Bytes()), len(m.Files), len(m.Marks), m.Format, keys, m.Node})
	}
	fmt.Fprintln(c.App.Writer, t.Render())
	return err
}
