package server

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"

	uncloudv1 "uncloud/api/uncloud/v1"
	"uncloud/api/uncloud/v1/uncloudv1connect"
	"uncloud/internal/faults"
	"uncloud/internal/spec"
	"uncloud/internal/wire"
)

func (m *machine) cluster() uncloudv1connect.ClusterServiceClient {
	return uncloudv1connect.NewClusterServiceClient(m.local, "http://machine")
}

func (m *machine) machine() uncloudv1connect.MachineServiceClient {
	return uncloudv1connect.NewMachineServiceClient(m.local, "http://machine")
}

// info asks m who the machine is that ref names.
func (m *machine) info(ctx context.Context, ref string) (string, error) {
	req := connect.NewRequest(&uncloudv1.InfoRequest{})
	req.Header().Set(wire.MachineHeader, ref)
	res, err := m.machine().Info(ctx, req)
	if err != nil {
		return "", err
	}
	return res.Msg.GetMachineId(), nil
}

func TestAnyMachineAnswersForAnyOther(t *testing.T) {
	w := newWorld(t, "mch_a", "mch_b")
	a := w.machines["mch_a"]
	for ref, want := range map[string]string{"": "mch_a", "name-of-mch_a": "mch_a", "mch_b": "mch_b", "name-of-mch_b": "mch_b"} {
		got, err := a.info(t.Context(), ref)
		if err != nil || got != want {
			t.Errorf("%q is answered by %q, %v; want %s", ref, got, err, want)
		}
	}
	for range 10 {
		_, err := a.info(t.Context(), "mch_b")
		must(t, err)
	}
	if a.dials != 1 {
		t.Errorf("%d connections for what one carries", a.dials)
	}
	_, err := a.info(t.Context(), "nobody")
	refused(t, err, faults.NotFound, true)
	w.alive["mch_b"] = false
	_, err = a.info(t.Context(), "mch_b")
	refused(t, err, faults.MachineDown, true)
}

func TestAMachineThatDoesNotAnswerIsSaid(t *testing.T) {
	w := newWorld(t, "mch_a")
	w.state.Machines["mch_far"], w.alive["mch_far"] = spec.Machine{ID: "mch_far", Name: "far"}, true
	_, err := w.machines["mch_a"].info(t.Context(), "far")
	refused(t, err, faults.Unreachable, true)
}

func TestAPanicIsAFaultAndTheServerLives(t *testing.T) {
	w := newWorld(t, "mch_a")
	a := w.machines["mch_a"]
	a.member = func(m *Member) { m.WireGuard = func() (*uncloudv1.WireGuardResponse, error) { panic("a bug") } }
	_, err := a.machine().WireGuard(t.Context(), connect.NewRequest(&uncloudv1.WireGuardRequest{}))
	refused(t, err, faults.Internal, true)
	if _, err := a.info(t.Context(), ""); err != nil {
		t.Error(err)
	}
}

// TestARunningCallIsAnsweredAtTheEnd: a machine that is told to leave answers
// first, over the mesh that ends with it.
func TestARunningCallIsAnsweredAtTheEnd(t *testing.T) {
	w := newWorld(t, "mch_a")
	a := w.machines["mch_a"]
	began, goOn := make(chan struct{}), make(chan struct{})
	a.member = func(m *Member) {
		m.WireGuard = func() (*uncloudv1.WireGuardResponse, error) {
			close(began)
			<-goOn
			return &uncloudv1.WireGuardResponse{Interface: "uncloud"}, nil
		}
	}
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	must(t, err)
	ctx, end := context.WithCancel(t.Context())
	served := make(chan error, 1)
	s := New(a, quiet())
	go func() { served <- s.Serve(ctx, l, s.Mesh()) }()
	hc := wire.NewClient(func(ctx context.Context) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "tcp", l.Addr().String())
	})
	answered := make(chan error, 1)
	go func() {
		res, err := uncloudv1connect.NewMachineServiceClient(hc, "http://machine").WireGuard(t.Context(), connect.NewRequest(&uncloudv1.WireGuardRequest{}))
		if err == nil && res.Msg.GetInterface() != "uncloud" {
			err = errors.New("another answer")
		}
		answered <- err
	}()
	<-began
	end()
	select {
	case err := <-served:
		t.Fatalf("the server ended before its call: %v", err)
	case <-time.After(100 * time.Millisecond): // it cannot be seen to wait
	}
	close(goOn)
	must(t, <-answered)
	must(t, <-served)
}

