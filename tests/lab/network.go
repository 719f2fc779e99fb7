package lab

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
)

// The underlay is a bridge in a network namespace of its own. Machine N is
// plugged into port pN. A partition is a set of pairs of ports between which
// the bridge drops every frame, so also ARP: nothing at all passes.
const underlayRules = `
table bridge lab {
	set cut { type ifname . ifname; }
	chain forward { type filter hook forward priority 0; iifname . oifname @cut drop; }
}
`

// internetAddress is what stands for the internet; the outside answers on it.
const internetAddress = "198.51.100.1"

func (l *Lab) underlay() string      { return "uclab-" + l.Name + "-u" }
func (m *Machine) netnsName() string { return "uclab-" + m.lab.Name + "-" + m.Name }
func (m *Machine) netns() string     { return "/run/netns/" + m.netnsName() }
func (m *Machine) port() string      { return fmt.Sprintf("p%d", m.n) }

// makeUnderlay makes the bridge unless it is there.
func (l *Lab) makeUnderlay(ctx context.Context) error {
	if _, err := os.Stat("/run/netns/" + l.underlay()); err == nil {
		return nil
	}
	if err := command(ctx, "", "ip", "netns", "add", l.underlay()); err != nil {
		return err
	}
	if err := ipBatch(ctx, l.underlay(), "link add br0 type bridge", "link set br0 up"); err != nil {
		return err
	}
	return l.nft(ctx, underlayRules)
}

func (l *Lab) removeUnderlay(ctx context.Context) error { return deleteNetns(ctx, l.underlay()) }

// plug makes the machine's network namespace and its card, eth0.
func (m *Machine) plug(ctx context.Context) error {
	if err := command(ctx, "", "ip", "netns", "add", m.netnsName()); err != nil {
		return err
	}
	err := ipBatch(ctx, m.lab.underlay(),
		fmt.Sprintf("link add %s mtu 1500 type veth peer name eth0 netns %s", m.port(), m.netnsName()),
		fmt.Sprintf("link set %s master br0 up", m.port()))
	if err != nil {
		return err
	}
	lines := []string{
		"link set lo up",
		fmt.Sprintf("addr add %s/24 dev eth0", m.Address()),
		"link set eth0 up",
	}
	if m.n == outsideNumber {
		lines = append(lines, "addr add "+internetAddress+"/32 dev lo")
	} else {
		lines = append(lines, "route add default via "+m.lab.Outside().Address().String())
	}
	return ipBatch(ctx, m.netnsName(), lines...)
}

// unplug removes card and namespace. The port goes first: a namespace that
// somebody still holds open would keep its card alive.
func (m *Machine) unplug(ctx context.Context) error {
	_ = command(ctx, "", "ip", "-n", m.lab.underlay(), "link", "del", m.port()) // most often gone already
	return deleteNetns(ctx, m.netnsName())
}

// Cut parts the network: the named machines on one side, all others on the
// other. It is added to what is cut already. The outside reaches both sides.
func (l *Lab) Cut(ctx context.Context, side ...string) error {
	machines, err := l.find(side)
	if err != nil {
		return err
	}
	all, err := l.Machines()
	if err != nil {
		return err
	}
	var pairs []string
	for _, a := range machines {
		for _, b := range all {
			if !slices.Contains(side, b.Name) {
				pairs = append(pairs, pair(a, b)...)
			}
		}
	}
	if len(pairs) == 0 {
		return fmt.Errorf("there is nobody on the other side: lab %s has no more machines", l.Name)
	}
	return l.cut(ctx, pairs)
}

// CutPair keeps two machines from reaching each other, and nobody else.
func (l *Lab) CutPair(ctx context.Context, a, b string) error {
	machines, err := l.find([]string{a, b})
	if err != nil {
		return err
	}
	if a == b {
		return fmt.Errorf("%s cannot be cut from itself", a)
	}
	return l.cut(ctx, pair(machines[0], machines[1]))
}

// Heal ends all cuts.
func (l *Lab) Heal(ctx context.Context) error {
	if err := l.mustExist(); err != nil {
		return err
	}
	return l.nft(ctx, "flush set bridge lab cut\n")
}

func pair(a, b *Machine) []string {
	return []string{
		fmt.Sprintf("%q . %q", a.port(), b.port()),
		fmt.Sprintf("%q . %q", b.port(), a.port()),
	}
}

func (l *Lab) cut(ctx context.Context, pairs []string) error {
	return l.nft(ctx, "add element bridge lab cut { "+strings.Join(pairs, ", ")+" }\n")
}

func (l *Lab) find(names []string) ([]*Machine, error) {
	machines := make([]*Machine, len(names))
	for i, name := range names {
		m, err := l.Machine(name)
		if err != nil {
			return nil, err
		}
		machines[i] = m
	}
	return machines, nil
}

// CutFrom lists the machines that m cannot reach, by name.
func (m *Machine) CutFrom(ctx context.Context) ([]string, error) {
	out, err := exec.CommandContext(ctx, "ip", "netns", "exec", m.lab.underlay(), "nft", "list", "set", "bridge", "lab", "cut").Output()
	if err != nil {
		return nil, fmt.Errorf("list cuts: %w", err)
	}
	all, err := m.lab.Machines()
	if err != nil {
		return nil, err
	}
	var names []string
	for _, other := range all {
		if strings.Contains(string(out), pair(m, other)[0]) {
			names = append(names, other.Name)
		}
	}
	return names, nil
}

func (l *Lab) nft(ctx context.Context, rules string) error {
	return command(ctx, rules, "ip", "netns", "exec", l.underlay(), "nft", "-f", "-")
}

func ipBatch(ctx context.Context, netns string, lines ...string) error {
	return command(ctx, strings.Join(lines, "\n")+"\n", "ip", "-n", netns, "-batch", "-")
}

func deleteNetns(ctx context.Context, name string) error {
	if _, err := os.Stat("/run/netns/" + name); errors.Is(err, os.ErrNotExist) {
		return nil
	}
	return command(ctx, "", "ip", "netns", "del", name)
}

// command runs a program of the host and makes its last words the error.
func command(ctx context.Context, stdin string, name string, args ...string) error {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Stdin = strings.NewReader(stdin)
	out, err := cmd.CombinedOutput()
	if err != nil {
		return fmt.Errorf("%s %s: %w: %s", name, strings.Join(args, " "), err, strings.TrimSpace(string(out)))
	}
	return nil
}
