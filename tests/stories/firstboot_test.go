package stories

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"uncloud/tests/lab"
)

const (
	card  = "/media/card"
	taken = "/var/lib/uncloud-first-boot"
)

// firstBoot runs the command as the unit does, but for the volume: a lab has
// no cards, so it is a folder.
func firstBoot(t *testing.T, m *lab.Machine) string {
	t.Helper()
	r, err := m.Exec(t.Context(), "uncloudd", "first-boot", "--volume", card)
	if err != nil || r.Code != 0 {
		t.Fatalf("a boot must go on: %v, exit code %d\n%s%s", err, r.Code, r.Stdout, r.Stderr)
	}
	return r.Stdout
}

func says(t *testing.T, m *lab.Machine, what string, argv ...string) {
	t.Helper()
	r, err := m.Exec(t.Context(), argv...)
	try(t, err)
	if all := r.Stdout + r.Stderr; !strings.Contains(all, what) {
		t.Errorf("%s says %q, want %q", strings.Join(argv, " "), all, what)
	}
}

func TestAFlashedMachineIsToldByOneFileWhoItIs(t *testing.T) {
	c := alone(t, 1)
	ctx := t.Context()
	flashed, err := c.Add(ctx)
	try(t, err)
	ticket, err := c.M(1).Ticket(ctx)
	try(t, err)
	lay := func(text string) { t.Helper(); try(t, flashed.WriteFile(ctx, card+"/uncloud.txt", text)) }

	// A wrong key: nothing is taken, and whoever looks is told.
	lay("naame = shelf\r\n" + ticket)
	const wrong = `uncloud.txt on ` + card + `, line 1: there is no key "naame": did you mean name?`
	if out := firstBoot(t, flashed); !strings.Contains(out, wrong) || !strings.Contains(out, "nothing was taken") {
		t.Errorf("the console shows %q", out)
	}
	says(t, flashed, wrong, "uncloudd", "status")
	says(t, flashed, wrong, "uc", "machine", "ls")
	// So is whoever looks in the cluster: the file has its ticket in spite of all.
	must(t, flashed, "systemctl", "restart", "uncloud")
	c.notes(" could not join: "+wrong, true)
	_, err = flashed.Shell(ctx, "test -e "+card+"/uncloud.txt && test ! -e "+taken+"/config.json")
	try(t, err)

	// Mended, it is taken whole, and the secret is gone from the card.
	lay("name = shelf\r\nlabel = room=attic\r\nrole = worker\r\nkey = " + publicKey(t, flashed) + "\r\n" + ticket)
	if out := firstBoot(t, flashed); !strings.Contains(out, "was read: name shelf, 1 key, 1 label, roles, ticket") {
		t.Errorf("the console shows %q", out)
	}
	_, err = flashed.Shell(ctx, "test ! -e "+card+"/uncloud.txt && ! grep -r uncloud-ticket "+card+" && test $(stat -c %a "+taken+"/ticket) = 600 && test $(hostname) = shelf")
	try(t, err)
	_, err = flashed.Output(ctx, "systemctl", "restart", "uncloud")
	try(t, err)
	c.seen("shelf", "attic", "worker")
	c.notes("could not join", false)
	eventually(t, long, "the ticket is removed", func(ctx context.Context) error {
		_, err := flashed.Shell(ctx, "test ! -e "+taken+"/ticket")
		return err
	})

	// A member keeps who it is; what is refused now is told to the cluster.
	lay("name = other\naddress = 192.0.2.300/24\n")
	firstBoot(t, flashed)
	says(t, c.M(1), `uncloud.txt on `+card+`, line 2, address: "192.0.2.300/24" is no address`, "uc", "machine", "ls")
	lay("name = other\ntimezone = Etc/UTC\n")
	if out := firstBoot(t, flashed); !strings.Contains(out, "is a member already and keeps its name") {
		t.Errorf("the console shows %q", out)
	}
	c.seen("shelf", "attic", "worker")
	r, err := c.M(1).Exec(ctx, "uc", "machine", "ls")
	if err != nil || strings.Contains(r.Stdout+r.Stderr, card) {
		t.Errorf("the trouble is over and still told: %v\n%s%s", err, r.Stdout, r.Stderr)
	}

	// Having left, it looks for a ticket again, without being started anew.
	_, err = flashed.Output(ctx, "uncloudd", "reset", "--yes")
	try(t, err)
	says(t, flashed, "belongs to no cluster", "uncloudd", "status")
	eventually(t, long, "it waits for a ticket", func(ctx context.Context) error {
		r, err := flashed.Exec(ctx, "uncloudd", "status")
		if err == nil && !strings.Contains(r.Stdout, "no ticket yet") {
			err = fmt.Errorf("status: %s%s", r.Stdout, r.Stderr)
		}
		return err
	})
	ticket, err = c.M(1).Ticket(ctx)
	try(t, err)
	lay(ticket)
	firstBoot(t, flashed)
	c.seen("shelf", "attic", "worker")
}

