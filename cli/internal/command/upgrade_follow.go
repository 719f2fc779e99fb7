package command

import (
	"context"
	"slices"
	"strings"
	"time"

	"connectrpc.com/connect"

	uncloudv1 "uncloud/api/uncloud/v1"
	"uncloud/cli/internal/render"
	"uncloud/internal/faults"
)

type upgradeStream = connect.ServerStreamForClient[uncloudv1.UpgradeStatus]

const (
	// awayWait bounds how long the connected machine may be away: it restarts
	// in its own turn.
	awayWait = 15 * time.Minute
	// awayPoll is how often it is tried again.
	awayPoll = 2 * time.Second
)

// followUpgrade shows an upgrade to its end. Where the connection ends before,
// it is made again: the machine that it leads to has its own turn.
func (a *app) followUpgrade(ctx context.Context, output format, begin func(context.Context) (*upgradeStream, error)) error {
	if _, err := a.connect(ctx); err != nil {
		return err
	}
	w := &upgradeWatch{app: a, told: map[string]string{}, quiet: output == jsonFormat}
	err := w.receive(ctx, begin)
	for seen := a.Now(); err != nil && w.last != nil && ctx.Err() == nil; {
		if a.Now().Sub(seen) > awayWait {
			return unwatched(err)
		}
		w.note("lost the connection, and tries again: the machines go on")
		if err = w.again(ctx); err == nil || w.fresh {
			seen, w.fresh = a.Now(), false
		}
	}
	switch {
	case ctx.Err() != nil:
		sentence := "interrupted; the machines go on with the upgrade"
		if w.last == nil {
			sentence = "interrupted; if the upgrade has begun, the machines go on with it"
		}
		return faults.New(faults.Interrupted, "%s", sentence).
			WithHint("watch on: uc machine upgrade --watch; end it: uc machine upgrade --stop").Because(ctx.Err())
	case err != nil:
		return err
	}
	if err := a.show(output, w.last, func() { a.upgradeEnded(w.last) }); err != nil {
		return err
	}
	return upgradeFault(w.last)
}

func unwatched(err error) error {
	return faults.New(faults.Unreachable, "the machine does not answer any more; the others go on with the upgrade").
		WithHint("connect to another one, and watch on: uc machine upgrade --watch").Because(err)
}

// upgradeWatch is what was told of an upgrade so far.
type upgradeWatch struct {
	*app
	last  *uncloudv1.UpgradeStatus
	told  map[string]string // the last line by machine
	noted string
	fresh bool // something was received since the connection was lost
	quiet bool
}

func (w *upgradeWatch) receive(ctx context.Context, call func(context.Context) (*upgradeStream, error)) error {
	stream, err := call(ctx)
	if err != nil {
		return err
	}
	defer stream.Close()
	for stream.Receive() {
		w.last, w.fresh, w.noted = stream.Msg(), true, ""
		w.tell(w.last)
	}
	if err := stream.Err(); err != nil {
		return err
	}
	if w.last.GetStage() == "running" || w.last == nil {
		return faults.New(faults.Unreachable, "the connection ended before the upgrade did").
			WithHint("watch on: uc machine upgrade --watch")
	}
	return nil
}

// again connects anew after a pause, and watches on.
func (w *upgradeWatch) again(ctx context.Context) error {
	w.close()
	w.client = nil
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(awayPoll):
	}
	if _, err := w.connect(ctx); err != nil {
		return err
	}
	return w.receive(ctx, func(ctx context.Context) (*upgradeStream, error) {
		return w.client.Upgrades("").WatchUpgrade(ctx, connect.NewRequest(&uncloudv1.WatchUpgradeRequest{Id: w.last.GetId()}))
	})
}

func (w *upgradeWatch) note(text string) {
	if w.noted != text {
		w.ui.Note("%s", text)
		w.noted = text
	}
}

// tell writes a line for each machine of which there is something new.
func (w *upgradeWatch) tell(status *uncloudv1.UpgradeStatus) {
	for _, turn := range status.GetTurns() {
		words := turnWords(turn)
		if words == "" || w.told[turn.GetMachineId()] == words {
			continue
		}
		w.told[turn.GetMachineId()] = words
		if w.quiet {
			continue
		}
		w.ui.Out.Line("%s %s: %s", w.turnMark(turn), turn.GetMachine(), words)
		if turn.GetStage() == "failed" {
			for _, line := range turn.GetLines() {
				w.ui.Out.Line("       %s %s", w.ui.Out.Faint("|"), line)
			}
		}
	}
}

func (w *upgradeWatch) turnMark(turn *uncloudv1.UpgradeTurn) string {
	switch turn.GetStage() {
	case "done":
		return w.ui.Out.Good("done  ")
	case "failed":
		return w.ui.Out.Bad("failed")
	}
	return w.ui.Out.Faint("...   ")
}

// turnWords says where a machine is in its turn.
func turnWords(turn *uncloudv1.UpgradeTurn) string {
	to := systemName(turn.GetToSystem())
	switch turn.GetStage() {
	case "staging":
		return "builds or fetches its system"
	case "waiting":
		return "has " + to + ", and waits for rollouts to end"
	case "draining":
		return "gives its replicas away"
	case "switching":
		return "goes to " + to
	case "watching":
		if doubt := turn.GetError(); doubt != "" {
			return "runs it; " + doubt
		}
		return "runs it, and asks the others"
	case "keeping":
		return "is confirmed, and makes it the default"
	case "returning":
		return "returns to what it ran before"
	case "done":
		return "runs " + to
	case "failed":
		return turn.GetError()
	}
	return ""
}

// systemName is a system without the hash before it.
func systemName(system string) string {
	if hash, rest, ok := strings.Cut(system, "-"); ok && len(hash) == 32 {
		return rest
	}
	if system == "" {
		return "its system"
	}
	return system
}

func (a *app) upgradeEnded(status *uncloudv1.UpgradeStatus) {
	if status.GetStage() == "done" {
		a.ui.Out.Line("%s %s", a.ui.Out.Good("upgraded"), turnNames(status))
		return
	}
	var left []string
	for _, turn := range status.GetTurns() {
		if turn.GetStage() == "" {
			left = append(left, turn.GetMachine())
		}
	}
	if len(left) > 0 {
		a.ui.Note("left alone: %s", strings.Join(left, ", "))
	}
}

func turnNames(status *uncloudv1.UpgradeStatus) string {
	var names []string
	for _, turn := range status.GetTurns() {
		names = append(names, turn.GetMachine())
	}
	if len(names) > 5 {
		return render.Count(len(names), "machine")
	}
	return strings.Join(names, ", ")
}

// upgradeFault is the error of an upgrade that did not reach its goal.
func upgradeFault(status *uncloudv1.UpgradeStatus) error {
	switch status.GetStage() {
	case "done":
		return nil
	case "stopped":
		return faults.New(faults.Interrupted, "the upgrade was ended: %s", status.GetError()).WithHint("see what the machines run: uc machine ls")
	}
	failed := slices.IndexFunc(status.GetTurns(), func(t *uncloudv1.UpgradeTurn) bool { return t.GetStage() == "failed" })
	if failed < 0 {
		return faults.New(faults.MachineDown, "the upgrade ended: %s", status.GetError()).WithHint("see what the machines run: uc machine ls")
	}
	return faults.New(faults.Unhealthy, "the upgrade ended at %s", status.GetError()).
		WithHint("on %s: journalctl -u uncloud-host -u uncloud", status.GetTurns()[failed].GetMachine())
}

func sortedList(words []string) string {
	slices.Sort(words)
	return strings.Join(words, ", ")
}
