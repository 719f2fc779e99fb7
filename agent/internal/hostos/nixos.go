package hostos

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

const (
	profile      = "/nix/var/nix/profiles/system"
	currentLink  = "/run/current-system"
	bootedLink   = "/run/booted-system"
	bootIDFile   = "/proc/sys/kernel/random/boot_id"
	firstProcess = "/proc/1/stat"
	switchTo     = "bin/switch-to-configuration"
	systemdUnits = "etc/systemd/system"
)

// NixOS is this machine as it is.
type NixOS struct {
	Root   string    // "/", or where a test has its own
	Dir    string    // DefaultDir; the link to the staged system goes there
	Output io.Writer // what the programs write; the journal

	// grace is how long a program that was told to end may take to, and one that
	// has ended leave its output open in the hands of others; 0 is ten seconds.
	grace time.Duration
	// syncfs makes the file system of a folder durable; nil is the kernel's.
	syncfs func(dir string) error
}

func (n NixOS) path(p string) string { return filepath.Join(n.Root, p) }

// Seen looks at the links of the system.
func (n NixOS) Seen(context.Context) (s Seen, err error) {
	if s.Boot, err = n.boot(); err != nil {
		return s, err
	}
	var up unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &up); err != nil {
		return s, fmt.Errorf("time since the boot: %w", err)
	}
	s.Uptime = time.Duration(up.Nano())
	if s.Current, err = n.follow(currentLink); err != nil {
		return s, err
	}
	if s.Booted, err = n.booted(); err != nil {
		return s, err
	}
	if s.Default, err = n.defaultGeneration(); err != nil {
		return s, err
	}
	s.InMemory = n.inMemory()
	s.Newest, err = n.newest()
	return s, err
}

// inMemory is Dir where a restart empties it; else nothing.
func (n NixOS) inMemory() string {
	var at unix.Statfs_t
	if err := unix.Statfs(n.Dir, &at); err != nil {
		return ""
	}
	if kind := int64(at.Type); kind == unix.TMPFS_MAGIC || kind == unix.RAMFS_MAGIC { //nolint:unconvert // it is shorter on some processors
		return n.Dir
	}
	return ""
}

// boot names this boot: by the kernel's id, and by when the first process began,
// since containers that start anew may share a kernel.
func (n NixOS) boot() (string, error) {
	id, err := os.ReadFile(n.path(bootIDFile))
	if err != nil {
		return "", err
	}
	stat, err := os.ReadFile(n.path(firstProcess))
	if err != nil {
		return "", err
	}
	const began = 19 // of the fields after the name in parentheses
	_, after, _ := strings.Cut(string(stat[bytes.LastIndexByte(stat, ')')+1:]), " ")
	fields := strings.Fields(after)
	if len(fields) <= began {
		return "", fmt.Errorf("%s has %d fields", firstProcess, len(fields))
	}
	return strings.TrimSpace(string(id)) + "/" + fields[began], nil
}

// booted is the system that was booted; empty in a container, which has none.
func (n NixOS) booted() (string, error) {
	system, err := n.follow(bootedLink)
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	return system, err
}

// follow is the store path at the end of a chain of links.
func (n NixOS) follow(link string) (string, error) {
	const most = 8 // there are two
	for range most {
		to, err := os.Readlink(n.path(link))
		if err != nil {
			return "", err
		}
		if !filepath.IsAbs(to) {
			to = filepath.Join(filepath.Dir(link), to)
		}
		if info, err := os.Lstat(n.path(to)); err == nil && info.Mode()&os.ModeSymlink != 0 {
			link = to
			continue
		}
		return to, nil
	}
	return "", fmt.Errorf("%s is a link without an end", link)
}

// Try runs a system until the next boot.
func (n NixOS) Try(ctx context.Context, system string) error {
	return n.run(ctx, "the switch to "+Name(system)+" failed", n.path(filepath.Join(system, switchTo)), "test")
}

// Restart asks the service manager for one.
func (n NixOS) Restart(ctx context.Context) error {
	return n.run(ctx, "the machine cannot be restarted", "systemctl", "reboot")
}

// Name is a system as people see it: its store path without the store.
func Name(system string) string {
	if system == "" {
		return ""
	}
	return filepath.Base(system)
}

// run runs a program to its end. Its error has the last lines that it wrote.
func (n NixOS) run(ctx context.Context, failure, program string, args ...string) error {
	_, err := n.output(ctx, failure, program, args...)
	return err
}

// output is run, and returns the last line of standard output.
func (n NixOS) output(ctx context.Context, failure, program string, args ...string) (string, error) {
	out := &lastLines{most: 1}
	err := n.into(ctx, io.MultiWriter(out, n.Output), failure, program, args...)
	return strings.Join(out.lines(), ""), err
}

// into is run with another place for standard output.
func (n NixOS) into(ctx context.Context, out io.Writer, failure, program string, args ...string) error {
	cmd := exec.CommandContext(ctx, program, args...)
	if os.Getenv("HOME") == "" {
		cmd.Env = append(os.Environ(), "HOME=/root") // where Nix keeps what it has fetched
	}
	// A build has children, and a download of theirs would outlive their parent.
	cmd.SysProcAttr = &unix.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return unix.Kill(-cmd.Process.Pid, unix.SIGTERM) }
	cmd.WaitDelay = cmp.Or(n.grace, 10*time.Second)
	all := &lastLines{most: keptLines}
	cmd.Stdout = io.MultiWriter(all, out)
	cmd.Stderr = io.MultiWriter(all, n.Output)
	err := cmd.Run()
	last := all.lines()
	switch {
	case err == nil, errors.Is(err, exec.ErrWaitDelay) && ctx.Err() == nil: // what it left running is not its failure
		return nil
	case ctx.Err() != nil:
		if cmd.Process != nil {
			_ = unix.Kill(-cmd.Process.Pid, unix.SIGKILL) // who did not listen; mostly nobody is left
		}
		return &programError{failure + ": " + ctx.Err().Error(), last}
	case len(last) > 0:
		return &programError{failure + ": " + strings.TrimSpace(last[len(last)-1]), last}
	}
	return &programError{sentence: failure + ": " + err.Error()}
}

// keptLines of a program that failed are shown to people.
const keptLines = 12

// lastLines keeps the last lines that are written to it, from both outputs of a
// program at once.
type lastLines struct {
	most int
	mu   sync.Mutex
	kept []string
	open strings.Builder
}

// longestLine bounds what is kept of one line.
const longestLine = 500

func (l *lastLines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for rest := string(p); rest != ""; {
		line, after, ended := strings.Cut(rest, "\n")
		l.open.WriteString(line[:min(len(line), max(longestLine-l.open.Len(), 0))])
		if ended {
			l.keep()
		}
		rest = after
	}
	return len(p), nil
}

func (l *lastLines) keep() {
	if line := strings.TrimRight(l.open.String(), " \r"); line != "" {
		l.kept = append(l.kept, line)
		l.kept = l.kept[max(len(l.kept)-l.most, 0):]
	}
	l.open.Reset()
}

func (l *lastLines) lines() []string {
	l.keep()
	return l.kept
}

var (
	_ Machine   = NixOS{}
	_ io.Writer = (*lastLines)(nil)
)