// notes waits until m1 shows a note in its list of machines, or shows it no more.
func (c *cluster) notes(text string, shown bool) {
	c.t.Helper()
	eventually(c.t, long, fmt.Sprintf("m1 shows %q: %t", text, shown), func(ctx context.Context) error {
		r, err := c.M(1).Exec(ctx, "uc", "machine", "ls")
		if all := r.Stdout + r.Stderr; err == nil && strings.Contains(all, text) != shown {
			err = fmt.Errorf("%s", all)
		}
		return err
	})
}

// publicKey is some key of the machine's own.
func publicKey(t *testing.T, m *lab.Machine) string {
	t.Helper()
	out, err := m.Shell(t.Context(), "cut -d' ' -f1,2 /root/.ssh/authorized_keys | head -1")
	try(t, err)
	return strings.TrimSpace(out)
}

// seen waits until m1 sees a machine that is up with a label room and one role.
func (c *cluster) seen(name, room, role string) {
	c.t.Helper()
	eventually(c.t, long, "m1 sees the machine "+name, func(ctx context.Context) error {
		members, err := c.M(1).Members(ctx)
		if err != nil {
			return err
		}
		for _, m := range members {
			if m.GetName() == name && m.GetState() == "up" && m.GetLabels()["room"] == room && strings.Join(m.GetRoles(), " ") == role {
				return nil
			}
		}
		return fmt.Errorf("members: %v", members)
	})
}

// TestAMachineBootsWithTheUnitOfAnImage: the unit that the NixOS module makes,
// but for the volume, since a lab has none.
func TestAMachineBootsWithTheUnitOfAnImage(t *testing.T) {
	c := alone(t, 1)
	ctx := t.Context()
	unit, err := os.ReadFile(filepath.Join(lab.Repository(), "nix/golden/flashed/etc/systemd/system/uncloud-first-boot.service"))
	try(t, err)
	flashed, err := c.Add(ctx)
	try(t, err)
	ticket, err := c.M(1).Ticket(ctx)
	try(t, err)
	try(t, flashed.WriteFile(ctx, "/etc/systemd/system/uncloud-first-boot.service", strings.ReplaceAll(string(unit), "UNCLOUD", card)))
	_, err = flashed.Output(ctx, "systemctl", "enable", "uncloud-first-boot")
	try(t, err)

	boot := func(name string) {
		t.Helper()
		try(t, flashed.WriteFile(ctx, card+"/uncloud.txt", "name = "+name+"\nlabel = room=attic\nrole = worker\n"+ticket))
		try(t, flashed.Reboot(ctx))
	}
	// A name that is taken is said where a person looks, and the ticket stays good.
	boot("m1")
	eventually(t, long, "why it is no member", func(ctx context.Context) error {
		r, err := flashed.Exec(ctx, "uncloudd", "status")
		if err == nil && !strings.Contains(r.Stdout, "a machine named m1 is a member already") {
			err = fmt.Errorf("status: %s%s", r.Stdout, r.Stderr)
		}
		return err
	})
	says(t, flashed, "name m1, 1 label, roles, ticket", "journalctl", "-u", "uncloud-first-boot", "-o", "cat")
	boot("shelf")
	c.seen("shelf", "attic", "worker")

	// And it stays that at every boot.
	try(t, flashed.Kill(ctx))
	try(t, flashed.Start(ctx))
	c.seen("shelf", "attic", "worker")
	says(t, flashed, "shelf", "hostname")
}
