package command

import (
	"fmt"
	"strings"
	"time"

	"connectrpc.com/connect"
	"github.com/spf13/cobra"

	uncloudv1 "uncloud/api/uncloud/v1"
	"uncloud/cli/internal/render"
)

func newMachineTicket(a *app) *cobra.Command {
	var valid time.Duration
	var uses int32
	var output format
	cmd := &cobra.Command{
		Use: "ticket", Short: "Make a ticket that lets a machine join",
		Long: "Make a ticket that lets a machine join. The ticket is all that is written to standard output. Whoever\n" +
			"has it can join until it expires or is used up, so treat it like a password.",
		Example: "  uc machine ticket > uncloud.ticket          # then, on the new machine: uncloudd join uncloud.ticket\n" +
			"  uc machine ticket | ssh root@new uncloudd join -",
		Args: exactly(0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if valid < time.Second || uses < 1 {
				return usage("a ticket is valid for at least a second and for at least one machine").hint("uc machine ticket --valid 24h --uses 3")
			}
			client, err := a.connect(cmd.Context())
			if err != nil {
				return err
			}
			request := &uncloudv1.CreateTicketRequest{ValidSeconds: int64(valid.Seconds()), Uses: uses}
			answer, err := client.Cluster.CreateTicket(cmd.Context(), connect.NewRequest(request))
			if err != nil {
				return err
			}
			return a.show(output, answer.Msg, func() { a.ticket(answer.Msg, uses) })
		},
	}
	cmd.Flags().DurationVar(&valid, "valid", time.Hour, "how `long` it can be used, such as 30m or 24h")
	cmd.Flags().Int32Var(&uses, "uses", 1, "how many machines may join with it")
	addOutput(cmd, &output)
	cmd.AddCommand(newTicketLs(a), newTicketRevoke(a))
	return cmd
}

func newTicketLs(a *app) *cobra.Command {
	var output format
	cmd := &cobra.Command{
		Use: "ls", Short: "List the tickets that were made, and who joined with them", Args: exactly(0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			client, err := a.connect(cmd.Context())
			if err != nil {
				return err
			}
			answer, err := client.Cluster.ListTickets(cmd.Context(), connect.NewRequest(&uncloudv1.ListTicketsRequest{}))
			if err != nil {
				return err
			}
			return a.show(output, answer.Msg, func() { a.ticketTable(answer.Msg.GetTickets()) })
		},
	}
	addOutput(cmd, &output)
	return cmd
}

func (a *app) ticketTable(tickets []*uncloudv1.Ticket) {
	table := render.NewTable("TICKET", "STATE", "USES", "MADE ON", "MADE", "ENDS", "JOINED")
	for _, t := range tickets {
		table.Row(t.GetId(), t.GetState(), fmt.Sprintf("%d/%d", len(t.GetUsedBy()), t.GetUses()), t.GetIssuer(),
			a.ui.Since(when(t.GetCreatedAt())), moment(t.GetExpiresAt()), strings.Join(t.GetUsedBy(), ", "))
	}
	table.Write(a.ui.Out)
}

func newTicketRevoke(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "revoke TICKET", Short: "Let nobody join with a ticket any more", Args: exactly(1),
		Long: "Let nobody join with a ticket any more. Machines that joined with it stay members: uc machine rm removes them.",
		RunE: func(cmd *cobra.Command, args []string) error {
			client, err := a.connect(cmd.Context())
			if err != nil {
				return err
			}
			answer, err := client.Cluster.RevokeTicket(cmd.Context(), connect.NewRequest(&uncloudv1.RevokeTicketRequest{Ticket: args[0]}))
			if err != nil {
				return err
			}
			a.ui.Out.Line("%s %s", a.ui.Out.Good("revoked"), args[0])
			if used := answer.Msg.GetUsedBy(); len(used) > 0 {
				a.ui.Note("%s joined with it before", strings.Join(used, ", "))
			}
			return nil
		},
	}
}

func (a *app) ticket(t *uncloudv1.CreateTicketResponse, uses int32) {
	a.ui.Out.Line("%s", strings.TrimRight(t.GetTicket(), "\n"))
	a.ui.Note("%s lets %s join until %s", t.GetId(), render.Count(int(uses), "machine"), moment(t.GetExpiresAt()))
}