func (m *machine) remove(ctx context.Context, ref string, force bool) error {
	stream, err := m.cluster().RemoveMachine(ctx, connect.NewRequest(&uncloudv1.RemoveMachineRequest{Machine: ref, Force: force}))
	if err != nil {
		return err
	}
	defer stream.Close()
	for stream.Receive() {
		if stream.Msg().GetDone() {
			return nil
		}
	}
	return errors.Join(stream.Err(), io.ErrUnexpectedEOF)
}

// TestAResetThatNobodyHeardOfIsSaid in the answer: it is done all the same.
func TestAResetThatNobodyHeardOfIsSaid(t *testing.T) {
	a := newWorld(t, "mch_a").machines["mch_a"]
	for _, untold := range []error{nil, faults.New(faults.Unreachable, "the others may not know").WithHint("remove it there")} {
		a.untold = untold
		res, err := a.machine().Reset(t.Context(), connect.NewRequest(&uncloudv1.ResetRequest{}))
		must(t, err)
		if f := res.Msg.GetUntold(); (f == nil) != (untold == nil) || f != nil && (f.GetSentence() != "the others may not know" || f.GetHint() != "remove it there") {
			t.Errorf("%v is told as %v", untold, f)
		}
	}
}

// TestALinkThatCannotBeReadIsAnError, and not a machine without peers.
func TestALinkThatCannotBeReadIsAnError(t *testing.T) {
	a := newWorld(t, "mch_a").machines["mch_a"]
	a.member = func(m *Member) {
		m.WireGuard = func() (*uncloudv1.WireGuardResponse, error) {
			return nil, errors.New("netlink: operation not permitted")
		}
	}
	res, err := a.machine().WireGuard(t.Context(), connect.NewRequest(&uncloudv1.WireGuardRequest{}))
	if err == nil || !strings.Contains(err.Error(), "not permitted") {
		t.Errorf("%v, %v", res, err)
	}
}

func TestRemovingAMachine(t *testing.T) {
	setup := func(t *testing.T) (*world, *machine, *machine) {
		w := newWorld(t, "mch_a", "mch_b")
		w.state.Replicas = map[string]spec.Replica{"rep_1": {ID: "rep_1", Machine: "mch_b"}, "rep_2": {ID: "rep_2", Machine: "mch_a"}}
		return w, w.machines["mch_a"], w.machines["mch_b"]
	}
	t.Run("one that lives leaves first", func(t *testing.T) {
		w, a, b := setup(t)
		must(t, a.remove(t.Context(), "name-of-mch_b", false))
		if _, still := w.snapshot().Machines["mch_b"]; still || b.resets != 1 || len(w.snapshot().Replicas) != 1 {
			t.Errorf("%d resets, %+v", b.resets, w.snapshot())
		}
	})
	t.Run("one that cannot leave stays, but by force", func(t *testing.T) {
		w, a, b := setup(t)
		b.failReset = faults.New(faults.Engine, "the engine is off")
		refused(t, a.remove(t.Context(), "mch_b", false), faults.Engine, true)
		if len(w.snapshot().Machines) != 2 || len(w.snapshot().Replicas) != 2 {
			t.Errorf("half done: %+v", w.snapshot())
		}
		must(t, a.remove(t.Context(), "mch_b", true))
		if len(w.snapshot().Machines) != 1 {
			t.Error("still there")
		}
	})
	t.Run("one that is down stays, but by force", func(t *testing.T) {
		w, a, b := setup(t)
		w.alive["mch_b"] = false
		refused(t, a.remove(t.Context(), "mch_b", false), faults.MachineDown, true)
		must(t, a.remove(t.Context(), "mch_b", true))
		if b.resets != 0 || len(w.snapshot().Machines) != 1 {
			t.Errorf("%d resets, %+v", b.resets, w.snapshot())
		}
	})
	t.Run("one with volumes stays, but by force", func(t *testing.T) {
		w, a, _ := setup(t)
		w.state.Volumes = map[string]spec.Volume{"vol_1": {ID: "vol_1", Project: "shop", Name: "data", Machine: "mch_b"}}
		refused(t, a.remove(t.Context(), "mch_b", false), faults.Invalid, true)
		must(t, a.remove(t.Context(), "mch_b", true))
		if len(w.snapshot().Volumes) != 0 {
			t.Error("its volume is still known")
		}
	})
	t.Run("nobody removes itself, nor nobody", func(t *testing.T) {
		_, a, _ := setup(t)
		refused(t, a.remove(t.Context(), "mch_a", true), faults.Invalid, true)
		refused(t, a.remove(t.Context(), "mch_x", true), faults.NotFound, true)
	})
}

