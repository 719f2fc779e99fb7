package hostos

import (
	"errors"
	"time"
)

// Action is what has to be done to the machine.
type Action string

const (
	Wait        Action = "wait" // for an order, or for the Deadline
	Stage       Action = "stage"
	Try         Action = "try"
	MakeDefault Action = "make default"
	Restart     Action = "restart"
	Return      Action = "return"
	Nothing     Action = "nothing" // the attempt has ended
)

// Begin is the attempt of an order that has none yet.
func Begin(o Order, boot string) Attempt {
	return Attempt{ID: o.ID, Target: o.Target, Restart: o.Restart, Within: o.Within, Step: Staging, Boot: boot}
}

// Next is what has to be done now, and the journal that must be durable before
// it is done. It is pure, and asking twice gives the same.
func Next(a Attempt, o Order, s Seen) (Attempt, Action) {
	if a.Ended() {
		return a, Nothing
	}
	if _, acts := actions[a.Step]; !acts && !a.decides() {
		return a.unknown(s)
	}
	if a.Boot != s.Boot {
		a = a.restarted(s)
	}
	switch a.Step {
	case Staging:
		return a.stage(o, s)
	case Staged:
		return a.begin(o, s)
	case Watching:
		return a.watch(o, s)
	case Trying, Returning, GoingBack:
		if !a.ByHand && a.activated(s) {
			return a.leave(s)
		}
	}
	return a, actions[a.Step]
}

// actions are those of the steps that decide nothing.
var actions = map[Step]Action{
	Trying: Try, Arming: MakeDefault, Restarting: Restart, Keeping: MakeDefault, Returning: Return, GoingBack: Restart,
	Done: Nothing, Failed: Nothing,
}

func (a Attempt) stage(o Order, s Seen) (Attempt, Action) {
	if o.Want == WantStop {
		return a.fail(o.reason()), Nothing
	}
	if why := a.forgotten(s); why != "" {
		return a.fail(why), Nothing
	}
	return a, Stage
}

// forgotten is why the attempt would not be known any more after its restart,
// and nobody would return from it.
func (a Attempt) forgotten(s Seen) string {
	if !a.Restart || s.InMemory == "" {
		return ""
	}
	return "a restart would forget this upgrade, for " + s.InMemory + " is in memory: keep it on a disk, or leave out --reboot"
}

func (a Attempt) begin(o Order, s Seen) (Attempt, Action) {
	switch o.Want {
	case WantStop:
		return a.fail(o.reason()), Nothing
	case WantGo, WantKeep:
	default:
		return a, Wait
	}
	if why := a.forgotten(s); why != "" {
		return a.fail(why), Nothing
	}
	a.Former, a.Default = s.Current, s.Default
	if a.New == s.Current && a.New == s.Default.System && (!a.Restart || a.New == s.Booted) {
		a.Step = Done // there already
		return a, Nothing
	}
	if a.Restart {
		a.Step, a.Armed, a.Newest = Arming, true, s.Newest
		return a, MakeDefault
	}
	a.Step = Trying
	return a, Try
}

func (a Attempt) watch(o Order, s Seen) (Attempt, Action) {
	switch {
	case s.Current != a.New:
		return a.leave(s)
	case o.Want == WantKeep:
		a.Step, a.Armed, a.Newest = Keeping, true, s.Newest
		return a, MakeDefault
	case o.Want == WantStop:
		return a.turnBack(o.reason()), Return
	case s.Uptime >= a.Deadline:
		return a.turnBack("nobody confirmed it within " + short(a.Within)), Return
	}
	return a, Wait
}

// activated tells whether a person activated, since the boot, a system that is
// neither of the attempt's two.
func (a Attempt) activated(s Seen) bool {
	return s.Current != a.New && s.Current != a.Former && s.Current != s.Booted
}

// leave ends the attempt where a person activated another system, which is not
// taken back. What nobody confirmed is not booted next, all the same.
func (a Attempt) leave(s Seen) (Attempt, Action) {
	why := a.byHand(s)
	if a.ByHand = a.Armed && s.Default.System == a.New; a.ByHand {
		return a.turnBack(why), Return
	}
	return a.fail(why), Nothing
}

// byHand is a sentence for that, after what had failed before.
func (a Attempt) byHand(s Seen) string {
	why := Name(s.Current) + " was activated by hand in the meantime"
	if a.Error != "" {
		why = a.Error + "; " + why
	}
	return why
}

