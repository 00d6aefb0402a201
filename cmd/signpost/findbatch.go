package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/multiformats/go-multihash"
	"github.com/urfave/cli/v2"

	"github.com/signpost-index/signpost/api"
	"github.com/signpost-index/signpost/api/find"
)

// runFindBatch asks about several keys in one request.
func runFindBatch(c *cli.Context) error {
	if c.Bool(flagFetch) || c.String(flagOutput) != "" {
		return misused("--%s takes one CID, got %d", flagFetch, c.NArg())
	}
	texts := make(map[string]string) // as given, by multihash
	var keys []multihash.Multihash
	for _, arg := range c.Args().Slice() {
		key, err := parseKey(arg)
		if err != nil {
			return err
		}
		if _, twice := texts[string(key.Hash())]; !twice {
			texts[string(key.Hash())], keys = arg, append(keys, key.Hash())
		}
	}
	client, err := find.NewClient(c.String(flagFind), api.NewHTTPClient())
	if err != nil {
		return misused("--%s: %v", flagFind, err)
	}
	start := time.Now()
	b, err := find.FindBatch(c.Context, client, keys)
	if err != nil {
		return fmt.Errorf("ask %s: %w; is a frontend or indexer running at --%s?", c.String(flagFind), err, flagFind)
	}
	elapsed := time.Since(start)
	if err := printBatch(c, b, texts); err != nil {
		return err
	}
	if len(b.Missing) > 0 {
		fmt.Fprintf(c.App.ErrWriter, "the answer may be incomplete: %v\n", &find.PartialError{Missing: b.Missing})
	}
	fmt.Fprintf(c.App.ErrWriter, "%d of %d found in %v\n", len(b.Results), len(keys), elapsed.Round(time.Microsecond))
	return batchError(b, keys, texts)
}

// denied is a denied key as a frontend's answer has it.
type denied struct {
	Key    string
	Kind   find.DenyKind
	Reason string
}

func printBatch(c *cli.Context, b find.Batch, texts map[string]string) error {
	if c.Bool(flagJSON) {
		out := struct {
			MultihashResults []find.MultihashResult
			Unknown          []string `json:",omitempty"`
			Denied           []denied `json:",omitempty"`
		}{MultihashResults: []find.MultihashResult{}}
		for _, r := range b.Results {
			r.ProviderResults = find.Merge(r.ProviderResults)
			out.MultihashResults = append(out.MultihashResults, r)
		}
		for _, mh := range b.Unknown {
			out.Unknown = append(out.Unknown, texts[string(mh)])
		}
		for _, d := range b.Denied {
			out.Denied = append(out.Denied, denied{texts[string(d.Multihash)], d.Err.Kind, d.Err.Reason})
		}
		return json.NewEncoder(c.App.Writer).Encode(out)
	}
	for _, r := range b.Results {
		fmt.Fprintf(c.App.Writer, "%s\n%s\n", texts[string(r.Multihash)], resultTable(find.Merge(r.ProviderResults)))
	}
	return nil
}

// batchError names the keys that were not found, those not decided, and those
// denied.
func batchError(b find.Batch, keys []multihash.Multihash, texts map[string]string) error {
	var nobody, open []string
	for _, mh := range keys {
		same := func(other multihash.Multihash) bool { return string(other) == string(mh) }
		switch {
		case slices.ContainsFunc(b.Results, func(r find.MultihashResult) bool { return same(r.Multihash) }):
		case slices.ContainsFunc(b.Denied, func(d find.Denied) bool { return same(d.Multihash) }):
		case slices.ContainsFunc(b.Unknown, same):
			open = append(open, texts[string(mh)])
		default:
			nobody = append(nobody, texts[string(mh)])
		}
	}
	var errs []error
	if len(nobody) > 0 {
		errs = append(errs, fmt.Errorf("%s: %w", strings.Join(nobody, ", "), errNobody))
	}
	if len(open) > 0 {
		errs = append(errs, fmt.Errorf("%s: not decided: %w", strings.Join(open, ", "), &find.PartialError{Missing: b.Missing}))
	}
	for _, d := range b.Denied {
		errs = append(errs, fmt.Errorf("%s: %w", texts[string(d.Multihash)], d.Err))
	}
	return errors.Join(errs...)
}
