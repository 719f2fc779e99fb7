package cli_test

import (
	"crypto/sha256"
	"encoding/hex"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	uncloudv1 "uncloud/api/uncloud/v1"
	"uncloud/internal/faults"
)

func (w *world) checkStore(machine string) (*uncloudv1.CheckStoreResponse, error) {
	if _, err := w.reach(machine); err != nil {
		return nil, err
	}
	r := &uncloudv1.CheckStoreResponse{Rows: 120, Tombstones: 7}
	if w.is("store-damaged") {
		r.Problems = []string{"database: row 3 missing from index", "services svc_sw points to version 9, which is not known"}
	}
	return r, nil
}

// backupStore sends a backup in two pieces, and another content than it
// announced when it is told to.
func (w *world) backupStore(machine string, send func(*uncloudv1.BackupStoreResponse) error) error {
	name, err := w.reach(machine)
	if err != nil {
		return err
	}
	content := "the store of " + name + "\n"
	sum := sha256.Sum256([]byte(content))
	if w.is("backup-torn") {
		content = strings.ToUpper(content)
	}
	err = send(&uncloudv1.BackupStoreResponse{Backup: &uncloudv1.StoreBackup{
		Sha256: hex.EncodeToString(sum[:]), Bytes: int64(len(content)), Schema: 2, CreatedAt: timestamppb.New(noon), ClusterId: "cls_a", Machine: name,
	}})
	for _, piece := range []string{content[:5], content[5:]} {
		if err == nil {
			err = send(&uncloudv1.BackupStoreResponse{Chunk: []byte(piece)})
		}
	}
	return err
}

func (w *world) restoreStore(messages []*uncloudv1.RestoreStoreRequest) (*uncloudv1.RestoreStoreResponse, error) {
	var content strings.Builder
	for _, m := range messages {
		content.Write(m.GetChunk())
	}
	first := messages[0]
	w.note("restore %q of %s adopt=%t", content.String(), first.GetBackup().GetMachine(), first.GetAdopt())
	switch {
	case w.is("other-cluster") && !first.GetAdopt():
		return nil, faults.New(faults.Conflict, "the backup is of cluster cls_a, and this machine belongs to cls_b").
			WithHint("to take the services of the other cluster into this one: uc store restore --adopt FILE")
	case first.GetAdopt():
		return &uncloudv1.RestoreStoreResponse{Site: "site-m1", Adopted: []string{"shop/db", "shop/web"}, Kept: []string{"blog/cache"}}, nil
	}
	return &uncloudv1.RestoreStoreResponse{Site: "site-new"}, nil
}

func (w *world) tickets() []*uncloudv1.Ticket {
	return []*uncloudv1.Ticket{
		{Id: "tkt_b", State: "open", Issuer: "m1", Uses: 3, UsedBy: []string{"m2"}, CreatedAt: ago(time.Minute), ExpiresAt: ago(-time.Hour)},
		{Id: "tkt_a", State: "expired", Issuer: "m2", Uses: 1, CreatedAt: ago(2 * time.Hour), ExpiresAt: ago(time.Hour)},
	}
}

func (w *world) listTickets(*uncloudv1.ListTicketsRequest) (*uncloudv1.ListTicketsResponse, error) {
	return &uncloudv1.ListTicketsResponse{Tickets: w.tickets()}, nil
}

func (w *world) revokeTicket(r *uncloudv1.RevokeTicketRequest) (*uncloudv1.Ticket, error) {
	for _, t := range w.tickets() {
		if t.GetId() == r.GetTicket() {
			t.State = "revoked"
			return t, nil
		}
	}
	return nil, faults.New(faults.NotFound, "there is no ticket %q", r.GetTicket()).WithHint("see what there is: uc machine ticket ls")
}
