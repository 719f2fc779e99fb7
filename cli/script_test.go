// Package cli_test runs uc as a person does: a process, its streams and its
// exit code, against a machine's API in memory. Each file of testdata/script
// is a readable transcript.
package cli_test

import (
	"errors"
	"flag"
	"io"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"uncloud/cli/internal/command"
)

var update = flag.Bool("update", false, "rewrite the expected output in the scripts")

// noon is when all of this happens.
var noon = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// TestMain makes the test binary be uc, and the programs that uc runs.
func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"uc": uc, "ssh": ssh, "podman": podman})
}

func uc() {
	os.Exit(command.Main(command.UntilInterrupted(), command.Process{
		Args: os.Args[1:], Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr, Getenv: os.Getenv, Environ: os.Environ,
		Now: func() time.Time { return noon }, Version: "1.2.3",
	}))
}

// ssh stands in for OpenSSH: it notes its arguments, and is then a connection
// to the socket, or fails as the script wants it to.
func ssh() {
	arguments := strings.Join(os.Args[1:], "\n") + "\n"
	if err := os.WriteFile(os.Getenv("SSH_ARGS"), []byte(arguments), 0o600); err != nil {
		panic(err)
	}
	if host := os.Args[len(os.Args)-3]; host == os.Getenv("SSH_BROKEN") {
		io.WriteString(os.Stderr, os.Getenv("SSH_SAYS")+"\n")
		status, _ := strconv.Atoi(os.Getenv("SSH_STATUS"))
		os.Exit(status)
	}
	conn, err := net.Dial("unix", os.Getenv("SOCKET"))
	if err != nil {
		panic(err)
	}
	go func() {
		io.Copy(conn, os.Stdin)
		conn.(*net.UnixConn).CloseWrite()
	}()
	io.Copy(os.Stdout, conn)
}

// podman stands in for Podman: it saves one image.
func podman() {
	arguments := strings.Join(os.Args[1:], " ")
	before, name, _ := strings.Cut(arguments, " -- ")
	if name != "shop:3" && name != "localhost/shop:3" {
		io.WriteString(os.Stderr, "Error: "+name+": image not known\n")
		os.Exit(125)
	}
	_, file, ok := strings.Cut(before, "save --quiet --format oci-archive --uncompressed --output ")
	if !ok {
		panic("unexpected arguments: " + arguments)
	}
	if err := os.WriteFile(file, ociArchive("localhost/shop:3"), 0o600); err != nil {
		panic(err)
	}
}

func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata/script",
		UpdateScripts:       *update,
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
		Setup:               setup,
		Cmds:                map[string]func(*testscript.TestScript, bool, []string){"api": apiCommand, "archive": archiveCommand},
	})
}

// setup starts a machine for the script and points uc at it.
func setup(env *testscript.Env) error {
	// The path of a socket is short by nature, and that of a script is not.
	dir, err := os.MkdirTemp("", "uc")
	if err != nil {
		return err
	}
	env.Defer(func() { os.RemoveAll(dir) })
	socket := filepath.Join(dir, "s")
	listener, err := net.Listen("unix", socket)
	if err != nil {
		return err
	}
	w := newWorld()
	served := make(chan error, 1)
	go func() { served <- w.api().Serve(listener) }()
	env.Defer(func() {
		listener.Close()
		if err := <-served; err != nil {
			panic(err)
		}
	})
	env.Values["world"] = w
	env.Setenv("SOCKET", socket)
	env.Setenv("RUN", dir)
	env.Setenv("UNCLOUD_CONNECT", "unix://"+socket)
	env.Setenv("HOME", env.WorkDir)
	env.Setenv("TERM", "xterm")
	// Under the race detector each process would sleep for a second at its end.
	env.Setenv("GORACE", "atexit_sleep_ms=0")
	env.Setenv("SSH_ARGS", filepath.Join(env.WorkDir, "ssh-arguments"))
	return nil
}

// apiCommand is "api WORD [ARGUMENT...]" in a script: it changes how the
// machine behaves, or waits for or shows what it was asked.
func apiCommand(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) == 0 {
		ts.Fatalf("usage: api WORD [ARGUMENT...]")
	}
	ts.Check(ts.Value("world").(*world).order(args[0], args[1:], ts.MkAbs("api-calls")))
}

// archiveCommand is "archive KIND FILE" in a script: it writes an image archive.
func archiveCommand(ts *testscript.TestScript, _ bool, args []string) {
	makers := map[string]func() []byte{
		"oci":      func() []byte { return ociArchive("localhost/shop:3") },
		"nameless": func() []byte { return ociArchive("") },
		"docker":   func() []byte { return dockerArchive("shop:3") },
	}
	maker := makers[args[0]]
	if maker == nil {
		ts.Check(errors.New("there is no such kind of archive"))
	}
	ts.Check(os.WriteFile(ts.MkAbs(args[1]), maker(), 0o600))
}
