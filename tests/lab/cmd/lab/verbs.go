package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"os/signal"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"text/tabwriter"

	"uncloud/tests/lab"
)

// call is one command as it was typed.
type call struct {
	opts  lab.Options
	lab   *lab.Lab
	args  []string // without flags
	flags map[string]string
}

type verb struct {
	usage       string
	least, most int      // number of arguments; most -1: any
	flags       []string // that it takes besides --name; "bare" and "pair" stand alone
	run         func(context.Context, call) error
}

var verbs = map[string]verb{
	"up":     {"up [N] [--bare] [--name LAB]", 0, 1, []string{"bare"}, up},
	"exec":   {"exec M -- CMD...", 2, -1, nil, execute},
	"cp":     {"cp SRC DST", 2, 2, nil, func(ctx context.Context, c call) error { return c.lab.Copy(ctx, c.args[0], c.args[1]) }},
	"image":  {"image DIR|BINARY NAME [--on M]", 2, 2, []string{"on"}, image},
	"cut":    {"cut M... | cut --pair A B", 1, -1, []string{"pair"}, cut},
	"heal":   {"heal", 0, 0, nil, func(ctx context.Context, c call) error { return c.lab.Heal(ctx) }},
	"kill":   {"kill M...", 1, -1, nil, each((*lab.Machine).Kill)},
	"start":  {"start M...", 1, -1, nil, each((*lab.Machine).Start)},
	"reboot": {"reboot M...", 1, -1, nil, each((*lab.Machine).Reboot)},
	"add":    {"add", 0, 0, nil, add},
	"path":   {"path M PATH", 2, 2, nil, path},
	"ready":  {"ready", 0, 0, nil, func(context.Context, call) error { return lab.Ready() }},
	"ls":     {"ls [-o json]", 0, 0, []string{"output"}, list},
	"down":   {"down", 0, 0, nil, func(ctx context.Context, c call) error { return c.lab.Down(ctx) }},
}

// parse reads flags wherever they stand, up to "--" or, for exec, up to the
// command.
func parse(name string, allowed []string, args []string) (call, error) {
	c := call{flags: map[string]string{}}
	for len(args) > 0 {
		arg := args[0]
		args = args[1:]
		if arg == "--" || name == "exec" && len(c.args) == 1 && !strings.HasPrefix(arg, "-") {
			if arg != "--" {
				c.args = append(c.args, arg)
			}
			c.args = append(c.args, args...)
			break
		}
		if !strings.HasPrefix(arg, "-") {
			c.args = append(c.args, arg)
			continue
		}
		flag, value, given := strings.Cut(strings.TrimLeft(arg, "-"), "=")
		if flag == "o" {
			flag = "output"
		}
		if flag != "name" && !slices.Contains(allowed, flag) {
			return c, fmt.Errorf("%s takes no flag %s; see ./dev lab help", name, arg)
		}
		if !given && flag != "bare" && flag != "pair" {
			if len(args) == 0 {
				return c, fmt.Errorf("flag %s needs a value", arg)
			}
			value, args = args[0], args[1:]
		}
		c.flags[flag] = value
	}
	_, c.opts.Bare = c.flags["bare"]
	c.opts.Name = c.flags["name"]
	c.opts.Log = slog.New(narrator{})
	var err error
	c.lab, err = lab.Open(c.opts)
	return c, err
}

func up(ctx context.Context, c call) error {
	if len(c.args) > 0 {
		n, err := strconv.Atoi(c.args[0])
		if err != nil || n < 1 {
			return fmt.Errorf("%q is no number of machines", c.args[0])
		}
		c.opts.Machines = n
	}
	_, err := lab.Up(ctx, c.opts)
	return err
}

