package main

import (
	"log/slog"
	"net"
	"slices"

	"github.com/urfave/cli/v2"

	"github.com/signpost-index/signpost/api"
	"github.com/signpost-index/signpost/api/admin"
)

const (
	flagTLSCert  = "tls-cert"
	flagTLSKey   = "tls-key"
	flagTLSRoots = "tls-ca"
	flagClientCA = "client-ca"
	flagAuditLog = "audit-log"
)

// tlsFlags are those of a daemon.
func tlsFlags() []cli.Flag {
	return append([]cli.Flag{
		stringFlag(flagTLSCert, "", "`FILE` with the certificate chain, PEM, to serve TLS with on all HTTP listeners; also shown to servers that ask for one"),
		stringFlag(flagTLSKey, "", "`FILE` with the key of --tls-cert, PEM"),
	}, rootsFlag())
}

func rootsFlag() cli.Flag {
	return stringFlag(flagTLSRoots, "", "`FILE` with certificates of authorities, PEM, to trust besides the system's")
}

// askOverTLS gives commands that ask a server what it takes to ask over TLS.
func askOverTLS(commands ...*cli.Command) []*cli.Command {
	for _, cmd := range commands {
		askOverTLS(cmd.Subcommands...)
		if !slices.ContainsFunc(cmd.Flags, func(f cli.Flag) bool {
			name := f.Names()[0]
			return name == flagAdmin || name == flagFind || name == flagTo
		}) {
			continue
		}
		cmd.Flags = append(cmd.Flags,
			stringFlag(flagTLSCert, "", "`FILE` with a certificate chain, PEM, to show to servers that ask for one"),
			stringFlag(flagTLSKey, "", "`FILE` with the key of --tls-cert, PEM"),
			rootsFlag())
		cmd.Before = func(c *cli.Context) error {
			_, err := openTLS(c, nil)
			return err
		}
	}
	return commands
}

// adminServerFlags are those of a daemon with an admin listener.
func adminServerFlags() []cli.Flag {
	return append(tlsFlags(),
		stringFlag(flagAdminToken, "", "`FILE` with the token admin callers must show, or with lines of a role (viewer, operator), a name, and token=TOKEN or cert=NAME"),
		stringFlag(flagClientCA, "", "`FILE` with certificates of authorities, PEM: admin callers may show a certificate of theirs in place of a token"),
		stringFlag(flagAuditLog, "", "`FILE` to append what was done by the admin API to, a line of JSON each; renamed at 16 MiB, eight are kept"),
		boolFlag(flagInsecureAdmin, "serve the admin API without a token even beyond loopback"),
	)
}

// openTLS reads the TLS files, and has clients made from now on use them.
func openTLS(c *cli.Context, log *slog.Logger) (*api.TLS, error) {
	t, err := api.OpenTLS(tlsConfig(c, log))
	if err != nil {
		return nil, misused("--%s, --%s, --%s, --%s: %v", flagTLSCert, flagTLSKey, flagTLSRoots, flagClientCA, err)
	}
	api.UseTLS(t)
	return t, nil
}

func tlsConfig(c *cli.Context, log *slog.Logger) api.TLSConfig {
	return api.TLSConfig{Cert: c.String(flagTLSCert), Key: c.String(flagTLSKey), Roots: c.String(flagTLSRoots),
		Clients: c.String(flagClientCA), Logger: log}
}

// adminAccess reads who gets in at the admin listener, and opens the audit log.
func adminAccess(c *cli.Context, log *slog.Logger) (a admin.Access, err error) {
	if a.Callers, err = adminCallers(c, log); err != nil {
		return a, err
	}
	a.Insecure = c.Bool(flagInsecureAdmin)
	if a.Audit, err = admin.OpenAudit(c.String(flagAuditLog), log); err != nil {
		return a, misused("--%s: %v", flagAuditLog, err)
	}
	return a, nil
}

// adminCallers reads who gets in at the admin listener, and refuses one that lets
// strangers in.
func adminCallers(c *cli.Context, log *slog.Logger) (callers *admin.Callers, err error) {
	if file := c.String(flagAdminToken); file != "" {
		if callers, err = admin.OpenCallers(file, log); err != nil {
			return nil, misused("--%s: %v", flagAdminToken, err)
		}
	}
	if c.String(flagClientCA) != "" && callers == nil {
		return nil, misused("--%s: say in the file of --%s whose certificates may do what, such as: operator alice cert=alice.example.com", flagClientCA, flagAdminToken)
	}
	if addr := c.String(flagListenAdmin); addr != none {
		if err := admin.CheckListen(addr, callers != nil, c.Bool(flagInsecureAdmin)); err != nil {
			return nil, misused("--%s: %v", flagListenAdmin, err)
		}
	}
	return callers, nil
}

// checkSecurity is about the files of TLS and of the admin API's callers.
func checkSecurity(c *cli.Context) error {
	_, err := api.OpenTLS(tlsConfig(c, quiet))
	if err != nil {
		return misused("--%s, --%s, --%s, --%s: %v", flagTLSCert, flagTLSKey, flagTLSRoots, flagClientCA, err)
	}
	if hasFlag(c, flagListenAdmin) {
		_, err = adminCallers(c, quiet)
	}
	return err
}

func hasFlag(c *cli.Context, name string) bool {
	for _, f := range c.Command.Flags {
		if f.Names()[0] == name {
			return true
		}
	}
	return false
}

// secured is a listener with TLS, if there is a certificate; that of the admin API also
// knows clients by theirs.
func secured(t *api.TLS, flag string, ln net.Listener) net.Listener {
	return t.Listen(ln, flag == flagListenAdmin)
}
