package hostos

import (
	"time"
)

// Target is the system that an attempt leads to. One of System, Flake and
// Generation is set.
type Target struct {
	System string `json:"system,omitempty"` // a store path
	// Flake is a reference to one, with the configuration's name after "#", or
	// with none: it is then Name.
	Flake      string `json:"flake,omitempty"`
	Name       string `json:"name,omitempty"`
	Generation int    `json:"generation,omitempty"` // of this machine's profile
}

// Want is what an order asks for. Each includes those before it.
type Want string

const (
	WantStage Want = "stage"   // build or fetch the system, and look at it
	WantGo    Want = "go"      // run it
	WantKeep  Want = "keep"    // it is confirmed
	WantStop  Want = "give up" // return, or do not begin
)

// Order is what the agent wants of one attempt.
type Order struct {
	ID     string `json:"id"`
	Want   Want   `json:"want"`
	Target Target `json:"target"`
	// Restart boots the system instead of switching to it.
	Restart bool `json:"restart,omitempty"`
	// Within is how long the running system waits to be confirmed.
	Within time.Duration `json:"within"`
	// Reason of a WantStop.
	Reason string `json:"reason,omitempty"`
}

// Step is where an attempt is; see the package's documentation.
type Step string

const (
	Staging    Step = "staging"
	Staged     Step = "staged"
	Trying     Step = "trying"
	Arming     Step = "arming"
	Restarting Step = "restarting"
	Watching   Step = "watching"
	Keeping    Step = "keeping"
	Returning  Step = "returning"
	GoingBack  Step = "going back" // returning, by another restart
	Done       Step = "done"
	Failed     Step = "failed" // the former system runs, unless Stuck
)

// Attempt is the journal of one attempt.
type Attempt struct {
	ID      string        `json:"id"`
	Target  Target        `json:"target"`
	Restart bool          `json:"restart,omitempty"`
	Within  time.Duration `json:"within"`
	Step    Step          `json:"step"`

	// Locked is the flake as it was when the system was built; see Machine.Lock.
	Locked string `json:"locked,omitempty"`

	New string `json:"new,omitempty"` // the system
	// Former is what ran before, and Default the generation of the profile then.
	Former  string     `json:"former,omitempty"`
	Default Generation `json:"default"`

	// Boot is the boot in which Step began, and Deadline the time since that
	// boot by which the attempt must be confirmed. Wall clocks jump on machines
	// without a battery.
	Boot     string        `json:"boot"`
	Deadline time.Duration `json:"deadline,omitempty"`

	// Armed is set before the default is touched, and with it Newest: the highest
	// number of the profile then. What is above it and leads to New was made by
	// this attempt, and goes with it when it fails.
	Armed  bool `json:"armed,omitempty"`
	Newest int  `json:"newest,omitempty"`
	// ByHand is set when a person activated another system in this boot, and
	// only the default is left to return.
	ByHand bool `json:"byHand,omitempty"`
	// WentBack is set before the restart of a return, of which there is one.
	WentBack bool `json:"wentBack,omitempty"`
	// Stuck is set when even the former system could not be brought back.
	Stuck bool `json:"stuck,omitempty"`

	// Error is why it failed, a sentence; Lines are the last that the failing
	// program wrote.
	Error string   `json:"error,omitempty"`
	Lines []string `json:"lines,omitempty"`
}

// Ended tells whether nothing more is to be done.
func (a Attempt) Ended() bool { return a.Step == Done || a.Step == Failed || a.ID == "" }

// Generation is one of a profile. Number 0 is none.
type Generation struct {
	Number int    `json:"number"`
	System string `json:"system"` // store path
}

// Seen is what the machine is like at one moment.
type Seen struct {
	Boot    string        // id of this boot
	Uptime  time.Duration // since the boot, suspended time included
	Current string        // system that runs
	Booted  string        // system that was booted
	Default Generation    // of the profile
	Newest  int           // the highest number of the profile; 0 is none
	// InMemory is the folder of the journal where a restart empties it.
	InMemory string
}

// Made are the generations of a system that an attempt made: those above a
// number. After 0, of a journal that does not say, is none.
type Made struct {
	System string
	After  int
}

func (o Order) reason() string {
	if o.Reason == "" {
		return "it was given up"
	}
	return o.Reason
}