func TestNamesLabelsAndRoles(t *testing.T) {
	w := newWorld(t, "mch_a", "mch_b")
	c := w.machines["mch_a"].cluster()
	rename := func(ref, name string) error {
		_, err := c.RenameMachine(t.Context(), connect.NewRequest(&uncloudv1.RenameMachineRequest{Machine: ref, Name: name}))
		return err
	}
	refused(t, rename("mch_a", "A B"), faults.Invalid, true)
	refused(t, rename("mch_a", "name-of-mch_b"), faults.Invalid, true) // _ is no letter of a name
	must(t, rename("mch_b", "two"))
	refused(t, rename("mch_a", "two"), faults.Conflict, true)
	must(t, rename("two", "two"))
	refused(t, rename("three", "four"), faults.NotFound, true)

	label := func(m *uncloudv1.LabelMachineRequest) (*uncloudv1.Machine, error) {
		m.Machine = "two"
		res, err := c.LabelMachine(t.Context(), connect.NewRequest(m))
		if err != nil {
			return nil, err
		}
		return res.Msg, nil
	}
	_, err := label(&uncloudv1.LabelMachineRequest{AddRoles: []string{"king"}, Set: map[string]string{"zone": "eu"}})
	refused(t, err, faults.Invalid, true)
	got, err := label(&uncloudv1.LabelMachineRequest{AddRoles: []string{"worker", "ingress", "worker"}, Remove: []string{"none"}})
	if err != nil || !slices.Equal(got.GetRoles(), []string{"ingress", "worker"}) || len(got.GetLabels()) != 0 {
		t.Errorf("%v, %v: a refused change left something, or roles are doubled", got, err)
	}
	got, err = label(&uncloudv1.LabelMachineRequest{RemoveRoles: []string{"ingress"}, Set: map[string]string{"zone": "eu"}})
	if err != nil || !slices.Equal(got.GetRoles(), []string{"worker"}) || got.GetLabels()["zone"] != "eu" {
		t.Errorf("%v, %v", got, err)
	}
}

