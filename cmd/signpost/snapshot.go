package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/signpost-index/signpost/api/admin"
	"github.com/signpost-index/signpost/store"
	"github.com/signpost-index/signpost/store/snapshot"
)

const (
	flagKeep     = "keep"
	flagRate     = "rate"
	flagWithKeys = "with-keys"
)

func snapshotCommand() *cli.Command {
	return &cli.Command{
		Name:      "snapshot",
		Usage:     "copy a running indexer's data to a directory or bucket, as far as it is not there",
		ArgsUsage: "DEST",
		Description: "Example:\n" +
			"  signpost snapshot /mnt/backup/node1 --keep 7\n" +
			"  signpost snapshot 's3://backups/node1?region=eu-west-1' --rate 50MiB\n" +
			"  signpost snapshot 's3://backups/node1?endpoint=https://minio.example:9000'\n\n" +
			"It runs on the indexer's machine and may read its data directory. Credentials\n" +
			"of a bucket come from the environment (AWS_ACCESS_KEY_ID and the like) or the\n" +
			"shared files of AWS. Each node needs a DEST of its own. Keys are not copied\n" +
			"unless asked for: keep identity.key and index-secret where you keep passwords.\n" +
			"signpost restore brings a node up from it.",
		OnUsageError: usageError,
		Flags: adminFlags(
			&cli.IntFlag{Name: flagKeep, EnvVars: env(flagKeep), Usage: "snapshots to keep at DEST, `COUNT`; older ones go; 0 for all"},
			stringFlag(flagRate, "0", "`BYTES` a second to read and send at most; 0 for no limit"),
			boolFlag(flagWithKeys, "put the node's private key and the index secret into the snapshot too, not encrypted"),
			&cli.StringFlag{Name: flagIndexSecret, DefaultText: "index-secret in the indexer's data directory", EnvVars: env(flagIndexSecret),
				Usage: "`FILE` with the pool's index secret, for --with-keys"},
			boolFlag(flagJSON, "print JSON"),
			logLevelFlag(),
		),
		Action: runSnapshot,
	}
}

// snapshotResult is what snapshot prints.
type snapshotResult struct {
	Snapshot    string
	Time        time.Time
	Files       int
	Bytes       int64
	CopiedFiles int
	CopiedBytes int64
	Removed     int     // older snapshots
	Seconds     float64 // that copying took
}

func runSnapshot(c *cli.Context) error {
	if c.NArg() != 1 {
		return misused("snapshot takes one DEST, a directory or s3:// URL, got %d; see signpost snapshot --help", c.NArg())
	}
	cfg := snapshot.TakeConfig{URL: c.Args().First(), Keep: c.Int(flagKeep)}
	if cfg.Keep < 0 {
		return misused("--%s %d: give a number of snapshots, or 0 for all", flagKeep, cfg.Keep)
	}
	var err error
	if cfg.RateBytes, err = byteSize(c, flagRate); err != nil {
		return err
	}
	if cfg.Logger, err = newLogger(c); err != nil {
		return err
	}
	client, err := adminClient(c)
	if err != nil {
		return err
	}
	point, err := client.BeginSnapshot(c.Context)
	if err != nil {
		return askedAdmin(c, err)
	}
	taken, err := takeSnapshot(c, client, point, cfg)
	if err != nil {
		return err
	}
	return printSnapshot(c, taken)
}

