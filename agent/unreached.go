package agent

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"time"

	"uncloud/agent/internal/mesh"
)

const (
	// networkPatience is how long a network may take to give an address before
	// somebody should look: a Wi-Fi needs half of it.
	networkPatience = time.Minute
	// networkPause is between the looks after that.
	networkPause = 15 * time.Second
)

// networkWatch tells whoever stands before a flashed machine that its network
// stays away: nobody else can.
type networkWatch struct {
	there func() bool // whether the machine has an address
	say   func(said, hint string)
}

// run ends when the machine has an address.
func (w networkWatch) run(ctx context.Context) {
	pause, said := networkPatience, false
	for {
		select {
		case <-ctx.Done():
			return
		case <-time.After(pause):
		}
		switch {
		case !w.there():
			if !said {
				w.say(noAddress, networkHint)
			}
			pause, said = networkPause, true
		case said:
			w.say("this machine has an address now", "")
			return
		default:
			return
		}
	}
}

const (
	noAddress   = "this machine has no address in any network yet"
	networkHint = "check the cable, or name and password of the Wi-Fi: networkctl; iwctl station wlan0 show"
)

// watchNetwork looks after the network of a flashed machine, also of one that
// has no ticket, and of one that is a member already. The others have owners who
// see to it.
func (a *Agent) watchNetwork(ctx context.Context) {
	if _, err := os.Stat(a.cfg.firstBoot); a.cfg.firstBoot == "" || errors.Is(err, fs.ErrNotExist) {
		return
	}
	links := newMesh(mesh.Options{})
	networkWatch{
		there: func() bool {
			found, err := links.LocalEndpoints(a.cfg.ListenPort)
			return err != nil || len(found) > 0
		},
		say: func(said, hint string) {
			a.mu.Lock()
			known := a.waits != "" && a.waits == said // by the attempt to join
			a.mu.Unlock()
			if !known {
				a.log.Warn("network", "said", said, "hint", hint)
				tellConsole(said, hint)
			}
		},
	}.run(ctx)
}