func TestTicketsHaveLimits(t *testing.T) {
	w := newWorld(t, "mch_a")
	a := w.machines["mch_a"]
	var issued []string
	a.member = func(m *Member) {
		m.IssueTicket = func(_ context.Context, valid time.Duration, uses int) (string, string, time.Time, error) {
			issued = append(issued, fmt.Sprint(valid, " ", uses))
			return "tkt_a", "text", time.Now(), nil
		}
	}
	for _, bad := range []*uncloudv1.CreateTicketRequest{{ValidSeconds: -1}, {Uses: -1}, {Uses: maxTicketUses + 1}, {ValidSeconds: int64(spec.LongestTicket/time.Second) + 1}} {
		_, err := a.cluster().CreateTicket(t.Context(), connect.NewRequest(bad))
		refused(t, err, faults.Invalid, true)
	}
	_, err := a.cluster().CreateTicket(t.Context(), connect.NewRequest(&uncloudv1.CreateTicketRequest{}))
	must(t, err)
	if !slices.Equal(issued, []string{"1h0m0s 1"}) {
		t.Errorf("%q", issued)
	}
}

// TestADeadMachineSaysNothing: what it said last is not shown as if it were so.
func TestADeadMachineSaysNothing(t *testing.T) {
	w := newWorld(t, "mch_a", "mch_b")
	w.state.Services = map[string]spec.Service{"svc_1": {ID: "svc_1", Project: "shop", Name: "web"}}
	w.state.Replicas = map[string]spec.Replica{"rep_1": {ID: "rep_1", Name: "web-1", Service: "svc_1", Machine: "mch_b"}}
	w.state.Containers = map[string]spec.Container{"rep_1": {Replica: "rep_1", Machine: "mch_b", State: spec.ContainerRunning, Health: spec.HealthHealthy}}
	show := func() *uncloudv1.Replica {
		t.Helper()
		res, err := w.machines["mch_a"].cluster().ListReplicas(t.Context(), connect.NewRequest(&uncloudv1.ListReplicasRequest{Service: "shop/web"}))
		must(t, err)
		return res.Msg.GetReplicas()[0]
	}
	if r := show(); r.GetState() != "running" || r.GetHealth() != "healthy" {
		t.Errorf("alive: %v", r)
	}
	w.alive["mch_b"] = false
	if r := show(); r.GetState() != "unknown" || r.GetHealth() != "" {
		t.Errorf("dead: %v", r)
	}
	w.alive["mch_b"] = true
	moved := w.state.Replicas["rep_1"]
	moved.Machine = "mch_a"
	w.state.Replicas["rep_1"] = moved
	if r := show(); r.GetState() != "pending" {
		t.Errorf("taken over by another machine: %v", r)
	}
}

// TestEachLivingMachineSaysWhatItSuffersFrom, and one that does not answer
// costs the list nothing but its own troubles.
func TestEachLivingMachineSaysWhatItSuffersFrom(t *testing.T) {
	w := newWorld(t, "mch_a", "mch_b", "mch_c")
	delete(w.machines["mch_a"].machines, "mch_c") // no way to it
	w.state.Turns = map[string]spec.Turn{"mch_b": {Machine: "mch_b", Stage: spec.TurnFailed, Error: "no"}}
	list := func() map[string]string {
		t.Helper()
		res, err := w.machines["mch_a"].cluster().ListMachines(t.Context(), connect.NewRequest(&uncloudv1.ListMachinesRequest{}))
		must(t, err)
		out := map[string]string{}
		for _, m := range res.Msg.GetMachines() {
			for _, n := range m.GetHealth() {
				out[m.GetId()] += n.GetText()
			}
		}
		return out
	}
	if got := list(); got["mch_a"] != "of mch_a" || got["mch_b"] != "mch_b says soits upgrade failed: no" || got["mch_c"] != "" {
		t.Errorf("%v", got)
	}
	w.alive["mch_b"] = false
	if got := list(); got["mch_a"] != "of mch_a" || got["mch_b"] != "its upgrade failed: no" {
		t.Errorf("%v", got)
	}
	res, err := w.machines["mch_a"].cluster().InspectMachine(t.Context(), connect.NewRequest(&uncloudv1.InspectMachineRequest{Machine: "mch_a"}))
	if err != nil || len(res.Msg.GetHealth()) != 1 {
		t.Errorf("%v, %v", res, err)
	}
}