// takeSnapshot copies a checkpoint while it is kept, and gives it back.
func takeSnapshot(c *cli.Context, client *admin.Client, point admin.Checkpoint, cfg snapshot.TakeConfig) (taken snapshot.Taken, err error) {
	ctx, lost := context.WithCancelCause(c.Context)
	kept := make(chan struct{})
	go func() {
		defer close(kept)
		keepLent(ctx, client, point, cfg.Logger, lost)
	}()
	defer func() {
		lost(nil)
		<-kept
		// The caller may have been told to stop.
		end, cancel := context.WithTimeout(context.WithoutCancel(c.Context), endPatience)
		defer cancel()
		if endErr := client.EndSnapshot(end, point.ID); endErr != nil && !errors.Is(endErr, admin.ErrNotFound) {
			cfg.Logger.Warn("the indexer's checkpoint was not given back: it removes it by itself", "err", endErr)
		}
	}()
	if _, err := os.Stat(filepath.Join(point.Dir, "FORMAT")); err != nil {
		return taken, fmt.Errorf("read the indexer's checkpoint: %w; run signpost snapshot on the indexer's machine, as its user", err)
	}
	cfg.Checkpoint = point.Dir
	cfg.Head = snapshot.Manifest{Time: point.Time, Node: point.Node, Format: point.Format, Secret: point.Secret, Postings: point.Postings, Records: point.Records}
	for _, m := range point.Marks {
		cfg.Head.Marks = append(cfg.Head.Marks, snapshot.Mark(m))
	}
	cfg.Held = func(ctx context.Context) error { return client.RenewSnapshot(ctx, point.ID) }
	if cfg.Private, err = privateFiles(c, point); err != nil {
		return taken, err
	}
	taken, err = snapshot.Take(ctx, cfg)
	if cause := context.Cause(ctx); err != nil && cause != nil {
		err = errors.Join(err, cause)
	}
	return taken, err
}

// endPatience is how long giving back a checkpoint may take.
const endPatience = 30 * time.Second

// keepLent renews the lease until ctx ends, and calls lost if it is over.
func keepLent(ctx context.Context, client *admin.Client, point admin.Checkpoint, log *slog.Logger, lost func(error)) {
	tick := time.NewTicker(max(time.Duration(point.LeaseSeconds*float64(time.Second))/5, 10*time.Millisecond))
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		err := client.RenewSnapshot(ctx, point.ID)
		if errors.Is(err, admin.ErrNotFound) {
			lost(errors.New("the indexer has removed the checkpoint: it was started again, or could not be reached for too long"))
			return
		}
		if err != nil && ctx.Err() == nil {
			log.Warn("checkpoint could not be renewed", "err", err)
		}
	}
}

// privateFiles are the keys that are to be in the snapshot.
func privateFiles(c *cli.Context, point admin.Checkpoint) (map[string]string, error) {
	if !c.Bool(flagWithKeys) {
		return nil, nil
	}
	secret := c.String(flagIndexSecret)
	if secret == "" {
		secret = filepath.Join(point.DataDir, snapshot.SecretFile)
	}
	b, err := readSecret(secret)
	if err != nil {
		return nil, err
	}
	if store.SecretID(b) != point.Secret {
		return nil, misused("--%s %s: this is not the secret of the indexer", flagIndexSecret, secret)
	}
	return map[string]string{snapshot.SecretFile: secret, snapshot.IdentityFile: filepath.Join(point.DataDir, snapshot.IdentityFile)}, nil
}

// readSecret reads a file that must be there.
func readSecret(file string) ([]byte, error) {
	b, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("--%s: %w", flagIndexSecret, err)
	}
	if len(b) != secretBytes {
		return nil, misused("--%s %s: holds %d bytes, want %d", flagIndexSecret, file, len(b), secretBytes)
	}
	return b, nil
}

func printSnapshot(c *cli.Context, taken snapshot.Taken) error {
	m := taken.Manifest
	r := snapshotResult{Snapshot: m.ID, Time: m.Time, Files: len(m.Files), Bytes: m.Bytes(), CopiedFiles: taken.CopiedFiles,
		CopiedBytes: taken.CopiedBytes, Removed: taken.Removed, Seconds: taken.Elapsed.Seconds()}
	if c.Bool(flagJSON) {
		return json.NewEncoder(c.App.Writer).Encode(r)
	}
	fmt.Fprintln(c.App.Writer, r.Snapshot)
	fmt.Fprintf(c.App.ErrWriter, "%d files of %s, of which %s in %d files were copied, in %s (%s); %d older snapshots were removed\n",
		r.Files, bytesText(r.Bytes), bytesText(r.CopiedBytes), r.CopiedFiles, taken.Elapsed.Round(time.Millisecond),
		rateText(r.CopiedBytes, taken.Elapsed), r.Removed)
	if m.Private() {
		fmt.Fprintln(c.App.ErrWriter, "the node's private key and the index secret are in it, not encrypted: whoever reads it can pose as the node")
	}
	return nil
}

func rateText(n int64, in time.Duration) string {
	if in <= 0 {
		return "at once"
	}
	return bytesText(int64(float64(n)/in.Seconds())) + "/s"
}
