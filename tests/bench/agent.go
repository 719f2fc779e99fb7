package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"uncloud/tests/lab"
)

// The promises about an agent that has nothing to do.
const (
	boundMemory = 100e6 // bytes, PSS
	boundCPU    = 0.01  // of a core
	boundDisk   = 0     // bytes

	// settling is how long a cluster is left alone before it counts as idle.
	settling = 30 * time.Second
	// ticks is the unit of CPU time in /proc, USER_HZ: 100 on every Linux that Go runs on.
	ticks = 100
)

func idlePeriod(args []string) (time.Duration, error) {
	flags := flag.NewFlagSet("agent", flag.ContinueOnError)
	period := flags.Duration("for", 5*time.Minute, "how long to watch")
	err := flags.Parse(args)
	return *period, err
}

// sample is what an agent has used until now.
type sample struct {
	at      time.Time
	pss     int64         // bytes
	anon    int64         // bytes of pss that are not pages of files
	cpu     time.Duration // user and system
	written int64         // bytes that it sent to a disk
	engine  int           // process of Podman's service; 0 while it is away, as it is when nobody asks it
	podman  int64         // bytes that it sent to a disk
	logged  int           // lines in the journal of either
	changed time.Time     // of the newest file in its state directory
}

// ownProgram gives each machine its own copy of the agent. Sharing one file,
// three agents on one host would each count a third of its pages.
const ownProgram = `cp -L /usr/bin/uncloudd /usr/local/sbin/uncloudd
printf '[Service]\nExecStart=\nExecStart=/usr/local/sbin/uncloudd run\n' > /etc/systemd/system/uncloud.service.d/bench.conf
systemctl daemon-reload
systemctl restart uncloud`

// benchAgent watches the agents of an idle cluster that runs a service.
func benchAgent(ctx context.Context, l *lab.Lab, period time.Duration) error {
	machines, err := l.Machines()
	if err != nil {
		return err
	}
	for _, m := range machines {
		if _, err := m.Shell(ctx, ownProgram); err != nil {
			return err
		}
	}
	if err := lab.AwaitUp(ctx, machines...); err != nil {
		return err
	}
	if err := l.Image(ctx, filepath.Join(lab.Repository(), "tests/stories/app"), benchImage); err != nil {
		return err
	}
	if err := l.M(1).WriteFile(ctx, composeFile, idleCompose); err != nil {
		return err
	}
	if _, err := l.M(1).Output(ctx, "uc", "deploy", "-y", "-f", composeFile); err != nil {
		return err
	}
	if err := rest(ctx, settling); err != nil {
		return err
	}
	before := map[string]sample{}
	for _, m := range machines {
		if before[m.Name], err = look(ctx, m); err != nil {
			return err
		}
	}
	fmt.Printf("watching three idle agents for %s\n", period)
	if err := rest(ctx, period); err != nil {
		return err
	}
	var over []string
	for _, m := range machines {
		after, err := look(ctx, m)
		if err != nil {
			return err
		}
		over = append(over, judge(m, before[m.Name], after)...)
	}
	if len(over) > 0 {
		return fmt.Errorf("over the promise: %s", strings.Join(over, ", "))
	}
	return nil
}

// idleCompose is a service with a health check, which is what an agent does
// while nothing happens.
const idleCompose = `name: idle
services:
  web:
    image: bench:1
    x-healthcheck: {http: ":8080/healthy"}
    deploy: {replicas: 3}
`

// judge prints what an agent used between two samples, and lists what was too much.
func judge(m *lab.Machine, before, after sample) []string {
	span := after.at.Sub(before.at)
	core := (after.cpu - before.cpu).Seconds() / span.Seconds()
	disk := after.written - before.written
	podman, logged := after.podman-before.podman, after.logged-before.logged
	if after.engine != before.engine {
		podman = after.podman
	}
	touched := after.changed.After(before.at)
	fmt.Printf("%s: PSS %.1f MB (%.1f MB its own data, the rest pages of its program), CPU %.2f %% of a core, %d bytes written in %s, state files touched: %v; %d bytes written by Podman, %d lines logged\n",
		m.Name, float64(after.pss)/1e6, float64(after.anon)/1e6, 100*core, disk, span.Round(time.Second), touched, podman, logged)
	var over []string
	for what, is := range map[string]bool{
		"memory": after.pss > boundMemory, "CPU": core > boundCPU, "disk": disk+podman > boundDisk || touched, "journal": logged > 0,
	} {
		if is {
			over = append(over, m.Name+" "+what)
		}
	}
	return over
}

