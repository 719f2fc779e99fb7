package connect

import (
	"cmp"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"uncloud/internal/faults"
)

// controlPersist is how long ssh keeps a connection for the next command.
const controlPersist = "10m"

// dialSSH starts ssh, which runs the agent's dial-stdio on the machine. That
// the machine cannot be reached is told by the first read, not here.
func dialSSH(t Target) (net.Conn, error) {
	path, err := exec.LookPath("ssh")
	if err != nil {
		return nil, faults.New(faults.Unreachable, "there is no ssh program on this computer").
			WithHint("install an OpenSSH client").Because(err)
	}
	return startStdio(exec.Command(path, sshArgs(t)...), func(status int, said string) error {
		return sshFault(t, status, said)
	})
}

func sshArgs(t Target) []string {
	args := []string{"-T", "-o", "BatchMode=yes", "-o", "ConnectTimeout=5", "-o", "StrictHostKeyChecking=accept-new"}
	if path := controlPath(); path != "" {
		persist := cmp.Or(os.Getenv("UNCLOUD_SSH_CONTROL_PERSIST"), controlPersist)
		args = append(args, "-o", "ControlMaster=auto", "-o", "ControlPath="+path, "-o", "ControlPersist="+persist)
	}
	if t.KeyFile != "" {
		args = append(args, "-i", t.KeyFile)
	}
	if t.Port != "" {
		args = append(args, "-p", t.Port)
	}
	if t.User != "" {
		args = append(args, "-l", t.User)
	}
	return append(args, "--", t.Host, "uncloudd", "dial-stdio")
}

// controlPath is where ssh shares its connections, in a directory that only
// this user may enter; empty where there is none, and then each command makes
// its own connection. The limit is that of a unix socket's path (108), less
// what ssh makes of %C and appends while it connects.
func controlPath() string {
	base := os.Getenv("XDG_RUNTIME_DIR")
	if base == "" {
		var err error
		if base, err = os.UserCacheDir(); err != nil {
			return ""
		}
	}
	dir := filepath.Join(base, "uncloud")
	if len(dir) > 108-60 || os.MkdirAll(dir, 0o700) != nil {
		return ""
	}
	return filepath.Join(dir, "%C")
}

// Exit statuses of ssh: its own failures, and what the far shell says of a
// program that is not there.
const (
	sshFailed       = 255
	programNotFound = 127
)

func sshFault(t Target, status int, said string) error {
	reason := lastLine(said)
	switch {
	case status == programNotFound:
		return faults.New(faults.Unreachable, "uncloud is not installed on %s", t.address()).
			WithHint("install it there, or look where it is: ssh %s which uncloudd", sshWords(t))
	case status == sshFailed && strings.Contains(said, "Permission denied"):
		return faults.New(faults.Unreachable, "ssh to %s was refused: %s", t.address(), reason).
			WithHint("this must work without a password: ssh -o BatchMode=yes %s true", sshWords(t))
	case status == sshFailed:
		return faults.New(faults.Unreachable, "ssh to %s ended: %s", t.address(), cmp.Or(reason, "it does not say why")).
			WithHint("try: ssh %s uncloudd dial-stdio", sshWords(t))
	}
	return faults.New(faults.Unreachable, "the agent on %s did not answer: %s", t.address(), cmp.Or(reason, fmt.Sprintf("ssh ended with %d", status))).
		WithHint("ssh %s systemctl status uncloud", sshWords(t))
}

// sshWords are the arguments with which a person reaches the target.
func sshWords(t Target) string {
	host := t.Host
	if t.User != "" {
		host = t.User + "@" + host
	}
	if t.Port != "" {
		return "-p " + t.Port + " " + host
	}
	return host
}

func lastLine(text string) string {
	lines := strings.Split(strings.TrimSpace(text), "\n")
	return strings.TrimSpace(lines[len(lines)-1])
}
