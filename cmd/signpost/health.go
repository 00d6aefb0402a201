package main

import (
	"encoding/json"
	"fmt"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/signpost-index/signpost/api"
	"github.com/signpost-index/signpost/api/health"
)

// Exit codes of signpost health URL, as monitoring programs take them.
const (
	exitWarning  = 1
	exitCritical = 2
	exitUnknown  = 3
)

func healthCommand() *cli.Command {
	return &cli.Command{
		Name:      "health",
		Usage:     "show what is wrong with a daemon, or list all health codes with their remedies",
		ArgsUsage: "[URL]",
		Description: "Example:\n" +
			"  signpost health\n" +
			"  signpost health http://localhost:3002\n\n" +
			"Without a URL it lists all codes. With the admin URL of an indexer or assigner, or\n" +
			"the --listen-metrics URL of a frontend, it shows what is so there now, and the exit\n" +
			"status is 0 if nothing is wrong or all is info, 1 if the worst is a warning, 2 if\n" +
			"something is critical, and 3 if nobody answers.",
		OnUsageError: usageError,
		Flags: []cli.Flag{
			stringFlag(flagAdmin, "", "`URL` of the daemon to ask, the same as the argument"),
			stringFlag(flagAdminToken, "", "`FILE` with the token of the admin API"),
			boolFlag(flagJSON, "print JSON"),
		},
		Action: runHealth,
	}
}

func runHealth(c *cli.Context) error {
	at := c.String(flagAdmin)
	switch {
	case c.NArg() > 1, c.NArg() == 1 && c.IsSet(flagAdmin):
		return misused("health takes one URL; see signpost health --help")
	case c.NArg() == 1:
		at = c.Args().First()
	}
	if at == "" {
		return listCodes(c)
	}
	if _, err := api.ParseBaseURL(at); err != nil {
		return misused("health: %v", err)
	}
	token, err := readToken(c.String(flagAdminToken))
	if err != nil {
		return err
	}
	hc := api.NewHTTPClient()
	defer hc.CloseIdleConnections()
	r, err := health.Ask(c.Context, hc, at, token)
	if err != nil {
		return exitError{exitUnknown, fmt.Errorf("ask for health: %w; give the admin URL of an indexer or assigner, or the metrics URL of a frontend", err)}
	}
	if err := showHealth(c, r); err != nil {
		return err
	}
	switch r.Severity {
	case health.Critical:
		return exitError{code: exitCritical}
	case health.Warning:
		return exitError{code: exitWarning}
	}
	return nil
}

func showHealth(c *cli.Context, r health.Report) error {
	out := c.App.Writer
	if c.Bool(flagJSON) {
		return json.NewEncoder(out).Encode(r)
	}
	if len(r.Conditions) == 0 {
		fmt.Fprintln(out, "ok")
		return nil
	}
	for _, h := range r.Conditions {
		fmt.Fprintf(out, "%-8s  %s  since %s\n", h.Severity, api.PlainText(string(h.Code), 100), h.Since.Format(time.RFC3339))
		fmt.Fprintf(out, "          %s: %s\n", api.PlainText(h.Meaning, 0), api.PlainText(h.Detail, 1000))
		fmt.Fprintf(out, "          do: %s\n", api.PlainText(h.Remedy, 0))
	}
	return nil
}

func listCodes(c *cli.Context) error {
	if c.Bool(flagJSON) {
		return json.NewEncoder(c.App.Writer).Encode(health.Definitions())
	}
	for _, d := range health.Definitions() {
		fmt.Fprintf(c.App.Writer, "%-8s  %s  (%s)\n          %s\n          do: %s\n", d.Severity, d.Code, d.Roles, d.Meaning, d.Remedy)
	}
	return nil
}

// exitError ends the process with a code; nothing is printed if there is no error.
type exitError struct {
	code int
	err  error
}

func (e exitError) Error() string {
	if e.err == nil {
		return ""
	}
	return e.err.Error()
}

func (e exitError) Unwrap() error { return e.err }
