package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/urfave/cli/v2"

	"github.com/signpost-index/signpost/api"
	"github.com/signpost-index/signpost/store"
	"github.com/signpost-index/signpost/store/snapshot"
)

const (
	flagQuarantine = "quarantine"
	quarantineDir  = "quarantine"
)

// unchecked is an error after which nothing can be said of a store. It makes the
// exit code 2.
type unchecked struct{ error }

func (u unchecked) Unwrap() error { return u.error }

func checkCommand() *cli.Command {
	return &cli.Command{
		Name:      "check",
		Usage:     "verify the data directory of an indexer that does not run, and set aside what is damaged",
		ArgsUsage: "DIR",
		Description: "Example:\n" +
			"  signpost check /var/lib/signpost\n" +
			"  signpost check /var/lib/signpost --quarantine\n\n" +
			"It reads every block and compares all that must agree. The directory stays as\n" +
			"it is; links in DIR/store/check.tmp are made and removed. With --quarantine, what\n" +
			"is damaged goes to DIR/quarantine, nothing is deleted, and the store opens again:\n" +
			"the output says what was lost and which publishers have to be indexed again,\n" +
			"which the indexer does when it is started. Exit status: 0 sound, 1 damaged, 2 if\n" +
			"it could not be checked. For an indexer that runs: signpost store check.",
		OnUsageError: usageError,
		Flags: []cli.Flag{
			boolFlag(flagQuarantine, "set aside what is damaged and make the store open again"),
			&cli.StringFlag{Name: flagIndexSecret, DefaultText: "index-secret in DIR", EnvVars: env(flagIndexSecret),
				Usage: "`FILE` with the pool's index secret"},
			boolFlag(flagJSON, "print JSON"),
			stringFlag(flagLogLevel, "error", "least level logged to stderr: debug, info, warn or error"),
		},
		Action: runCheck,
	}
}

// checkResult is what check prints.
type checkResult struct {
	Sound      bool
	Damages    int
	Damage     []string  `json:",omitempty"` // the first maxDamageLines
	Aside      []string  `json:",omitempty"`
	Anew       bool      `json:",omitempty"`
	LostShare  float64   `json:",omitempty"`
	Publishers []peer.ID `json:",omitempty"` // to be indexed again
	GivenUp    []peer.ID `json:",omitempty"`
}

// maxDamageLines is how many damages are printed.
const maxDamageLines = 1000

func runCheck(c *cli.Context) error {
	if c.NArg() != 1 {
		return misused("check takes one DIR, an indexer's data directory, got %d; see signpost check --help", c.NArg())
	}
	dir := c.Args().First()
	cfg, err := checkConfig(c, dir)
	if err != nil {
		return unchecked{err}
	}
	var r checkResult
	see := func(d store.Damage) error {
		if r.Damages++; r.Damages <= maxDamageLines {
			r.Damage = append(r.Damage, d.String())
		}
		return nil
	}
	if c.Bool(flagQuarantine) {
		aside := filepath.Join(dir, quarantineDir, time.Now().UTC().Format("20060102T150405.000Z"))
		q, qErr := store.Quarantine(c.Context, cfg, aside)
		for _, d := range q.Damages {
			_ = see(d)
		}
		r.Aside, r.Anew, r.LostShare, r.Publishers, r.GivenUp, err = q.Aside, q.Anew, q.LostShare, q.Publishers, q.GivenUp, qErr
	} else {
		err = store.CheckDir(c.Context, cfg, see)
	}
	if err != nil {
		return unchecked{errors.Join(inUseHint(err), printChecked(c, r))}
	}
	r.Sound = r.Damages == 0
	if err := printChecked(c, r); err != nil {
		return err
	}
	if !r.Sound {
		return errDamaged
	}
	return nil
}

func checkConfig(c *cli.Context, dir string) (cfg store.Config, err error) {
	cfg.Dir = filepath.Join(dir, "store")
	if _, err := os.Stat(dir); err != nil {
		return cfg, err
	}
	secret := c.String(flagIndexSecret)
	if secret == "" {
		secret = filepath.Join(dir, snapshot.SecretFile)
	}
	if cfg.Secret, err = readSecret(secret); err != nil {
		return cfg, err
	}
	cfg.Logger, err = newLogger(c)
	return cfg, err
}

func inUseHint(err error) error {
	if errors.Is(err, store.ErrInUse) {
		return fmt.Errorf("%w; signpost store check asks an indexer that runs", err)
	}
	return err
}

func printChecked(c *cli.Context, r checkResult) error {
	if c.Bool(flagJSON) {
		return json.NewEncoder(c.App.Writer).Encode(r)
	}
	out := c.App.Writer
	for _, line := range r.Damage {
		fmt.Fprintln(out, api.PlainText(line, 0))
	}
	if more := r.Damages - len(r.Damage); more > 0 {
		fmt.Fprintf(out, "and %d more\n", more)
	}
	for _, path := range r.Aside {
		fmt.Fprintf(out, "set aside: %s\n", path)
	}
	switch {
	case r.Anew:
		fmt.Fprintln(out, "the store was begun anew and is empty: everything is fetched again from the publishers when the indexer is started")
	case r.LostShare > 0:
		fmt.Fprintf(out, "postings of %.4f %% of all multihashes may be lost: lookups that find nothing there fail until the publishers below\n"+
			"are indexed again, which begins when the indexer is started, and signpost store mark-whole is given after that\n", 100*r.LostShare)
	case len(r.Aside) > 0:
		fmt.Fprintln(out, "what was committed last is lost, and fetched again from the publishers when the indexer is started")
	}
	for _, p := range r.Publishers {
		fmt.Fprintf(out, "to be indexed again: %s\n", p)
	}
	for _, p := range r.GivenUp {
		fmt.Fprintf(out, "held in part, and not fetched again: %s\n", p)
	}
	if r.Damages == 0 {
		fmt.Fprintln(c.App.ErrWriter, "nothing is damaged")
	}
	return nil
}