// decides tells whether the step is one in which an order or the time is asked.
func (a Attempt) decides() bool { return a.Step == Staging || a.Step == Staged || a.Step == Watching }

// unknown ends an attempt whose journal names a step that this program does not
// have: a newer one wrote it, which was returned from.
func (a Attempt) unknown(s Seen) (Attempt, Action) {
	a.Boot = s.Boot
	why := "its journal names a step that this generation does not know: " + string(a.Step)
	if a.Former == "" {
		return a.fail(why), Nothing // nothing was touched yet
	}
	return a.turnBack(why), Return
}

// restarted is the attempt after the machine was started anew.
func (a Attempt) restarted(s Seen) Attempt {
	a.Boot, a.ByHand = s.Boot, false
	booted := s.Booted == a.New
	switch a.Step {
	case Staging, Staged, Returning:
	case Arming, Restarting:
		if !booted {
			return a.turnBack("the machine was started anew and did not boot it")
		}
		a.Step, a.Deadline = Watching, s.Uptime+a.Within
	case Keeping:
		if !booted {
			return a.turnBack("the machine was started anew before it was the default")
		}
	case GoingBack:
		if booted {
			a.Step = Returning // without a restart this time
		} else {
			a.Step = Failed
		}
	default:
		return a.turnBack("the machine was started anew before it was confirmed")
	}
	return a
}

// After is the journal when an action has been done, or has failed with err. s
// is what is seen then; system is what Stage found.
func After(a Attempt, act Action, system string, err error, s Seen) Attempt {
	switch act {
	case Stage:
		if err != nil {
			return a.failed(err)
		}
		a.Step, a.New = Staged, system
	case Try:
		if err != nil {
			return a.turnedBack(err)
		}
		a.Step, a.Deadline = Watching, s.Uptime+a.Within
	case MakeDefault:
		if err != nil {
			return a.turnedBack(err)
		}
		if a.Step == Arming {
			a.Step = Restarting
		} else {
			a.Step = Done
		}
	case Restart:
		return a.notRestarted(err)
	case Return:
		return a.returned(err, s)
	}
	return a
}

// notRestarted is what follows a restart that did not happen.
func (a Attempt) notRestarted(err error) Attempt {
	if err == nil {
		return a
	}
	if a.Step == GoingBack {
		a.Step, a.Stuck = Failed, true
		a.Error += "; it could not be restarted into the former generation: " + err.Error()
		return a
	}
	return a.turnedBack(err)
}

// returned ends a return, or begins its restart: where the new system was
// booted its kernel still runs, and where the former could not be activated the
// boot does it.
func (a Attempt) returned(err error, s Seen) Attempt {
	activated := !a.ByHand && a.activated(s)
	needsBoot := !a.ByHand && !activated && (a.Restart && s.Booted == a.New && a.New != a.Default.System || s.Current != a.Former)
	if err != nil {
		a.Error += "; on the way back: " + err.Error()
	}
	switch {
	case activated:
		a.Step, a.ByHand, a.Error = Failed, true, a.byHand(s)
	case !needsBoot:
		a.Step = Failed
	case a.WentBack:
		a.Step, a.Stuck = Failed, s.Current != a.Former
	default:
		a.Step, a.WentBack = GoingBack, true
	}
	return a
}

func (a Attempt) turnBack(why string) Attempt {
	a.Step, a.Error = Returning, why
	return a
}

func (a Attempt) fail(why string) Attempt {
	a.Step, a.Error = Failed, why
	return a
}

func (a Attempt) turnedBack(err error) Attempt {
	a.Lines = linesOf(err)
	return a.turnBack(err.Error())
}

func (a Attempt) failed(err error) Attempt {
	a.Lines = linesOf(err)
	return a.fail(err.Error())
}

// programError is a program that failed: a sentence, and its last lines.
type programError struct {
	sentence string
	lines    []string
}

func (e *programError) Error() string { return e.sentence }

func linesOf(err error) []string {
	if e, ok := errors.AsType[*programError](err); ok {
		return e.lines
	}
	return nil
}

// short is a duration as people write it: 5m and not 5m0s.
func short(d time.Duration) string {
	text := d.String()
	for _, zero := range []string{"m0s", "h0m"} {
		if len(text) > len(zero) && text[len(text)-len(zero):] == zero {
			text = text[:len(text)-len(zero)+1]
		}
	}
	return text
}
