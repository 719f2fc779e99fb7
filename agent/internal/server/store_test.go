package server

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"io"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"

	uncloudv1 "uncloud/api/uncloud/v1"
	"uncloud/internal/faults"
	"uncloud/internal/spec"
	"uncloud/internal/wire"
)

// copies is a store that gives the same backup every time.
type copies struct {
	content []byte
	open    int
	unread  error // why the state cannot be read
}

func (c *copies) Status(ctx context.Context) (*uncloudv1.StoreStatusResponse, error) {
	return &uncloudv1.StoreStatusResponse{}, cmp.Or(c.unread, ctx.Err())
}

func (c *copies) Check(context.Context) (*uncloudv1.CheckStoreResponse, error) {
	return &uncloudv1.CheckStoreResponse{Rows: 3, Problems: []string{"one"}}, nil
}

func (c *copies) Backup(context.Context) (*uncloudv1.StoreBackup, io.ReadCloser, error) {
	c.open++
	return &uncloudv1.StoreBackup{Sha256: "abc", Bytes: int64(len(c.content))}, struct {
		io.Reader
		io.Closer
	}{bytes.NewReader(c.content), closer(func() error { c.open--; return nil })}, nil
}

type closer func() error

func (c closer) Close() error { return c() }

// TestABackupTravelsWhole: over the mesh, in pieces, the description first.
func TestABackupTravelsWhole(t *testing.T) {
	for _, size := range []int{0, 1, backupChunk, backupChunk + 1, 5 * backupChunk / 2} {
		w := newWorld(t, "mch_a", "mch_b")
		kept := &copies{content: []byte(strings.Repeat("x", size))}
		w.machines["mch_b"].member = func(m *Member) { m.Store = kept }
		req := connect.NewRequest(&uncloudv1.BackupStoreRequest{})
		req.Header().Set(wire.MachineHeader, "mch_b")
		stream, err := w.machines["mch_a"].machine().BackupStore(t.Context(), req)
		must(t, err)
		var got []byte
		for first := true; stream.Receive(); first = false {
			if b := stream.Msg().GetBackup(); first != (b.GetSha256() == "abc") {
				t.Errorf("described %v, first %t", b, first)
			}
			got = append(got, stream.Msg().GetChunk()...)
		}
		must(t, stream.Err())
		must(t, stream.Close())
		if !bytes.Equal(got, kept.content) || kept.open != 0 {
			t.Errorf("%d bytes of %d, %d copies left open", len(got), size, kept.open)
		}
	}
}

func TestAStoreIsCheckedWhereItIs(t *testing.T) {
	w := newWorld(t, "mch_a", "mch_b")
	w.machines["mch_b"].member = func(m *Member) { m.Store = &copies{} }
	req := connect.NewRequest(&uncloudv1.CheckStoreRequest{})
	req.Header().Set(wire.MachineHeader, "mch_b")
	res, err := w.machines["mch_a"].machine().CheckStore(t.Context(), req)
	must(t, err)
	if res.Msg.GetRows() != 3 || len(res.Msg.GetProblems()) != 1 {
		t.Error(res.Msg)
	}
}

// TestAStoreThatCannotBeReadHasNoStatus: half of one would look like a copy that
// differs from the others.
func TestAStoreThatCannotBeReadHasNoStatus(t *testing.T) {
	a := newWorld(t, "mch_a").machines["mch_a"]
	a.member = func(m *Member) { m.Store = &copies{unread: errors.New("disk I/O error")} }
	res, err := a.machine().StoreStatus(t.Context(), connect.NewRequest(&uncloudv1.StoreStatusRequest{}))
	if err == nil || !strings.Contains(err.Error(), "disk I/O error") {
		t.Errorf("%v, %v", res, err)
	}
}

func TestARestoreReadsAllMessages(t *testing.T) {
	a := newWorld(t, "mch_a").machines["mch_a"]
	stream := a.machine().RestoreStore(t.Context())
	must(t, stream.Send(&uncloudv1.RestoreStoreRequest{Backup: &uncloudv1.StoreBackup{Machine: "m9"}, Adopt: true, Chunk: nil}))
	for _, piece := range []string{"the ", "", "store"} {
		must(t, stream.Send(&uncloudv1.RestoreStoreRequest{Chunk: []byte(piece)}))
	}
	res, err := stream.CloseAndReceive()
	must(t, err)
	if res.Msg.GetSite() != "new" || len(a.restored) != 1 || a.restored[0] != "the store of m9 adopt=true" {
		t.Error(res.Msg, a.restored)
	}
	stream = a.machine().RestoreStore(t.Context())
	must(t, stream.Send(&uncloudv1.RestoreStoreRequest{Chunk: []byte("x")}))
	_, err = stream.CloseAndReceive()
	refused(t, err, faults.Invalid, false)
}

func TestTicketsAreListedAndRevoked(t *testing.T) {
	w := newWorld(t, "mch_a")
	a := w.machines["mch_a"]
	now := time.Now()
	w.state.Tickets, w.state.TicketUses = map[string]spec.Ticket{}, map[string]spec.TicketUse{}
	for i, id := range []string{"tkt_open", "tkt_used", "tkt_expired"} {
		ticket := spec.Ticket{ID: id, Issuer: "mch_a", Uses: 1, CreatedAt: now.Add(-time.Duration(i) * time.Minute), ExpiresAt: now.Add(time.Hour)}
		if id == "tkt_expired" {
			ticket.ExpiresAt = now.Add(-time.Second)
		}
		w.state.Tickets[id] = ticket
	}
	w.state.TicketUses["tkt_used/mch_gone"] = spec.TicketUse{ID: "tkt_used/mch_gone", Ticket: "tkt_used", Machine: "mch_gone"}
	states := func() string {
		res, err := a.cluster().ListTickets(t.Context(), connect.NewRequest(&uncloudv1.ListTicketsRequest{}))
		must(t, err)
		var out []string
		for _, ticket := range res.Msg.GetTickets() {
			out = append(out, ticket.GetId()+" "+ticket.GetState()+" "+strings.Join(ticket.GetUsedBy(), ","))
		}
		return strings.Join(out, "; ")
	}
	if got := states(); got != "tkt_open open ; tkt_used used mch_gone; tkt_expired expired " {
		t.Error(got)
	}
	for range 2 { // twice is once
		_, err := a.cluster().RevokeTicket(t.Context(), connect.NewRequest(&uncloudv1.RevokeTicketRequest{Ticket: "tkt_open"}))
		must(t, err)
	}
	if got := states(); !strings.HasPrefix(got, "tkt_open revoked") {
		t.Error(got)
	}
	_, err := a.cluster().RevokeTicket(t.Context(), connect.NewRequest(&uncloudv1.RevokeTicketRequest{Ticket: "tkt_x"}))
	refused(t, err, faults.NotFound, true)
}
