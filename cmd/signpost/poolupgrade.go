package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/urfave/cli/v2"

	"github.com/signpost-index/signpost/api/admin"
	"github.com/signpost-index/signpost/assigner"
)

const (
	flagExec       = "exec"
	flagResume     = "resume"
	flagMaxDown    = "max-down"
	flagMinCopies  = "min-copies"
	flagDownFor    = "down-for"
	flagBackWithin = "back-within"

	// commandTail is how much of what a command says last is kept as why it failed.
	commandTail = 200
)

func upgradeCommand() *cli.Command {
	return &cli.Command{
		Name:      "upgrade",
		Usage:     "have indexers restarted, one after the other, without a failed lookup",
		ArgsUsage: "[INDEXER...]",
		Description: "Example:\n" +
			"  signpost pool upgrade --exec 'ssh {host} systemctl restart signpost' --down-for 1m\n" +
			"  signpost pool upgrade --max-down 25% --reason 'version 1.4'\n" +
			"  signpost pool upgrade --resume --exec 'ssh {host} systemctl restart signpost'\n\n" +
			"Each indexer, all or those named, is held until others that answer have what it\n" +
			"has; then CMD is run, which restarts it, and it has to come back, answer and\n" +
			"catch up. CMD is split at spaces and run without a shell; {id}, {host}, {find},\n" +
			"{ingest} and {admin} are the indexer's, and so are UPGRADE_ID, UPGRADE_HOST and\n" +
			"so on in its environment. Without --exec somebody else restarts each indexer\n" +
			"when signpost pool tasks says that it is ready. The first failure ends it.\n" +
			"The assigner keeps how far it is: this command may end at any time, and goes on\n" +
			"with --resume. It follows until the end.",
		OnUsageError: usageError,
		Flags: assignerFlags(
			stringFlag(flagExec, "", "`CMD` that restarts one indexer with its new version"),
			boolFlag(flagResume, "go on with the upgrade that is under way; what failed is tried again"),
			stringFlag(flagMaxDown, assigner.DefaultMaxDown, "how many indexers may be out of service at once, `N` or a share such as 25%, those that are down by themselves included"),
			&cli.IntFlag{Name: flagMinCopies, Value: assigner.DefaultMinCopies, EnvVars: env(flagMinCopies),
				Usage: "how many whole copies of what an indexer has must be on others that answer, `N`; 0: lookups may fail meanwhile"},
			&cli.DurationFlag{Name: flagDownFor, Value: assigner.DefaultDownFor, EnvVars: env(flagDownFor),
				Usage: "`TIME` for which lookups do without an indexer that is down; it takes no content for so long"},
			&cli.DurationFlag{Name: flagBackWithin, Value: assigner.DefaultBackWithin, EnvVars: env(flagBackWithin),
				Usage: "`TIME` within which an indexer has to come back, and again to catch up"},
			stringFlag(flagReason, "", "`TEXT` kept with it, for whoever asks why")),
		Action: runUpgrade,
	}
}

func runUpgrade(c *cli.Context) error {
	client, err := assignerClient(c)
	if err != nil {
		return err
	}
	words := strings.Fields(c.String(flagExec))
	if c.IsSet(flagExec) && len(words) == 0 {
		return misused("--%s: give a command", flagExec)
	}
	u := &upgrade{follower: newFollower(c, client, assigner.TaskUpgrade), words: words, ran: make(map[peer.ID]bool)}
	u.act = u.command
	why := assigner.Wish{By: userName(), Reason: c.String(flagReason)}
	if c.Bool(flagResume) {
		return u.runResume(c, why)
	}
	set := assigner.UpgradeSettings{MaxDown: c.String(flagMaxDown), MinCopies: c.Int(flagMinCopies), DownFor: c.Duration(flagDownFor),
		BackWithin: c.Duration(flagBackWithin), Exec: len(words) > 0}
	done, err := client.Upgrade(c.Context, set, c.Args().Slice(), why)
	if err != nil {
		return askedAssigner(c, err)
	}
	return u.followNew(c, done)
}