func rest(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d):
		return nil
	}
}

// look reads an agent's figures from /proc, on the host: looking from inside
// would be work of the machine. Podman's service is what the agent keeps busy.
func look(ctx context.Context, m *lab.Machine) (sample, error) {
	pid, err := pidOf(ctx, m, "uncloud")
	if err == nil && pid == 0 {
		err = errors.New("it does not run")
	}
	if err != nil {
		return sample{}, fmt.Errorf("agent of %s: %w", m.Name, err)
	}
	s := sample{at: time.Now()}
	if s.engine, err = pidOf(ctx, m, "podman"); err != nil {
		return s, fmt.Errorf("podman of %s: %w", m.Name, err)
	}
	if s.engine != 0 {
		if s.podman, err = field(s.engine, "io", "write_bytes:"); err != nil {
			return s, err
		}
	}
	journal, err := m.Output(ctx, "journalctl", "-q", "-o", "cat", "-u", "uncloud", "-u", "podman")
	if err != nil {
		return s, err
	}
	s.logged = strings.Count(journal, "\n")
	if s.pss, err = field(pid, "smaps_rollup", "Pss:"); err != nil {
		return s, err
	}
	if s.anon, err = field(pid, "smaps_rollup", "Pss_Anon:"); err != nil {
		return s, err
	}
	s.pss, s.anon = s.pss*1024, s.anon*1024
	if s.written, err = field(pid, "io", "write_bytes:"); err != nil {
		return s, err
	}
	if s.cpu, err = cpuTime(pid); err != nil {
		return s, err
	}
	s.changed, err = newest(filepath.Join(m.Disk(), "up/var/lib/uncloud"))
	return s, err
}

// pidOf finds the main process of a unit as the host numbers it, or 0 where it does
// not run. In the machine it has another number, the last one of its NSpid.
func pidOf(ctx context.Context, m *lab.Machine, unit string) (int, error) {
	out, err := m.Output(ctx, "systemctl", "show", "-P", "MainPID", unit)
	if err != nil {
		return 0, err
	}
	inner := strings.TrimSpace(out)
	if inner == "0" {
		return 0, nil
	}
	init, err := m.Path("")
	if err != nil {
		return 0, err
	}
	home, err := os.Readlink(filepath.Join(filepath.Dir(init), "ns/pid"))
	if err != nil {
		return 0, err
	}
	processes, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		return 0, err
	}
	for _, dir := range processes {
		if space, err := os.Readlink(filepath.Join(dir, "ns/pid")); err != nil || space != home {
			continue // of another machine, or gone
		}
		b, err := os.ReadFile(filepath.Join(dir, "status"))
		if err == nil && numberInside(string(b)) == inner {
			return strconv.Atoi(filepath.Base(dir))
		}
	}
	return 0, fmt.Errorf("no process has number %s inside", inner)
}

func numberInside(status string) string {
	for line := range strings.Lines(status) {
		if f := strings.Fields(line); len(f) > 1 && f[0] == "NSpid:" {
			return f[len(f)-1]
		}
	}
	return ""
}

// field reads a number that stands behind a name in a file of /proc/PID.
func field(pid int, file, name string) (int64, error) {
	path := fmt.Sprintf("/proc/%d/%s", pid, file)
	b, err := os.ReadFile(path)
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(b)) {
		if f := strings.Fields(line); len(f) > 1 && f[0] == name {
			return strconv.ParseInt(f[1], 10, 64)
		}
	}
	return 0, fmt.Errorf("%s has no %s", path, name)
}

func cpuTime(pid int) (time.Duration, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, err
	}
	_, rest, _ := strings.Cut(string(b), ") ")
	f := strings.Fields(rest)
	if len(f) < 13 {
		return 0, fmt.Errorf("stat of %d is too short", pid)
	}
	user, err1 := strconv.ParseInt(f[11], 10, 64)
	system, err2 := strconv.ParseInt(f[12], 10, 64)
	if err1 != nil || err2 != nil {
		return 0, fmt.Errorf("stat of %d: %w", pid, err1)
	}
	return time.Duration(user+system) * time.Second / ticks, nil
}

// newest is the latest change of any file below dir.
func newest(dir string) (time.Time, error) {
	var latest time.Time
	err := filepath.WalkDir(dir, func(_ string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err == nil && info.ModTime().After(latest) {
			latest = info.ModTime()
		}
		return err
	})
	return latest, err
}
