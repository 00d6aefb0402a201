package main

import (
	"context"
	"log/slog"
	"maps"
	"os"
	"os/signal"
	"slices"
	"syscall"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/signpost-index/signpost/api"
)

// live has, by flag, what puts a new value in force in a running process. The
// values it is called with have been checked.
type live map[string]func(*cli.Context)

func changeLevel(level *slog.LevelVar) func(*cli.Context) {
	return func(c *cli.Context) { _ = level.UnmarshalText([]byte(c.String(flagLogLevel))) }
}

func changeLimit(set func(api.LimitConfig)) func(*cli.Context) {
	return func(c *cli.Context) {
		if limit, _, err := clientConfig(c); err == nil {
			set(limit)
		}
	}
}

func changeCache(set func(time.Duration)) func(*cli.Context) {
	return func(c *cli.Context) { set(c.Duration(flagCacheFor)) }
}

func changeFreeze(set func(percent float64)) func(*cli.Context) {
	return func(c *cli.Context) { set(c.Float64(flagFreezeAt)) }
}

// onHangup reads the file of --config again at each SIGHUP, from now on, until
// the task it returns has ended.
func onHangup(c *cli.Context, log *slog.Logger, live live) task {
	s, _ := c.App.Metadata[metaSettings].(*settings)
	if s == nil || s.role.terminal && s.file == nil {
		return func(context.Context) error { return nil }
	}
	hup := hangups()
	r := newReloader(s, log, live)
	return func(ctx context.Context) error {
		defer signal.Stop(hup)
		for {
			select {
			case <-ctx.Done():
				return nil
			case <-hup:
				r.reload()
			}
		}
	}
}

// hangups has each SIGHUP from now on. Whoever reads it stops it.
func hangups() chan os.Signal {
	hup := make(chan os.Signal, 1)
	signal.Notify(hup, syscall.SIGHUP)
	return hup
}

// reloader knows the values in force. One goroutine uses it.
type reloader struct {
	settings *settings // as they were read last
	log      *slog.Logger
	live     live
	running  map[string]value
}

func newReloader(s *settings, log *slog.Logger, live live) *reloader {
	return &reloader{settings: s, log: log, live: live, running: maps.Clone(s.values)}
}

// reload reads the file and puts in force what differs and can be changed. All
// of the file must be good, or nothing is changed.
func (r *reloader) reload() {
	if r.settings.file == nil {
		r.log.Info("no settings read again: there is no --" + flagConfig)
		return
	}
	next, err := r.read()
	if err != nil {
		r.log.Error("settings not read again; the running ones stay", "err", err)
		return
	}
	differences := r.compare(next)
	// With the more talkative of two log levels.
	before := r.log.Enabled(context.Background(), slog.LevelInfo)
	if before {
		r.tell(next, differences)
	}
	for _, d := range differences {
		if d.change != nil {
			d.change(next.ctx)
			r.running[d.name] = d.new
		}
	}
	if !before {
		r.tell(next, differences)
	}
	r.settings = next
}

// read has what the file says now below the same flags and environment.
func (r *reloader) read() (*settings, error) {
	s := r.settings
	file, err := readConfigFile(s.file.path)
	if err != nil {
		return nil, err
	}
	next, err := s.role.resolve(s.parent, s.args, file)
	if err != nil {
		return nil, err
	}
	return next, next.explain(s.role.check(next.ctx))
}

// difference is a setting that is not as it was.
type difference struct {
	name     string
	from     source
	old, new value // the same: it is other in the file only
	change   func(*cli.Context)
}

func (r *reloader) compare(next *settings) (out []difference) {
	for _, f := range next.command.Flags {
		name := f.Names()[0]
		d := difference{name: name, from: next.sources[name], old: r.running[name], new: next.values[name]}
		switch {
		case !slices.Equal(d.old.texts, d.new.texts):
			d.change = r.live[name]
		case !d.from.flag && d.from.env == "" || !r.fileDiffers(next, name):
			continue
		}
		out = append(out, d)
	}
	return out
}

// fileDiffers tells of a flag whether the file gives it another value than before.
func (r *reloader) fileDiffers(next *settings, name string) bool {
	section := next.role.name
	return !slices.Equal(r.settings.file.sections[section][name].texts, next.file.sections[section][name].texts)
}

// tell logs each difference, and what becomes of it.
func (r *reloader) tell(next *settings, differences []difference) {
	changed := 0
	for _, d := range differences {
		switch {
		case d.change != nil:
			changed++
			r.log.Info("setting changed", "setting", d.name, "old", d.old, "new", d.new, "from", d.from)
		case slices.Equal(d.old.texts, d.new.texts):
			r.log.Info("setting changed in the file only: it is given before that", "setting", d.name, "running", d.old, "from", d.from)
		default:
			r.log.Warn("setting differs: it needs a restart", "setting", d.name, "running", d.old, "new", d.new, "from", d.from)
		}
	}
	r.log.Info("settings read again", "file", next.file.path, "changed", changed)
}
