package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/urfave/cli/v2"

	"github.com/signpost-index/signpost/api"
	"github.com/signpost-index/signpost/api/admin"
	"github.com/signpost-index/signpost/assigner"
)

// taskEvery is how often the assigner is asked how far a task is.
const taskEvery = 500 * time.Millisecond

// follower follows a task of the assigner until its end.
type follower struct {
	client *assigner.Client
	kind   assigner.TaskKind // and the command that began it
	id     string
	out    io.Writer
	said   map[peer.ID]assigner.StepState
	away   bool                                       // the assigner did not answer, and that was said
	act    func(context.Context, assigner.Task) error // at each look; nil: there is nothing to do
}

func newFollower(c *cli.Context, client *assigner.Client, kind assigner.TaskKind) *follower {
	return &follower{client: client, kind: kind, out: c.App.ErrWriter, said: make(map[peer.ID]assigner.StepState)}
}

// runResume goes on where a task stands.
func (f *follower) runResume(c *cli.Context, why assigner.Wish) error {
	if c.Args().Present() {
		return misused("--%s goes on with the indexers that were named at first", flagResume)
	}
	return askedAssigner(c, f.resume(c.Context, why))
}

// followNew follows a task that was just begun.
func (f *follower) followNew(c *cli.Context, done assigner.Done) error {
	if err := printDone(c, done); err != nil {
		return err
	}
	t, err := f.newest(c.Context)
	if err != nil {
		return askedAssigner(c, err)
	}
	f.id = t.ID
	return askedAssigner(c, f.follow(c.Context))
}

// newest is the task of the kind that was begun last.
func (f *follower) newest(ctx context.Context) (found assigner.Task, err error) {
	page, err := f.client.Tasks(ctx)
	if err != nil {
		return found, err
	}
	for _, t := range page.Tasks {
		if t.Kind == f.kind && (f.id == "" || t.ID == f.id) {
			found = t
		}
	}
	if found.ID == "" {
		return found, fmt.Errorf("%w: there is no %s", admin.ErrNotFound, f.kind)
	}
	return found, nil
}

// resume goes on where a task stands.
func (f *follower) resume(ctx context.Context, why assigner.Wish) error {
	t, err := f.newest(ctx)
	if err != nil {
		return err
	}
	f.id = t.ID
	switch t.State {
	case assigner.TaskDone, assigner.TaskEnded:
		return fmt.Errorf("%w: %s is %s; begin another one", admin.ErrRefused, t.ID, t.State)
	case assigner.TaskPaused:
		_, err = f.client.ChangeTask(ctx, t.ID, "resume", "", why)
	case assigner.TaskFailed:
		_, err = f.client.ChangeTask(ctx, t.ID, "retry", "", why)
	}
	if err != nil {
		return err
	}
	return f.follow(ctx)
}

// follow waits for the end.
func (f *follower) follow(ctx context.Context) error {
	tick := time.NewTicker(taskEvery)
	defer tick.Stop()
	for {
		t, err := f.newest(ctx)
		switch {
		case errors.Is(err, admin.ErrUnavailable) && ctx.Err() == nil:
			f.noteAway(err)
		case err != nil:
			return err
		default:
			f.away = false
			if over, err := f.look(ctx, t); over || err != nil {
				return err
			}
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%s goes on at the assigner as far as it can; signpost pool %s --%s follows it again", f.id, f.kind, flagResume)
		case <-tick.C:
		}
	}
}

// noteAway says once that the assigner does not answer: it may be restarted, too.
func (f *follower) noteAway(err error) {
	if !f.away {
		fmt.Fprintf(f.out, "the assigner does not answer, and is asked again: %s\n", api.PlainText(err.Error(), 0))
	}
	f.away = true
}

// look says what is new, and does what is to be done.
func (f *follower) look(ctx context.Context, t assigner.Task) (over bool, err error) {
	for _, s := range t.Steps {
		if f.said[s.Indexer] != s.State && s.State != assigner.StepPending {
			fmt.Fprintf(f.out, "%s  %s  %s\n", s.Indexer, s.State, api.PlainText(s.Text, 0))
		}
		f.said[s.Indexer] = s.State
	}
	switch t.State {
	case assigner.TaskDone:
		fmt.Fprintf(f.out, "%s is done\n", t.ID)
		return true, nil
	case assigner.TaskEnded:
		return true, fmt.Errorf("%s was ended", t.ID)
	case assigner.TaskFailed:
		for _, s := range t.Steps {
			if s.State == assigner.StepFailed {
				return true, fmt.Errorf("%s has stopped at indexer %s: %s; signpost pool %s --%s tries it again, signpost pool tasks skip %s --reason TEXT goes on without it",
					t.ID, s.Indexer, api.PlainText(s.Text, 0), f.kind, flagResume, t.ID)
			}
		}
	}
	if f.act == nil {
		return false, nil
	}
	return false, f.act(ctx, t)
}