func TestAMachineThatGivesItsReplicasAwayTakesNoNewOnes(t *testing.T) {
	w := newWorld(t, "mch_a")
	shown := func() bool {
		t.Helper()
		res, err := w.machines["mch_a"].cluster().InspectMachine(t.Context(), connect.NewRequest(&uncloudv1.InspectMachineRequest{Machine: "mch_a"}))
		must(t, err)
		return res.Msg.GetSchedulable()
	}
	is := func(change func(*spec.Machine)) {
		m := w.state.Machines["mch_a"]
		change(&m)
		w.state.Machines["mch_a"] = m
	}
	is(func(m *spec.Machine) { m.Schedulable = true })
	if !shown() {
		t.Error("a machine at rest is said to take none")
	}
	for stage, want := range map[spec.TurnStage]bool{spec.TurnWaiting: true, spec.TurnDraining: false, spec.TurnDone: true} {
		w.state.Turns = map[string]spec.Turn{"mch_a": {Machine: "mch_a", Stage: stage, Drain: true}}
		if shown() != want {
			t.Errorf("%s: schedulable is %t", stage, !want)
		}
	}
	is(func(m *spec.Machine) { m.Roles = []spec.Role{spec.RoleIngress} })
	if shown() {
		t.Error("a machine that is no worker is said to take replicas")
	}
}

// containers run what a test says.
type containers struct {
	Engine
	exec func(ctx context.Context, o ExecOptions, s ExecStreams) (int, error)
}

func (c containers) Exec(ctx context.Context, _ string, o ExecOptions, s ExecStreams) (int, error) {
	return c.exec(ctx, o, s)
}

func (m *machine) exec(t *testing.T, target string, start *uncloudv1.ExecStart) *connect.BidiStreamForClient[uncloudv1.ExecRequest, uncloudv1.ExecResponse] {
	t.Helper()
	stream := m.machine().Exec(t.Context())
	stream.RequestHeader().Set(wire.MachineHeader, target)
	must(t, stream.Send(&uncloudv1.ExecRequest{Start: start}))
	return stream
}

func TestExecOnAnotherMachine(t *testing.T) {
	w := newWorld(t, "mch_a", "mch_b")
	w.state.Replicas = map[string]spec.Replica{"rep_1": {ID: "rep_1", Name: "web-1", Machine: "mch_b"}}
	w.machines["mch_b"].member = func(m *Member) {
		m.Engine = containers{exec: func(_ context.Context, o ExecOptions, s ExecStreams) (int, error) {
			in, err := io.ReadAll(s.Stdin)
			size := <-s.Resize
			fmt.Fprintf(s.Stdout, "%s: %s, %d columns", strings.Join(o.Command, " "), in, size.Columns)
			fmt.Fprint(s.Stderr, "aside")
			return 42, err
		}}
	}
	stream := w.machines["mch_a"].exec(t, "mch_b", &uncloudv1.ExecStart{Replica: "web-1", Command: []string{"cat", "-"}, Stdin: true, Tty: true})
	must(t, stream.Send(&uncloudv1.ExecRequest{Stdin: []byte("some ")}))
	must(t, stream.Send(&uncloudv1.ExecRequest{Resize: &uncloudv1.TerminalSize{Rows: 24, Columns: 80}}))
	must(t, stream.Send(&uncloudv1.ExecRequest{Stdin: []byte("input"), StdinClosed: true}))
	var out, aside bytes.Buffer
	for {
		m, err := stream.Receive()
		must(t, err)
		out.Write(m.GetStdout())
		aside.Write(m.GetStderr())
		if m.GetExited() {
			if m.GetExitCode() != 42 || out.String() != "cat -: some input, 80 columns" || aside.String() != "aside" {
				t.Errorf("exit code %d, %q, %q", m.GetExitCode(), out.String(), aside.String())
			}
			break
		}
	}
	must(t, stream.CloseRequest())
}

