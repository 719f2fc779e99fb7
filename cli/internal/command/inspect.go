package command

import (
	"bytes"
	"encoding/json"
	"strings"
	"time"

	"connectrpc.com/connect"
	"github.com/spf13/cobra"
	"google.golang.org/protobuf/types/known/timestamppb"

	uncloudv1 "uncloud/api/uncloud/v1"
	"uncloud/cli/internal/render"
)

func newInspect(a *app) *cobra.Command {
	var output format
	cmd := &cobra.Command{
		Use: "inspect SERVICE", Short: "Show a service: its spec, replicas and rollouts", Args: exactly(1), ValidArgsFunction: a.completeServices,
		RunE: func(cmd *cobra.Command, args []string) error {
			client, err := a.connect(cmd.Context())
			if err != nil {
				return err
			}
			answer, err := client.Cluster.InspectService(cmd.Context(), connect.NewRequest(&uncloudv1.InspectServiceRequest{Service: args[0]}))
			if err != nil {
				return err
			}
			return a.show(output, answer.Msg, func() { a.service(answer.Msg) })
		},
	}
	addOutput(cmd, &output)
	return cmd
}

func (a *app) service(s *uncloudv1.Service) {
	out := a.ui.Out
	render.Fields(out,
		"service", out.Bold(s.GetName()), "project", s.GetProject(), "id", s.GetId(), "mode", s.GetMode(),
		"state", out.State(s.GetWanted()), "healthy", a.healthy(s), "revision", s.GetRevision(), "image", s.GetImage(),
		"endpoints", strings.Join(s.GetEndpoints(), ", "), "created", moment(s.GetCreatedAt()))
	if len(s.GetReplicaList()) > 0 {
		out.Line("")
		a.replicaTable(s.GetReplicaList())
	}
	if len(s.GetRollouts()) > 0 {
		out.Line("")
		a.rolloutTable(s.GetRollouts())
	}
	if s.GetSpecJson() != "" {
		out.Line("\n%s", indented(s.GetSpecJson()))
	}
	a.healthNotes(s.GetName(), s.GetHealth())
}

func (a *app) rolloutTable(rollouts []*uncloudv1.Rollout) {
	table := render.NewTable("ROLLOUT", "FROM", "TO", "STAGE", "STARTED", "TOOK", "DRIVER", "ERROR")
	for _, r := range rollouts {
		table.Row(r.GetId(), r.GetFromRevision(), r.GetToRevision(), a.ui.Out.State(r.GetStage()), a.ui.Since(when(r.GetStartedAt())),
			lasted(r), r.GetDriver(), r.GetError())
	}
	table.Write(a.ui.Out)
}

func lasted(r *uncloudv1.Rollout) string {
	if r.GetStartedAt() == nil || r.GetEndedAt() == nil {
		return ""
	}
	return render.Took(r.GetEndedAt().AsTime().Sub(r.GetStartedAt().AsTime()))
}

// indented is JSON for people; what is no JSON is shown as it came.
func indented(text string) string {
	var b bytes.Buffer
	if err := json.Indent(&b, []byte(text), "", "  "); err != nil {
		return text
	}
	return b.String()
}

// when is a time of the API; the zero time for none.
func when(t *timestamppb.Timestamp) time.Time {
	if t == nil {
		return time.Time{}
	}
	return t.AsTime()
}

// moment is a point in time to the second; empty for none.
func moment(t *timestamppb.Timestamp) string {
	if t == nil {
		return ""
	}
	return t.AsTime().UTC().Format(time.RFC3339)
}
