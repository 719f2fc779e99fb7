package main

import (
	"context"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"connectrpc.com/connect"

	uncloudv1 "uncloud/api/uncloud/v1"
	"uncloud/api/uncloud/v1/uncloudv1connect"
	"uncloud/internal/faults"
	"uncloud/internal/wire"
)

func TestStatusSaysWhoTheMachineIsAndWhatItSuffersFrom(t *testing.T) {
	for want, info := range map[string]*uncloudv1.InfoResponse{
		"this machine belongs to no cluster\njoin: ticket tkt_a expired on 2026-01-01\n": {
			Phase: "new", Health: []*uncloudv1.HealthNote{{Code: "join", Text: "ticket tkt_a expired on 2026-01-01"}},
		},
		"pi-1 (mch_a) of cluster cls_a is ready, at 10.210.7.1\n": {
			Phase: "ready", MachineId: "mch_a", ClusterId: "cls_a", Name: "pi-1", Address: "10.210.7.1",
		},
	} {
		var out strings.Builder
		printStatus(&out, info)
		if out.String() != want {
			t.Errorf("%q, want %q", out.String(), want)
		}
	}
}

func TestWrongCommandLinesSayWhatIsRight(t *testing.T) {
	for line, want := range map[string][2]string{
		"join":             {"uncloudd join does not take 0 arguments", "uncloudd join TICKET-FILE [flags]"},
		"join a b":         {"uncloudd join does not take 2 arguments", "uncloudd join TICKET-FILE [flags]"},
		"status now":       {"uncloudd status does not take 1 arguments", "uncloudd status [flags]"},
		"nope":             {`uncloudd has no command "nope"`, "uncloudd --help"},
		"host nope":        {`uncloudd host has no command "nope"`, "uncloudd host --help"},
		"--nope":           {"unknown flag: --nope", "uncloudd --help"},
		"join --nope x":    {"unknown flag: --nope", "uncloudd join --help"},
		"join --label a x": {`invalid argument "a" for "--label" flag: a must be formatted as key=value`, "uncloudd join --help"},
		"restore":          {"uncloudd restore does not take 0 arguments", "uncloudd restore BACKUP [flags]"},
	} {
		var said strings.Builder
		cmd := root()
		cmd.SetArgs(strings.Fields(line))
		cmd.SetOut(io.Discard)
		err := cmd.ExecuteContext(t.Context())
		if err == nil {
			t.Errorf("%s: nothing is wrong with it", line)
			continue
		}
		fail(&said, err)
		if text := "uncloudd: error: " + want[0] + "\nuncloudd: hint: " + want[1] + "\n"; said.String() != text {
			t.Errorf("%s says\n%swant\n%s", line, &said, text)
		}
	}
}

func TestSocketFaults(t *testing.T) {
	for err, want := range map[error][2]string{
		syscall.EACCES:       {"you may not use /s", "sudo uncloudd"},
		syscall.ENOENT:       {"the agent does not answer at /s", "systemctl start uncloud"},
		syscall.ECONNREFUSED: {"the agent does not answer at /s", "systemctl start uncloud"},
		syscall.EMFILE:       {"connect to /s: ", "systemctl status uncloud"},
	} {
		f := faults.Of(socketFault("/s", &net.OpError{Op: "dial", Err: os.NewSyscallError("connect", err)}))
		if !strings.HasPrefix(f.Sentence, want[0]) || !strings.Contains(f.Hint, want[1]) {
			t.Errorf("%v: %q, %q", err, f.Sentence, f.Hint)
		}
	}
}

// TestFirstBootNeverFails: a boot goes on whatever is wrong. Nothing is
// applied here, since the volume is not there.
func TestFirstBootNeverFails(t *testing.T) {
	var out strings.Builder
	cmd := root()
	cmd.SetOut(&out)
	cmd.SetArgs([]string{"first-boot", "--config", "/nonexistent/config.json", "--directory", t.TempDir(), "--volume", "/nonexistent"})
	if err := cmd.ExecuteContext(ended()); err != nil {
		t.Errorf("it ended with %v", err)
	}
	if !strings.Contains(out.String(), "uncloud: read configuration") {
		t.Errorf("a wrong configuration is not said: %q", out.String())
	}
}

// ended is a context that waits for no stick.
func ended() context.Context {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	return ctx
}

// forgetful is an agent whose machine left without a word.
type forgetful struct {
	uncloudv1connect.UnimplementedMachineServiceHandler
}

func (forgetful) Reset(context.Context, *connect.Request[uncloudv1.ResetRequest]) (*connect.Response[uncloudv1.ResetResponse], error) {
	return connect.NewResponse(&uncloudv1.ResetResponse{Untold: &uncloudv1.Fault{Sentence: "the others may not know", Hint: "remove it there"}}), nil
}

// TestAResetThatNobodyHeardOfIsSaid, and is no error: it is done.
func TestAResetThatNobodyHeardOfIsSaid(t *testing.T) {
	dir := t.TempDir()
	socket, config := filepath.Join(dir, "s"), filepath.Join(dir, "config.json")
	if err := os.WriteFile(config, []byte(`{"socket":"`+socket+`"}`), 0o600); err != nil {
		t.Fatal(err)
	}
	l, err := new(net.ListenConfig).Listen(t.Context(), "unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	_, handler := uncloudv1connect.NewMachineServiceHandler(forgetful{})
	srv := wire.NewServer(handler)
	go srv.Serve(l)
	defer srv.Close()
	var said strings.Builder
	cmd := root()
	cmd.SetArgs([]string{"--config", config, "reset", "--yes"})
	cmd.SetErr(&said)
	if err := cmd.ExecuteContext(t.Context()); err != nil {
		t.Fatal(err)
	}
	if want := "uncloudd: warning: the others may not know\nuncloudd: hint: remove it there\n"; said.String() != want {
		t.Errorf("%q, want %q", said.String(), want)
	}
}
