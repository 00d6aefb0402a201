package main

import (
	"errors"
	"fmt"

	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/urfave/cli/v2"

	"github.com/signpost-index/signpost/announce"
	"github.com/signpost-index/signpost/api"
	"github.com/signpost-index/signpost/ingest/ipnisync"
)

const (
	flagTo        = "to"
	flagPublisher = "publisher"
	flagAddr      = "addr"
	flagHead      = "head"
	flagProbe     = "probe"
)

func announceCommand() *cli.Command {
	return &cli.Command{
		Name:  "announce",
		Usage: "tell an assigner or indexer that a publisher has a new head",
		Description: "Example:\n" +
			"  signpost announce --publisher 12D3KooW... --addr https://pub.example.com --to http://localhost:3001\n\n" +
			"Without --head the publisher is asked for its signed head. With --probe the\n" +
			"receiver says in words what is wrong with address, head or signature, if\n" +
			"anything is, and the exit code is 1 then.",
		OnUsageError: usageError,
		Flags: []cli.Flag{
			stringFlag(flagPublisher, "", "`PEERID` of the publisher (required)"),
			listFlag(flagAddr, "`ADDR` (multiaddr or URL) of the publisher; repeatable (required)"),
			stringFlag(flagHead, "", "`CID` of the advertisement to announce (default: the publisher's head)"),
			listFlag(flagTo, "`URL` of an assigner or indexer; repeatable (default: "+defaultAnnounceURL+")"),
			boolFlag(flagProbe, "have the receiver look at the publisher at once, and print what is wrong with it"),
			boolFlag(flagJSON, "send the announce as JSON instead of CBOR"),
		},
		Action: runAnnounce,
	}
}

func runAnnounce(c *cli.Context) error {
	if err := noArgs(c); err != nil {
		return err
	}
	id, err := peer.Decode(c.String(flagPublisher))
	if err != nil {
		return misused("--%s %q: give the publisher's peer ID, such as 12D3KooW...", flagPublisher, c.String(flagPublisher))
	}
	addrs, err := addrFlag(c, flagAddr)
	if err != nil {
		return err
	}
	if len(addrs) == 0 {
		return misused("--%s is required: where the publisher serves its chain", flagAddr)
	}
	info := peer.AddrInfo{ID: id, Addrs: addrs}
	head, err := announcedHead(c, info)
	if err != nil && c.Bool(flagProbe) {
		return probeInstead(c, info, err)
	}
	if err != nil {
		return err
	}
	urls := c.StringSlice(flagTo)
	if len(urls) == 0 {
		urls = []string{defaultAnnounceURL}
	}
	if c.Bool(flagProbe) {
		return announceAndProbe(c, announce.Announce{Head: head, Publisher: info}, urls)
	}
	sender := announce.NewSender(api.NewHTTPClient())
	send := sender.Send
	if c.Bool(flagJSON) {
		send = sender.SendJSON
	}
	var errs []error
	for _, u := range urls {
		if err := send(c.Context, u, announce.Announce{Head: head, Publisher: info}); err != nil {
			errs = append(errs, err)
			continue
		}
		fmt.Fprintf(c.App.ErrWriter, "announced %s to %s\n", head, u)
	}
	return errors.Join(errs...)
}

// announcedHead is --head, or what the publisher's signed head names.
func announcedHead(c *cli.Context, info peer.AddrInfo) (cid.Cid, error) {
	if text := c.String(flagHead); text != "" {
		head, err := cid.Parse(text)
		if err != nil {
			return cid.Undef, misused("--%s %q: %v", flagHead, text, err)
		}
		return head, nil
	}
	client, done, err := publisherClient()
	if err != nil {
		return cid.Undef, err
	}
	defer done()
	pub, err := client.Publisher(info)
	if err != nil {
		return cid.Undef, misused("--%s: %v", flagAddr, err)
	}
	head, err := pub.Head(c.Context)
	if err != nil {
		return cid.Undef, fmt.Errorf("ask the publisher for its head: %w", err)
	}
	return head.Head, nil
}

// publisherClient fetches from publishers wherever they are; done closes it.
func publisherClient() (client *ipnisync.Client, done func(), err error) {
	streams, err := ipnisync.OpenStreams(true)
	if err != nil {
		return nil, nil, err
	}
	client = ipnisync.NewClient(ipnisync.ClientConfig{AllowPrivate: true, Streams: streams})
	return client, func() {
		client.Close()
		_ = streams.Close()
	}, nil
}
