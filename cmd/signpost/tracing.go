package main

import (
	"log/slog"

	"github.com/urfave/cli/v2"

	"github.com/signpost-index/signpost/api/tracing"
)

const flagTraceEndpoint = "trace-endpoint"

func traceFlag() cli.Flag {
	return stringFlag(flagTraceEndpoint, "", "`URL` to send OpenTelemetry spans of lookups and syncs to, by OTLP over HTTP; if not given, that of OTEL_EXPORTER_OTLP_ENDPOINT, or none are made")
}

// openTracing is nil if nothing says where to send spans.
func openTracing(c *cli.Context, instance string, log *slog.Logger) (*tracing.Provider, error) {
	p, err := tracing.Open(c.Context, tracing.Config{
		Endpoint: c.String(flagTraceEndpoint), Service: "signpost " + c.Command.Name, Instance: instance, Version: version, Logger: log,
	})
	if err != nil {
		return nil, misused("--%s: %v", flagTraceEndpoint, err)
	}
	return p, nil
}