// execute runs a command in a machine. The terminal's interrupt goes to the
// command too, which decides what it means; a plain signal is passed on.
func execute(ctx context.Context, c call) error {
	m, err := c.lab.Machine(c.args[0])
	if err != nil {
		return err
	}
	cmd := m.Command(context.WithoutCancel(ctx), c.args[1:]...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	signals := make(chan os.Signal, 4)
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP, syscall.SIGQUIT)
	if err := cmd.Start(); err != nil {
		return err
	}
	go func() {
		for s := range signals {
			if s != syscall.SIGINT && s != syscall.SIGQUIT {
				_ = cmd.Process.Signal(s) // it may have ended meanwhile
			}
		}
	}()
	err = cmd.Wait()
	if _, ok := errors.AsType[*exec.ExitError](err); ok {
		return exitCode(lab.ExitCode(err))
	}
	return err
}

func image(ctx context.Context, c call) error {
	var on []*lab.Machine
	if name := c.flags["on"]; name != "" {
		m, err := c.lab.Machine(name)
		if err != nil {
			return err
		}
		on = append(on, m)
	}
	return c.lab.Image(ctx, c.args[0], c.args[1], on...)
}

func cut(ctx context.Context, c call) error {
	if _, pair := c.flags["pair"]; !pair {
		return c.lab.Cut(ctx, c.args...)
	}
	if len(c.args) != 2 {
		return errors.New("use: ./dev lab cut --pair A B")
	}
	return c.lab.CutPair(ctx, c.args[0], c.args[1])
}

func each(do func(*lab.Machine, context.Context) error) func(context.Context, call) error {
	return func(ctx context.Context, c call) error {
		for _, name := range c.args {
			m, err := c.lab.Machine(name)
			if err != nil {
				return err
			}
			if err := do(m, ctx); err != nil {
				return err
			}
		}
		return nil
	}
}

func add(ctx context.Context, c call) error {
	m, err := c.lab.Add(ctx)
	if err != nil {
		return err
	}
	fmt.Println(m.Name)
	return nil
}

// path tells where a file or socket of a running machine is on this host.
func path(_ context.Context, c call) error {
	m, err := c.lab.Machine(c.args[0])
	if err != nil {
		return err
	}
	path, err := m.Path(c.args[1])
	if err != nil {
		return err
	}
	fmt.Println(path)
	return nil
}

// row is a machine in `lab ls -o json`. The field names are stable.
type row struct {
	Name    string   `json:"name"`
	State   string   `json:"state"` // on, off
	Address string   `json:"address"`
	CutFrom []string `json:"cutFrom"`
}

func list(ctx context.Context, c call) error {
	rows := []row{}
	machines, err := c.lab.Machines()
	if err != nil {
		return err
	}
	for _, m := range machines {
		r := row{Name: m.Name, State: "off", Address: m.Address().String(), CutFrom: []string{}}
		if m.Running() {
			r.State = "on"
		}
		if names, err := m.CutFrom(ctx); err == nil { // without an underlay nothing is cut, for nothing runs
			r.CutFrom = append(r.CutFrom, names...)
		}
		rows = append(rows, r)
	}
	switch c.flags["output"] {
	case "json":
		encoder := json.NewEncoder(os.Stdout)
		encoder.SetIndent("", "  ")
		return encoder.Encode(rows)
	case "":
		return table(os.Stdout, rows)
	}
	return fmt.Errorf("-o takes json, not %q", c.flags["output"])
}

func table(out io.Writer, rows []row) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "NAME\tSTATE\tADDRESS\tCUT FROM")
	for _, r := range rows {
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\n", r.Name, r.State, r.Address, strings.Join(r.CutFrom, " "))
	}
	return w.Flush()
}

// narrator prints log records as sentences for the person who waits.
type narrator struct{}

func (narrator) Enabled(context.Context, slog.Level) bool { return true }
func (n narrator) WithAttrs([]slog.Attr) slog.Handler     { return n }
func (n narrator) WithGroup(string) slog.Handler          { return n }

func (narrator) Handle(_ context.Context, r slog.Record) error {
	text := "lab: " + r.Message
	r.Attrs(func(a slog.Attr) bool {
		text += fmt.Sprintf(" %s=%v", a.Key, a.Value)
		return true
	})
	_, err := fmt.Fprintln(os.Stderr, text)
	return err
}
