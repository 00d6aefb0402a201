package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"
	"time"
)

// hurryKey is where untilSignalled leaves its channel for lingering.
type hurryKey struct{}

// untilSignal is a context that ends at the first signal that asks the process to
// end. The caller calls stop.
func untilSignal() (ctx context.Context, stop func()) {
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, syscall.SIGTERM, os.Interrupt)
	ctx, ended := untilSignalled(signals)
	return ctx, func() {
		signal.Stop(signals)
		ended()
	}
}

// untilSignalled counts in one place, so that no signal is taken for another one
// whenever it comes. The caller calls stop.
func untilSignalled(signals <-chan os.Signal) (ctx context.Context, stop func()) {
	hurry := make(chan struct{})
	ctx, cancel := context.WithCancel(context.WithValue(context.Background(), hurryKey{}, (<-chan struct{})(hurry)))
	stopped, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		for _, end := range []func(){cancel, func() { close(hurry) }} {
			select {
			case <-signals:
				end()
			case <-stopped:
				return
			}
		}
	}()
	return ctx, func() {
		close(stopped)
		<-ended
		cancel()
	}
}

// lingering is a context that ends d after ctx, which comes from untilSignal, or at
// the second signal that asks the process to end. The caller calls stop.
func lingering(ctx context.Context, d time.Duration) (later context.Context, stop func()) {
	if d <= 0 {
		return ctx, func() {}
	}
	hurry, _ := ctx.Value(hurryKey{}).(<-chan struct{})
	later, cancel := context.WithCancel(context.WithoutCancel(ctx))
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		defer cancel()
		select {
		case <-ctx.Done():
		case <-later.Done():
			return
		}
		timer := time.NewTimer(d)
		defer timer.Stop()
		select {
		case <-hurry:
		case <-timer.C:
		case <-later.Done():
		}
	}()
	return later, func() {
		cancel()
		<-ended
	}
}
