package main

import (
	"io"
	"log/slog"
	"os"

	"github.com/urfave/cli/v2"

	"github.com/signpost-index/signpost/api"
	"github.com/signpost-index/signpost/ingest/schema"
)

// The checks of a role's settings: what its start would refuse, but for what can
// only be known by making or opening something.

func checkIndexer(c *cli.Context) error {
	if _, err := indexerValues(c); err != nil {
		return err
	}
	return firstError(
		checkListeners(c, flagListenFind, flagListenIngest, flagListenAdmin, flagMetrics),
		checkGossip(c), checkDenylist(c), checkSecretFile(c),
	)
}

func checkAssigner(c *cli.Context) error {
	if err := assignerNumbers(c); err != nil {
		return err
	}
	if _, err := operatingConfig(c); err != nil {
		return err
	}
	gossip, err := gossipConfig(c, nil, quiet)
	if err != nil {
		return err
	}
	_, err = announceConfig(c, gossip != nil)
	return firstError(err, checkLevel(c), checkServing(c), checkListeners(c, flagListenAdmin, flagMetrics))
}

func checkFrontend(c *cli.Context) error {
	pool := &frontendPool{c: c}
	if err := pool.check(); err != nil {
		return err
	}
	_, cacheErr := cacheFor(c)
	_, memoryErr := byteSize(c, flagFilterMemory)
	_, _, clientErr := clientConfig(c)
	return firstError(
		cacheErr, memoryErr, clientErr, checkLevel(c), checkServing(c), checkListeners(c, flagMetrics),
		checkDenylist(c), checkSecretFile(c), checkURL(c, flagAssigner), checkResolver(c.String(flagResolver)), checkSecurity(c),
	)
}

func checkDev(c *cli.Context) error {
	_, freezeErr := freezePercent(c)
	_, cacheErr := cacheFor(c)
	err := firstError(devNumbers(c), dataGiven(c), freezeErr, cacheErr, checkLevel(c), checkGossip(c), checkDenylist(c))
	for _, flag := range []string{flagListen, flagListenAnnounce} {
		if err == nil && c.String(flag) != "" {
			err = checkListen(c, flag)
		}
	}
	return err
}

func checkPublish(c *cli.Context) error {
	_, urlErr := announceURLs(c)
	_, codecErr := codecFlag(c)
	_, metadataErr := metadataFlag(c, flagMetadata)
	_, updateErr := metadataFlag(c, flagUpdateMetadata)
	_, publisherErr := addrFlag(c, flagPublisherAddr)
	_, providerErr := addrFlag(c, flagProviderAddr)
	if _, err := newIndexWatch(c.String(flagFind), api.NewHTTPClient(), nil); err != nil {
		return misused("--%s: %v", flagFind, err)
	}
	return firstError(urlErr, dataGiven(c), codecErr, metadataErr, updateErr, publisherErr, providerErr,
		checkLevel(c), checkListen(c, flagListen), checkGossip(c), checkSecurity(c))
}

// firstError is the first that is not nil.
func firstError(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

// quiet logs nothing: a check opens nothing that would.
var quiet = slog.New(slog.NewTextHandler(io.Discard, nil))

func checkLevel(c *cli.Context) error {
	_, err := newLogger(c)
	return err
}

func checkGossip(c *cli.Context) error {
	_, err := gossipConfig(c, nil, quiet)
	return err
}

func checkDenylist(c *cli.Context) error {
	_, err := openDenylist(c, quiet, nil)
	return err
}

// checkListeners is about those that may be none.
func checkListeners(c *cli.Context, flags ...string) error {
	for _, flag := range flags {
		if c.String(flag) == none {
			continue
		}
		if err := checkListen(c, flag); err != nil {
			return err
		}
	}
	return nil
}

// checkServing is about the one listener a role cannot do without.
func checkServing(c *cli.Context) error {
	if c.String(flagListen) == none {
		return errNoListener(c)
	}
	return checkListen(c, flagListen)
}

func errNoListener(c *cli.Context) error {
	return misused("--%s none: the %s needs a listener; give host:port", flagListen, c.Command.Name)
}

// checkSecretFile reads the index secret if there is one.
func checkSecretFile(c *cli.Context) error {
	file := c.String(flagIndexSecret)
	if file == "" {
		return nil
	}
	if _, err := os.Stat(file); os.IsNotExist(err) {
		return nil // it is made
	}
	_, err := loadSecret(file)
	return err
}

func checkURL(c *cli.Context, flag string) error {
	if c.String(flag) == "" {
		return nil
	}
	if _, err := api.ParseBaseURL(c.String(flag)); err != nil {
		return misused("--%s: %v", flag, err)
	}
	return nil
}

func codecFlag(c *cli.Context) (schema.Codec, error) {
	switch name := c.String(flagCodec); name {
	case "dag-json":
		return schema.DagJSON, nil
	case "dag-cbor":
		return schema.DagCBOR, nil
	default:
		return 0, misused("--%s %q: use dag-json or dag-cbor", flagCodec, name)
	}
}