func TestExecRefusals(t *testing.T) {
	w := newWorld(t, "mch_a")
	for _, start := range []*uncloudv1.ExecStart{nil, {Replica: "web-1"}} {
		_, err := w.machines["mch_a"].exec(t, "", start).Receive()
		refused(t, err, faults.Invalid, false)
	}
	_, err := w.machines["mch_a"].exec(t, "", &uncloudv1.ExecStart{Replica: "web-1", Command: []string{"ls"}}).Receive()
	refused(t, err, faults.NotFound, true)
}

// TestAClientThatGoesAwayEndsItsCommand on whatever machine that runs.
func TestAClientThatGoesAwayEndsItsCommand(t *testing.T) {
	w := newWorld(t, "mch_a", "mch_b")
	w.state.Replicas = map[string]spec.Replica{"rep_1": {ID: "rep_1", Name: "web-1", Machine: "mch_b"}}
	began, ended := make(chan struct{}), make(chan struct{})
	w.machines["mch_b"].member = func(m *Member) {
		m.Engine = containers{exec: func(ctx context.Context, _ ExecOptions, _ ExecStreams) (int, error) {
			close(began)
			<-ctx.Done()
			close(ended)
			return 0, ctx.Err()
		}}
	}
	ctx, goAway := context.WithCancel(t.Context())
	stream := w.machines["mch_a"].machine().Exec(ctx)
	stream.RequestHeader().Set(wire.MachineHeader, "mch_b")
	must(t, stream.Send(&uncloudv1.ExecRequest{Start: &uncloudv1.ExecStart{Replica: "web-1", Command: []string{"sleep"}}}))
	<-began
	goAway()
	<-ended
}

func TestAMachineThatLagsSaysSo(t *testing.T) {
	w := newWorld(t, "mch_a")
	w.machines["mch_a"].member = func(m *Member) {
		m.WaitFor = func(context.Context, Version) error { return context.DeadlineExceeded }
	}
	peers := NewPeers(func(ctx context.Context, _ string) (net.Conn, error) { return w.machines["mch_a"].dial(ctx, "mch_a") })
	_, err := peers.RunReplica(t.Context(), "mch_a", "rep_1", Version{Site: "site", Seq: 3}, false)
	refused(t, err, faults.NotReady, true)
	w.machines["mch_a"].member = func(m *Member) {
		m.WaitFor = func(context.Context, Version) error { return faults.New(faults.DiskFull, "no space left") }
	}
	_, err = peers.RunReplica(t.Context(), "mch_a", "rep_1", Version{Site: "site", Seq: 3}, false)
	refused(t, err, faults.DiskFull, true)
}

// TestAHintOfAnotherMachineNamesIt: who reads it may sit elsewhere.
func TestAHintOfAnotherMachineNamesIt(t *testing.T) {
	w := newWorld(t, "mch_a", "mch_b")
	w.machines["mch_b"].member = func(m *Member) { m.Engine = brokenEngine{} }
	for _, c := range []struct{ at, of string }{{"mch_a", "mch_b"}, {"mch_b", "mch_b"}} {
		req := connect.NewRequest(&uncloudv1.ListImagesRequest{})
		req.Header().Set(wire.MachineHeader, c.of)
		_, err := w.machines[c.at].machine().ListImages(t.Context(), req)
		f := faults.Of(wire.Decode(err))
		if name := w.state.MachineName("mch_b"); f.Code != faults.Engine || f.Hint != "on "+name+": systemctl start podman.socket" {
			t.Errorf("asked at %s: %v, hint %q", c.at, f, f.Hint)
		}
	}
}

// brokenEngine is one that does not run.
type brokenEngine struct{ Engine }

func (brokenEngine) ListImages(context.Context) ([]*uncloudv1.Image, error) {
	return nil, faults.New(faults.Engine, "Podman does not answer").WithHint("systemctl start podman.socket")
}
