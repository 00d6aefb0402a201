package main

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/ipfs/go-cid"
	"github.com/jedib0t/go-pretty/v6/table"
	"github.com/multiformats/go-multihash"
	"github.com/urfave/cli/v2"

	"github.com/signpost-index/signpost/api"
	"github.com/signpost-index/signpost/api/find"
	"github.com/signpost-index/signpost/ingest/metadata"
	"github.com/signpost-index/signpost/ingest/publish"
)

const (
	flagFetch  = "fetch"
	flagOutput = "output"
	// maxShownContext is how much of a context ID the table shows.
	maxShownContext = 24
)

var errNobody = errors.New("nobody provides it")

func findCommand() *cli.Command {
	return &cli.Command{
		Name:      "find",
		Usage:     "ask who provides a CID or multihash, and fetch it",
		ArgsUsage: "CID...",
		Description: "Example:\n" +
			"  signpost find bafkreigh2akiscaildcqabsyg3dfr6chu3fgpregiymsck7e7aqa4s52zy\n" +
			"  signpost find bafy... --json\n" +
			"  signpost find bafy... --fetch --output block.bin\n\n" +
			"A multihash in base58 or hex does as well. Several, up to 1000, are asked about in one request.\n" +
			"Exit code 1 if nobody provides it, or any of them, or if that is denied or not decided.",
		OnUsageError: usageError,
		Flags: []cli.Flag{
			stringFlag(flagFind, defaultFindURL, "`URL` of a frontend or indexer to ask"),
			boolFlag(flagJSON, "print the answer as JSON"),
			boolFlag(flagFetch, "fetch the block from one of its providers and verify it"),
			stringFlag(flagOutput, "", "with --fetch: write the block to `FILE` (- for stdout) instead of telling its size"),
		},
		Action: runFind,
	}
}

func runFind(c *cli.Context) error {
	if c.NArg() == 0 || c.NArg() > find.MaxBatch {
		return misused("find takes 1 to %d CIDs or multihashes, got %d; see signpost find --help", find.MaxBatch, c.NArg())
	}
	if c.NArg() > 1 {
		return runFindBatch(c)
	}
	if c.String(flagOutput) != "" && !c.Bool(flagFetch) {
		return misused("--%s goes with --%s", flagOutput, flagFetch)
	}
	key, err := parseKey(c.Args().First())
	if err != nil {
		return err
	}
	hc := api.NewHTTPClient()
	client, err := find.NewClient(c.String(flagFind), hc)
	if err != nil {
		return misused("--%s: %v", flagFind, err)
	}
	start := time.Now()
	results, partial, err := lookup(c.Context, client, key.Hash())
	if denied := (*find.DeniedError)(nil); errors.As(err, &denied) {
		return fmt.Errorf("%s: %w", c.Args().First(), denied)
	}
	if err != nil {
		return fmt.Errorf("ask %s: %w; is a frontend or indexer running at --%s?", c.String(flagFind), err, flagFind)
	}
	elapsed := time.Since(start)
	if c.Bool(flagJSON) {
		out := find.Response{MultihashResults: []find.MultihashResult{}}
		if len(results) > 0 {
			out.MultihashResults = append(out.MultihashResults, find.MultihashResult{Multihash: key.Hash(), ProviderResults: results})
		}
		if err := json.NewEncoder(c.App.Writer).Encode(out); err != nil {
			return err
		}
	} else if len(results) > 0 {
		fmt.Fprintln(c.App.Writer, resultTable(results))
		fmt.Fprintf(c.App.ErrWriter, "%d results in %v\n", len(results), elapsed.Round(time.Microsecond))
	}
	if partial != nil {
		fmt.Fprintf(c.App.ErrWriter, "the answer may be incomplete: %v\n", partial)
	}
	if len(results) == 0 {
		if partial != nil {
			return fmt.Errorf("%s: not decided: %w", c.Args().First(), partial)
		}
		return fmt.Errorf("%s: %w", c.Args().First(), errNobody)
	}
	if c.Bool(flagFetch) {
		return fetch(c, key, results)
	}
	return nil
}

// parseKey reads a CID, or a multihash as a raw CID.
func parseKey(text string) (cid.Cid, error) {
	if k, err := cid.Parse(text); err == nil {
		return k, nil
	}
	mh, err := find.ParseMultihash(text)
	if err != nil {
		return cid.Undef, misused("%q is neither a CID nor a multihash in base58 or hex", text)
	}
	return cid.NewCidV1(cid.Raw, mh), nil
}

// lookup collects the answer; partial says what part of the pool is missing.
func lookup(ctx context.Context, f find.Finder, mh multihash.Multihash) (results []find.ProviderResult, partial *find.PartialError, err error) {
	for r, err := range f.Find(ctx, mh) {
		if errors.As(err, &partial) {
			break
		}
		if err != nil {
			return nil, nil, err
		}
		results = append(results, r)
	}
	return find.Merge(results), partial, nil
}

func resultTable(results []find.ProviderResult) string {
	t := table.NewWriter()
	t.SetStyle(table.StyleLight)
	t.AppendHeader(table.Row{"provider", "addresses", "protocols", "context ID"})
	for _, r := range results {
		var addrs []string
		for _, a := range r.Provider.Addrs {
			addrs = append(addrs, a.String())
		}
		ctxID := base64.StdEncoding.EncodeToString(r.ContextID)
		if len(ctxID) > maxShownContext {
			ctxID = ctxID[:maxShownContext] + "…"
		}
		t.AppendRow(table.Row{r.Provider.ID, strings.Join(addrs, "\n"), strings.Join(metadata.Protocols(r.Metadata), "\n"), ctxID})
	}
	return t.Render()
}

func fetch(c *cli.Context, key cid.Cid, results []find.ProviderResult) error {
	start := time.Now()
	block, from, err := fetchBlock(c.Context, key, results)
	if err != nil {
		return err
	}
	elapsed := time.Since(start).Round(time.Microsecond)
	switch file := c.String(flagOutput); file {
	case "":
	case "-":
		if _, err := c.App.Writer.Write(block); err != nil {
			return err
		}
	default:
		if err := os.WriteFile(file, block, 0o644); err != nil {
			return fmt.Errorf("--%s: %w", flagOutput, err)
		}
	}
	fmt.Fprintf(c.App.ErrWriter, "fetched %s from %s in %v, bytes verified against the CID\n", bytesText(int64(len(block))), from, elapsed)
	return nil
}

func fetchBlock(ctx context.Context, key cid.Cid, results []find.ProviderResult) ([]byte, string, error) {
	var providers []publish.FetchProvider
	for _, r := range results {
		providers = append(providers, publish.FetchProvider{Addrs: r.Provider.Addrs, Metadata: r.Metadata})
	}
	return publish.Fetch(ctx, api.NewHTTPClient(), key, providers)
}