// upgrade follows an upgrade of the assigner, and runs the command when it is time.
type upgrade struct {
	*follower
	words []string         // of the command; none: somebody else restarts indexers
	ran   map[peer.ID]bool // for whom this process ran the command
}

// command runs the command if it is time.
func (u *upgrade) command(ctx context.Context, t assigner.Task) error {
	if len(u.words) == 0 {
		return nil
	}
	for _, s := range t.Steps {
		switch {
		case t.State == assigner.TaskRunning && s.State == assigner.StepReady:
			return u.restart(ctx, t, s)
		case u.lost(t, s):
			// Refused, or not answered: what is so is seen at the next look.
			_ = u.client.Command(ctx, t.ID, s.Indexer.String(), assigner.CommandLost, "")
		}
	}
	return nil
}

// lost tells whether another process of ours began a command, and has come to its
// end without telling: for as long as an indexer may be down it is waited for.
func (u *upgrade) lost(t assigner.Task, s assigner.TaskStep) bool {
	return s.State == assigner.StepAway && s.Commands > 0 && !u.ran[s.Indexer] && time.Since(s.Since) > t.Settings.DownFor
}

// restart runs the command for one indexer. The assigner is told before, and if
// it fails.
func (u *upgrade) restart(ctx context.Context, t assigner.Task, s assigner.TaskStep) error {
	err := u.client.Command(ctx, t.ID, s.Indexer.String(), assigner.CommandBegun, "")
	if errors.Is(err, admin.ErrRefused) || errors.Is(err, admin.ErrUnavailable) {
		return nil // it is not the time any more; what is so is seen at the next look
	}
	if err != nil {
		return err
	}
	u.ran[s.Indexer] = true
	failed := u.run(ctx, t, s)
	if failed == nil {
		return nil
	}
	tick := time.NewTicker(taskEvery)
	defer tick.Stop()
	tell := context.WithoutCancel(ctx) // also that it was interrupted
	for tries := 0; ; tries++ {
		err := u.client.Command(tell, t.ID, s.Indexer.String(), assigner.CommandFailed, failed.Error())
		if !errors.Is(err, admin.ErrUnavailable) || ctx.Err() != nil && tries > 2 {
			return nil // it says so at the next look
		}
		u.noteAway(err)
		<-tick.C
	}
}

// run runs the command, for as long as the indexer has to come back.
func (u *upgrade) run(ctx context.Context, t assigner.Task, s assigner.TaskStep) error {
	ctx, cancel := context.WithTimeout(ctx, t.Settings.BackWithin)
	defer cancel()
	about := [][2]string{{"id", s.Indexer.String()}, {"host", hostOf(s.Admin)}, {"find", s.Find}, {"ingest", s.Ingest}, {"admin", s.Admin}, {"task", t.ID}}
	var places []string
	env := os.Environ()
	for _, a := range about {
		places = append(places, "{"+a[0]+"}", a[1])
		env = append(env, "UPGRADE_"+strings.ToUpper(a[0])+"="+a[1])
	}
	fill := strings.NewReplacer(places...)
	words := make([]string, 0, len(u.words))
	for _, w := range u.words {
		words = append(words, fill.Replace(w))
	}
	cmd := exec.CommandContext(ctx, words[0], words[1:]...)
	cmd.Env = env
	cmd.WaitDelay = time.Second // what it left running may have its output still
	said := &tail{most: commandTail}
	both := io.MultiWriter(u.out, said) // one writer for both, so that one writes at a time
	cmd.Stdout, cmd.Stderr = both, both
	err := cmd.Run()
	if err == nil || errors.Is(err, exec.ErrWaitDelay) {
		return nil
	}
	if ctx.Err() != nil {
		err = fmt.Errorf("%w, and was ended: %w", err, ctx.Err())
	}
	return fmt.Errorf("%s: %w: %s", words[0], err, said.text)
}

// tail keeps the last bytes written to it.
type tail struct {
	most int
	text []byte
}

func (t *tail) Write(b []byte) (int, error) {
	t.text = append(t.text, b...)
	t.text = t.text[max(0, len(t.text)-t.most):]
	return len(b), nil
}
