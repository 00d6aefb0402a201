package ingest

import (
	"context"
	"fmt"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"
)

// span begins a span of what is about to be done, to be ended by end. Without
// tracers it is next to nothing: not even the texts are made.
func (i *Ingester) span(ctx context.Context, name, key string, of fmt.Stringer) (context.Context, span) {
	if i.tracer == nil {
		return ctx, span{}
	}
	ctx, s := i.tracer.Start(ctx, name, trace.WithAttributes(attribute.String("signpost."+key, of.String())))
	return ctx, span{s}
}

// span may be none.
type span struct{ trace.Span }

// said adds to a span what came of it.
func (s span) said(attrs ...attribute.KeyValue) {
	if s.Span != nil {
		s.SetAttributes(attrs...)
	}
}

// end ends it, with the error of what was done.
func (s span) end(err error) {
	if s.Span == nil {
		return
	}
	if err != nil {
		s.SetStatus(codes.Error, err.Error())
	}
	s.End()
}

// tracerOf is nil without tracers.
func tracerOf(by trace.TracerProvider) trace.Tracer {
	if by == nil {
		return nil
	}
	return by.Tracer("github.com/signpost-index/signpost/ingest")
}
