package main

import (
	"encoding/json"
	"errors"
	"fmt"

	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/urfave/cli/v2"

	"github.com/signpost-index/signpost/announce"
	"github.com/signpost-index/signpost/api"
	"github.com/signpost-index/signpost/ingest/ipnisync"
)

var errProbe = errors.New("indexers cannot fetch this publisher's chain")

// announceAndProbe announces and prints what each receiver says of the
// publisher; what one that does not probe would find is looked for from here.
func announceAndProbe(c *cli.Context, a announce.Announce, urls []string) error {
	sender := announce.NewSender(api.NewHTTPClient())
	bad := false
	for _, u := range urls {
		body, err := sender.SendProbe(c.Context, u, a)
		if err != nil {
			return err
		}
		from := u
		var v ipnisync.Verdict
		if len(body) == 0 {
			from = "this machine, as " + u + " does not probe"
			v, err = probeFromHere(c, a.Publisher)
		} else {
			err = json.Unmarshal(body, &v)
		}
		if err != nil {
			return fmt.Errorf("probe by %s: %w", u, err)
		}
		printVerdict(c, from, v)
		bad = bad || !v.OK
	}
	if bad {
		return errProbe
	}
	return nil
}

func probeFromHere(c *cli.Context, info peer.AddrInfo) (ipnisync.Verdict, error) {
	client, done, err := publisherClient()
	if err != nil {
		return ipnisync.Verdict{}, err
	}
	defer done()
	return client.Probe(c.Context, info), nil
}

func printVerdict(c *cli.Context, from string, v ipnisync.Verdict) {
	fmt.Fprintf(c.App.Writer, "seen from %s: %s\n", from, api.PlainText(v.Summary, 0))
	for _, a := range v.Addresses {
		mark := "bad"
		if a.OK {
			mark = "ok"
		}
		fmt.Fprintf(c.App.Writer, "  %-3s  %s: %s\n", mark, api.PlainText(a.Address, 0), api.PlainText(a.Text, 0))
	}
}

// probeInstead says why a publisher has no head that could be announced.
func probeInstead(c *cli.Context, info peer.AddrInfo, headErr error) error {
	v, err := probeFromHere(c, info)
	if err != nil {
		return err
	}
	printVerdict(c, "this machine, nothing was announced", v)
	if v.OK {
		return headErr
	}
	return errProbe
}
