package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"os"

	"connectrpc.com/connect"
	"github.com/spf13/cobra"

	"uncloud/agent"
	uncloudv1 "uncloud/api/uncloud/v1"
	"uncloud/api/uncloud/v1/uncloudv1connect"
	"uncloud/internal/faults"
	"uncloud/internal/wire"
)

func runCommand(load loadConfig) *cobra.Command {
	var check bool
	cmd := &cobra.Command{
		Use: "run", Short: "Run the agent (systemd does)", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := load()
			if err != nil || check {
				return err
			}
			var level slog.Level
			if err := level.UnmarshalText([]byte(cfg.LogLevel)); err != nil {
				return faults.New(faults.Invalid, "there is no log level %q", cfg.LogLevel).WithHint("use debug, info, warn or error")
			}
			log := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: level, ReplaceAttr: withoutTime}))
			return agent.New(cfg, log).Run(cmd.Context())
		},
	}
	cmd.Flags().BoolVar(&check, "check", false, "read the configuration, say what is wrong with it, and change nothing")
	return cmd
}

// withoutTime leaves the time to the journal, which has it already.
func withoutTime(groups []string, a slog.Attr) slog.Attr {
	if len(groups) == 0 && a.Key == slog.TimeKey && os.Getenv("JOURNAL_STREAM") != "" {
		return slog.Attr{}
	}
	return a
}

func joinCommand(load loadConfig) *cobra.Command {
	req := &uncloudv1.JoinRequest{}
	cmd := &cobra.Command{
		Use: "join TICKET-FILE", Short: "Make this machine a member of the ticket's cluster", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			cfg, err := load()
			if err != nil {
				return err
			}
			text, err := readTicket(args[0], cmd.InOrStdin())
			if err != nil {
				return err
			}
			req.Ticket = text
			return join(cmd.Context(), cfg, req, cmd.OutOrStdout())
		},
	}
	cmd.Flags().StringVar(&req.Name, "name", "", "name of this machine (default: as configured, or the host name)")
	cmd.Flags().StringToStringVar(&req.Labels, "label", nil, "labels of this machine, as key=value")
	cmd.Flags().StringSliceVar(&req.Endpoints, "endpoint", nil, "address that others may reach this machine at, as 203.0.113.5:51820")
	return cmd
}

// readTicket reads a file, or standard input for "-".
func readTicket(path string, stdin io.Reader) (string, error) {
	var text []byte
	var err error
	if path == "-" {
		text, err = io.ReadAll(io.LimitReader(stdin, 1<<20))
	} else {
		text, err = os.ReadFile(path)
	}
	if err != nil {
		return "", faults.New(faults.Invalid, "read ticket: %w", err).WithHint("make one on a member: uc machine ticket > uncloud.ticket")
	}
	return string(text), nil
}

func join(ctx context.Context, cfg agent.Config, req *uncloudv1.JoinRequest, out io.Writer) error {
	stream, err := machineClient(cfg).Join(ctx, connect.NewRequest(req))
	if err != nil {
		return wire.Decode(err)
	}
	defer stream.Close() //nolint:errcheck // nothing is lost
	for stream.Receive() {
		m := stream.Msg()
		if m.GetDone() {
			fmt.Fprintf(out, "%s is a member: %s\n", m.GetInfo().GetName(), m.GetInfo().GetAddress())
			return nil
		}
		fmt.Fprintln(out, m.GetText())
	}
	return wire.Decode(stream.Err())
}

func resetCommand(load loadConfig) *cobra.Command {
	var yes bool
	cmd := &cobra.Command{
		Use: "reset", Short: "Forget the cluster: containers, network, identity and state; volumes stay", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := load()
			if err != nil {
				return err
			}
			if !yes {
				return faults.New(faults.Invalid, "this stops all services on this machine and forgets its cluster").
					WithHint("if that is what you want: uncloudd reset --yes")
			}
			res, err := machineClient(cfg).Reset(cmd.Context(), connect.NewRequest(&uncloudv1.ResetRequest{}))
			if err != nil {
				return wire.Decode(err)
			}
			if f := res.Msg.GetUntold(); f != nil { // it is done all the same
				fmt.Fprintf(cmd.ErrOrStderr(), "uncloudd: warning: %s\nuncloudd: hint: %s\n", f.GetSentence(), f.GetHint())
			}
			return nil
		},
	}
	cmd.Flags().BoolVarP(&yes, "yes", "y", false, "do it")
	return cmd
}

