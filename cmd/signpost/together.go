package main

import (
	"context"

	"golang.org/x/sync/errgroup"
)

// task is a part that runs until its context ends.
type task func(context.Context) error

// together runs tasks as one: the first error ends them all.
func together(tasks ...task) task {
	return func(ctx context.Context) error {
		g, ctx := errgroup.WithContext(ctx)
		for _, t := range tasks {
			g.Go(func() error { return t(ctx) })
		}
		return g.Wait()
	}
}
