package agent

import (
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"time"

	"uncloud/agent/internal/firstboot"
	"uncloud/agent/internal/join"
	"uncloud/agent/internal/server"
	uncloudv1 "uncloud/api/uncloud/v1"
)

// tellCluster leaves a note in the cluster that a flashed machine was to join
// and does not, because its uncloud.txt was refused: whoever wrote it may look
// there and not at the console. The ticket is not used for anything else.
func (a *Agent) tellCluster(ctx context.Context) {
	text, err := os.ReadFile(filepath.Join(a.cfg.firstBoot, firstboot.RefusedFile)) //nolint:gosec // the machine's own
	var refused firstboot.Refused
	if a.cfg.firstBoot == "" || err != nil || json.Unmarshal(text, &refused) != nil || refused.Ticket == "" {
		return
	}
	for pause := ticketPause; a.current() == nil; pause = min(2*pause, longestRefusal) {
		err := a.report(ctx, refused)
		if err == nil {
			a.log.Info("the cluster was told what is wrong with uncloud.txt")
		}
		if server.Decided(err) {
			return
		}
		a.log.Debug("tell the cluster what is wrong with uncloud.txt", "err", err)
		select {
		case <-ctx.Done():
			return
		case <-time.After(pause):
		}
	}
}

// report is one attempt to leave the note. The machine is known by the id that
// it will ask to be admitted with, so the note ends when it has joined.
func (a *Agent) report(ctx context.Context, refused firstboot.Refused) error {
	ticket, err := join.Parse(refused.Ticket)
	if err != nil {
		return err
	}
	a.joining.Lock()
	id, err := a.candidate(ticket.Cluster)
	a.joining.Unlock()
	if err != nil {
		return err
	}
	var said []string
	for _, n := range firstBootNotes(a.cfg) {
		said = append(said, n.Text)
	}
	name, _ := a.machineNameOf(refused.Name)
	req := &uncloudv1.ReportRequest{Ticket: refused.Ticket, MachineId: id.MachineID, Name: name, Text: strings.Join(said, "; ")}
	_, err = a.ask(ctx, ticket, func(ctx context.Context, dial dialer) (*uncloudv1.AdmitResponse, error) {
		return nil, server.Report(ctx, dial, req)
	})
	return err
}