// restoreCommand is for a machine whose agent cannot start with what it has.
func restoreCommand(load loadConfig) *cobra.Command {
	return &cobra.Command{
		Use: "restore BACKUP", Short: "Put a backup in place of the store, while the agent is stopped", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			cfg, err := load()
			if err != nil {
				return err
			}
			if err := agent.RestoreStopped(cmd.Context(), cfg, args[0]); err != nil {
				return err
			}
			fmt.Fprintln(cmd.OutOrStdout(), "the store is that of the backup; the old one is kept beside it. Start the agent: systemctl start uncloud")
			return nil
		},
	}
}

// dialCommand joins standard input and output to the socket of the API. It is
// what uc runs on the far side of an SSH connection.
func dialCommand(load loadConfig) *cobra.Command {
	return &cobra.Command{
		Use: "dial-stdio", Short: "Connect standard input and output to the agent's socket", Args: cobra.NoArgs, Hidden: true,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := load()
			if err != nil {
				return err
			}
			conn, err := dialSocket(cmd.Context(), cfg)
			if err != nil {
				return err
			}
			return splice(conn.(*net.UnixConn), cmd.InOrStdin(), cmd.OutOrStdout())
		},
	}
}

// splice copies both ways until the agent has closed its side.
func splice(conn *net.UnixConn, in io.Reader, out io.Writer) error {
	go func() {
		io.Copy(conn, in) //nolint:errcheck // the other direction tells how it ended
		conn.CloseWrite() //nolint:errcheck,gosec // see above
	}()
	_, err := io.Copy(out, conn)
	return err
}

func statusCommand(load loadConfig) *cobra.Command {
	return &cobra.Command{
		Use: "status", Short: "Show who this machine is, and what it suffers from", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := load()
			if err != nil {
				return err
			}
			info, err := machineClient(cfg).Info(cmd.Context(), connect.NewRequest(&uncloudv1.InfoRequest{}))
			if err != nil {
				return wire.Decode(err)
			}
			printStatus(cmd.OutOrStdout(), info.Msg)
			return nil
		},
	}
}

func printStatus(out io.Writer, info *uncloudv1.InfoResponse) {
	if info.GetMachineId() == "" {
		fmt.Fprintln(out, "this machine belongs to no cluster")
	} else {
		fmt.Fprintf(out, "%s (%s) of cluster %s is %s, at %s\n", info.GetName(), info.GetMachineId(), info.GetClusterId(), info.GetPhase(), info.GetAddress())
	}
	for _, n := range info.GetHealth() {
		fmt.Fprintf(out, "%s: %s\n", n.GetCode(), n.GetText())
		if n.GetHint() != "" {
			fmt.Fprintf(out, "    %s\n", n.GetHint())
		}
	}
}

func versionCommand() *cobra.Command {
	return &cobra.Command{
		Use: "version", Short: "Print the version", Args: cobra.NoArgs,
		Run: func(cmd *cobra.Command, _ []string) { fmt.Fprintln(cmd.OutOrStdout(), agent.Version()) },
	}
}

func dialSocket(ctx context.Context, cfg agent.Config) (net.Conn, error) {
	conn, err := new(net.Dialer).DialContext(ctx, "unix", cfg.Socket)
	if err != nil {
		return nil, socketFault(cfg.Socket, err)
	}
	return conn, nil
}

// socketFault is why the agent's socket cannot be dialled.
func socketFault(path string, err error) error {
	switch {
	case errors.Is(err, fs.ErrPermission):
		return faults.New(faults.Unreachable, "you may not use %s", path).
			WithHint("only root and the group uncloud may: sudo uncloudd ...").Because(err)
	case errors.Is(err, fs.ErrNotExist), wire.Refused(err):
		return faults.New(faults.Unreachable, "the agent does not answer at %s", path).
			WithHint("start it: systemctl start uncloud").Because(err)
	}
	return faults.New(faults.Unreachable, "connect to %s: %w", path, err).
		WithHint("see whether the agent runs: systemctl status uncloud")
}

func machineClient(cfg agent.Config) uncloudv1connect.MachineServiceClient {
	hc := wire.NewClient(func(ctx context.Context) (net.Conn, error) { return dialSocket(ctx, cfg) })
	return uncloudv1connect.NewMachineServiceClient(hc, "http://machine")
}
