package cli_test

import (
	"bytes"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// onTerminal runs uc with its streams on a terminal of 60 columns and is all
// that it wrote there.
func onTerminal(t *testing.T, w *world, env []string, args ...string) (output string, err error) {
	t.Helper()
	dir := t.TempDir()
	files := "name: shop\nservices:\n  web:\n    image: web:2\n"
	if err := os.WriteFile(filepath.Join(dir, "compose.yaml"), []byte(files), 0o600); err != nil {
		t.Fatal(err)
	}
	listener, err := net.Listen("unix", filepath.Join(dir, "s"))
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- w.api().Serve(listener) }()
	master, slave := openTerminal(t)
	cmd := exec.Command("uc", args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), append([]string{"GORACE=atexit_sleep_ms=0", "TERM=xterm", "UNCLOUD_CONNECT=unix://" + listener.Addr().String()}, env...)...)
	cmd.Stdin = slave
	cmd.Stdout = slave
	cmd.Stderr = slave
	read := make(chan string, 1)
	go func() {
		var all bytes.Buffer
		io.Copy(&all, master) //nolint:errcheck // ends with EIO when the last user of the terminal has gone
		read <- all.String()
	}()
	err = cmd.Run()
	slave.Close()
	output = <-read
	listener.Close()
	if err := <-served; err != nil {
		t.Error(err)
	}
	return output, err
}

func openTerminal(t *testing.T) (master, slave *os.File) {
	t.Helper()
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Skipf("needs pseudo-terminals: %v", err)
	}
	t.Cleanup(func() { master.Close() })
	fd := int(master.Fd())
	if err := unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	n, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.IoctlSetWinsize(fd, unix.TIOCSWINSZ, &unix.Winsize{Row: 24, Col: 60}); err != nil {
		t.Fatal(err)
	}
	slave, err = os.OpenFile("/dev/pts/"+strconv.Itoa(n), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	return master, slave
}

var (
	colour  = regexp.MustCompile(`\x1b\[[0-9;]*m`)
	control = regexp.MustCompile(`\x1b\[(\d*)([A-Z])`)
)

// screen is what a person sees in the end: it obeys the few movements that uc
// makes and refuses all others.
func screen(t *testing.T, output string) string {
	t.Helper()
	var lines []string
	row := 0
	for _, text := range strings.SplitAfter(strings.ReplaceAll(colour.ReplaceAllString(output, ""), "\r\n", "\n"), "\n") {
		for m := control.FindStringSubmatchIndex(text); m != nil; m = control.FindStringSubmatchIndex(text) {
			switch n, _ := strconv.Atoi(text[m[2]:m[3]]); text[m[4]:m[5]] {
			case "A":
				row -= n
			case "J":
				lines = lines[:row]
			default:
				t.Fatalf("unexpected control %q", text[m[0]:m[1]])
			}
			text = strings.TrimPrefix(text[:m[0]]+text[m[1]:], "\r")
		}
		if text == "" {
			continue
		}
		lines = append(lines[:row], strings.TrimSuffix(text, "\n"))
		row++
	}
	return strings.Join(lines, "\n") + "\n"
}

func TestDeployOnATerminal(t *testing.T) {
	output, err := onTerminal(t, newWorld(), nil, "deploy", "-y")
	if err != nil {
		t.Fatalf("%v: %s", err, output)
	}
	for _, passing := range []string{"replace web-a1a1 on m1", "0 of 2 steps", "1 of 2 steps"} {
		if !strings.Contains(output, passing) {
			t.Errorf("%q was never drawn in %q", passing, output)
		}
	}
	if !colour.MatchString(output) {
		t.Errorf("no colour on a terminal: %q", output)
	}
	const want = `~ shop/web changed
    image web:1 -> web:2
  ~ replace web-a1a1 on m1 (other image)
  + create web-d4d4 on m2
plan: 1 replace step, 1 create step
done   replace web-a1a1 on m1 (0.0 s)
note   m2 pulls web:2
done   create web-d4d4 on m2 (0.0 s)
deployed shop: 2 steps in 0.0 s
  web  https://shop.example.com
`
	if got := screen(t, output); got != want {
		t.Errorf("the screen shows in the end\n%s\nand should show\n%s", got, want)
	}
}

// A terminal here makes one there, of the same size; -T makes none.
func TestExecOnATerminal(t *testing.T) {
	for flag, want := range map[string]string{"": "60x24", "-T": "0x0"} {
		w := newWorld()
		args := []string{"exec", flag, "web", "size"}
		output, err := onTerminal(t, w, nil, slices.DeleteFunc(args, func(s string) bool { return s == "" })...)
		if err != nil || strings.TrimSpace(output) != want {
			t.Errorf("with %q: %q, %v; want %s", flag, output, err, want)
		}
		if call := "tty=" + strconv.FormatBool(flag == ""); !strings.Contains(strings.Join(w.calls, "\n"), call) {
			t.Errorf("with %q: asked for %q, want %s", flag, w.calls, call)
		}
	}
}

func TestDrawnLinesFit(t *testing.T) {
	output, err := onTerminal(t, newWorld(), nil, "image", "push", "shop:3", "--name", "registry.example.com/"+strings.Repeat("long/", 20)+"shop:3")
	if err != nil {
		t.Fatalf("%v: %s", err, output)
	}
	drawn := 0
	for _, text := range strings.Split(colour.ReplaceAllString(output, ""), "\r\n") {
		text = control.ReplaceAllString(text, "")
		if strings.Contains(text, "⠋") {
			drawn++
			if n := len([]rune(strings.TrimPrefix(text, "\r"))); n > 60 {
				t.Errorf("a drawn line has %d columns of 60: %q", n, text)
			}
		}
	}
	if drawn == 0 {
		t.Errorf("nothing was drawn: %q", output)
	}
}

func TestColourIsForTerminalsThatWantIt(t *testing.T) {
	for env, want := range map[string]bool{"LANG=C": true, "NO_COLOR=1": false, "TERM=dumb": false} {
		output, err := onTerminal(t, newWorld(), []string{env}, "machine", "ls")
		if err != nil {
			t.Fatalf("%v: %s", err, output)
		}
		if got := colour.MatchString(output); got != want {
			t.Errorf("with %s, colour is %t: %q", env, got, output)
		}
	}
}
