package lab

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os/exec"
	"path"
	"path/filepath"
	"strings"
)

// Copy copies a file or directory; either end may be in a machine, as
// M:PATH. As with cp, an existing directory as destination takes the source
// into itself.
func (l *Lab) Copy(ctx context.Context, source, destination string) error {
	from, err := l.place(source)
	if err != nil {
		return err
	}
	to, err := l.place(destination)
	if err != nil {
		return err
	}
	if from.machine == nil && to.machine == nil {
		return errors.New("neither end is in a machine: write it as M:PATH, such as m1:/root/file")
	}
	pack := from.command(ctx, `cd "$1" && exec tar -cf - -- "$2"`, path.Dir(from.path), path.Base(from.path))
	unpack := to.command(ctx, unpackScript, to.path, path.Base(from.path))
	if err := pipe(pack, unpack); err != nil {
		return fmt.Errorf("copy %s to %s: %w", source, destination, err)
	}
	return nil
}

// unpackScript receives one tar member and gives it the name that cp would.
const unpackScript = `set -eu
to=$1 base=$2
case $to in */) mkdir -p "$to" ;; esac
if [ -d "$to" ]; then exec tar -xf - -C "$to"; fi
mkdir -p "$(dirname "$to")"
work=$(mktemp -d "$(dirname "$to")/.copy.XXXXXX")
trap 'rm -rf "$work"' EXIT
tar -xf - -C "$work"
mv -f -- "$work/$base" "$to"`

// location is a path on the host (machine is nil) or in a machine.
type location struct {
	machine *Machine
	path    string
}

func (l *Lab) place(text string) (location, error) {
	name, rest, ok := strings.Cut(text, ":")
	if !ok || strings.ContainsAny(name, "/.") {
		abs, err := filepath.Abs(text)
		if strings.HasSuffix(text, "/") {
			abs += "/"
		}
		return location{path: abs}, err
	}
	m, err := l.Machine(name)
	if err != nil {
		return location{}, err
	}
	if !path.IsAbs(rest) {
		rest = "/root/" + rest
	}
	return location{machine: m, path: rest}, nil
}

func (p location) command(ctx context.Context, script string, args ...string) *Cmd {
	argv := append([]string{"sh", "-c", script, "sh"}, args...)
	if p.machine != nil {
		return p.machine.Command(ctx, argv...)
	}
	return &Cmd{Cmd: exec.CommandContext(ctx, argv[0], argv[1:]...)}
}

// pipe runs both commands, the output of the first into the second.
func pipe(first, second *Cmd) error {
	out, err := first.StdoutPipe()
	if err != nil {
		return err
	}
	var firstErrs, secondErrs bytes.Buffer
	first.Stderr, second.Stdin, second.Stderr = &firstErrs, out, &secondErrs
	if err := first.Start(); err != nil {
		return err
	}
	if err := second.Start(); err != nil {
		_ = first.Process.Kill()
		return errors.Join(err, first.Wait())
	}
	if err := first.Wait(); err != nil {
		_ = second.Wait() // it sees half an archive and says so; the cause is the first
		return fmt.Errorf("%w: %s", err, bytes.TrimSpace(firstErrs.Bytes()))
	}
	if err := second.Wait(); err != nil {
		return fmt.Errorf("%w: %s", err, bytes.TrimSpace(secondErrs.Bytes()))
	}
	return nil
}
