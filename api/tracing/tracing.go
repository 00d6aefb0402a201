// Package tracing is spans as OpenTelemetry has them: of requests, at their server
// and at their client, and where they are sent to, by OTLP over HTTP.
//
// It is off unless a daemon is told where to send: then there is no provider, and
// nothing of this is called. What others send is a header, traceparent, which a
// frontend does not believe: whoever looks up does not decide what is traced.
package tracing

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"os"
	"strings"
	"sync/atomic"
	"time"

	"go.opentelemetry.io/contrib/instrumentation/net/http/otelhttp"
	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/sdk/resource"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"
)

const (
	// tracesPath is where OTLP has traces, if the endpoint has no path.
	tracesPath = "/v1/traces"
	// closeWithin is how long what is left may take to be sent.
	closeWithin = 3 * time.Second
	// sayAgainAfter is how long failures to send are not logged after one was.
	sayAgainAfter = int64(time.Minute)
)

// endpoints are the variables that OpenTelemetry names for the same.
var endpoints = []string{"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT"}

// Config of a Provider.
type Config struct {
	// Endpoint is the URL to send spans to; a URL without a path gets /v1/traces.
	// Empty: what OpenTelemetry's environment variables say.
	Endpoint string
	// Service is what the spans are of, such as "signpost indexer", and Instance which.
	Service, Instance, Version string
	Logger                     *slog.Logger
}

// Provider makes spans. A nil Provider is off.
type Provider struct{ *sdktrace.TracerProvider }

// Open begins to trace; nil if nothing says where to send spans. It connects to
// nobody yet. Which traces are sampled is for OTEL_TRACES_SAMPLER to say; all, if
// it does not.
func Open(ctx context.Context, cfg Config) (*Provider, error) {
	var opts []otlptracehttp.Option
	switch {
	case cfg.Endpoint != "":
		u, err := url.Parse(cfg.Endpoint)
		if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
			return nil, fmt.Errorf("%q is no http or https URL", cfg.Endpoint)
		}
		if u.Path == "" || u.Path == "/" {
			u.Path = tracesPath
		}
		opts = append(opts, otlptracehttp.WithEndpointURL(u.String()))
	case os.Getenv(endpoints[0]) == "" && os.Getenv(endpoints[1]) == "":
		return nil, nil
	}
	exporter, err := otlptracehttp.New(ctx, opts...)
	if err != nil {
		return nil, err
	}
	otel.SetErrorHandler(&complaints{log: cfg.Logger})
	res := resource.NewSchemaless(attribute.String("service.name", cfg.Service),
		attribute.String("service.instance.id", cfg.Instance), attribute.String("service.version", cfg.Version))
	return &Provider{sdktrace.NewTracerProvider(sdktrace.WithBatcher(exporter), sdktrace.WithResource(res))}, nil
}

// Tracers is what makes spans for others; nil if it is off.
func (p *Provider) Tracers() trace.TracerProvider {
	if p == nil {
		return nil
	}
	return p.TracerProvider
}

// Close sends what is left, for three seconds at most.
func (p *Provider) Close() error {
	if p == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), closeWithin)
	defer cancel()
	_ = p.Shutdown(ctx) // spans that nobody takes are no failure of the daemon
	return nil
}

// complaints logs what fails in the background, once a minute.
type complaints struct {
	log  *slog.Logger
	next atomic.Int64
}

// Handle takes an error of OpenTelemetry.
func (c *complaints) Handle(err error) {
	now := time.Now().UnixNano()
	next := c.next.Load()
	if c.log != nil && now >= next && c.next.CompareAndSwap(next, now+sayAgainAfter) {
		c.log.Warn("spans are not sent", "err", err)
	}
}

var propagator = propagation.TraceContext{}

// Handler makes a span of each request to h that traced wants. With public set,
// requests begin a trace of their own, whatever they say. With by nil it is h.
func Handler(h http.Handler, by trace.TracerProvider, public bool, traced func(*http.Request) bool) http.Handler {
	if by == nil {
		return h
	}
	opts := []otelhttp.Option{otelhttp.WithTracerProvider(by), otelhttp.WithPropagators(propagator), otelhttp.WithFilter(traced)}
	if public {
		opts = append(opts, otelhttp.WithPublicEndpointFn(func(*http.Request) bool { return true }))
	}
	return otelhttp.NewHandler(h, "request", opts...)
}

// Client makes a span of each request of hc, and tells the server of the trace.
// With by nil it does nothing.
func Client(hc *http.Client, by trace.TracerProvider) {
	if by == nil {
		return
	}
	hc.Transport = otelhttp.NewTransport(hc.Transport, otelhttp.WithTracerProvider(by), otelhttp.WithPropagators(propagator),
		otelhttp.WithFilter(func(r *http.Request) bool { return Sampled(r.Context()) }))
}

// Sampled tells whether what is done is part of a trace that is sent.
func Sampled(ctx context.Context) bool { return trace.SpanContextFromContext(ctx).IsSampled() }

// Lookups are the requests that clients make: all but those under /signpost/, of
// which some never end, and health checks.
func Lookups(r *http.Request) bool {
	return !strings.HasPrefix(r.URL.Path, "/signpost/") && !strings.HasPrefix(r.URL.Path, "/health")
}
