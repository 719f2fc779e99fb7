package command

import (
	"context"
	"strconv"
	"strings"
	"sync"
	"time"

	"connectrpc.com/connect"
	"github.com/spf13/cobra"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	uncloudv1 "uncloud/api/uncloud/v1"
	"uncloud/cli/internal/render"
	"uncloud/internal/faults"
)

type logs struct {
	*app
	composeFlags
	follow, timestamps bool
	tail, since, until string
	machines           []string
	output             format

	mu      sync.Mutex
	silent  map[string]bool // machines that were told about
	unread  error           // why the first log could not be read
	sources []string        // of the streams, as they are shown
	width   int             // of the longest
}

func newLogs(a *app) *cobra.Command {
	l := &logs{app: a, silent: map[string]bool{}}
	cmd := &cobra.Command{
		Use: "logs [SERVICE|REPLICA...]", Short: "Show what services wrote, merged by time",
		Long: "Show what services wrote, merged by time over all replicas and machines. Without a name: the services\n" +
			"of the Compose file here. What a container wrote to its standard error goes to standard error.\n\n" +
			"With -f it goes on through restarts, deploys and machines that are away, until ctrl-c or until what was\n" +
			"named is gone. Without -f, logs that cannot be read are told, and the exit code is 1.",
		Example: "  uc logs -f web\n  uc logs --since 1h -n all web db",
		Args:    atLeast(0), RunE: l.run, ValidArgsFunction: a.completeServices,
	}
	l.composeFlags.add(cmd, "", "")
	cmd.Flags().BoolVarP(&l.follow, "follow", "f", false, "go on with what is written from now on, until ctrl-c")
	cmd.Flags().StringVarP(&l.tail, "tail", "n", "100", "lines from the end of each replica, or all")
	cmd.Flags().StringVar(&l.since, "since", "", "only what was written after a `time`: 10m ago, or RFC 3339")
	cmd.Flags().StringVar(&l.until, "until", "", "only what was written before a `time`")
	cmd.Flags().BoolVarP(&l.timestamps, "timestamps", "t", false, "write the time before each line")
	a.addMachines(cmd, &l.machines, "only replicas on this machine (`name` or id); repeat for several")
	addOutput(cmd, &l.output)
	return cmd
}

func (l *logs) run(cmd *cobra.Command, names []string) error {
	ctx := cmd.Context()
	request, err := l.request()
	if err != nil {
		return err
	}
	if names, err = l.names(ctx, names); err != nil {
		return err
	}
	replicas, err := l.replicas(ctx, names)
	if err != nil {
		return err
	}
	if replicas = l.onMachines(replicas); len(replicas) == 0 {
		return faults.New(faults.NotFound, "none of the machines runs a replica of that").WithHint("uc ps")
	}
	if l.follow {
		return l.followAll(ctx, request, names, replicas)
	}
	return l.show(ctx, request, replicas)
}

// names are the arguments, or the services of the Compose file here.
func (l *logs) names(ctx context.Context, names []string) ([]string, error) {
	if len(names) > 0 {
		return names, nil
	}
	project, err := l.load(ctx, l.composeFlags, nil)
	if faults.CodeOf(err) == faults.NotFound {
		return nil, usage("name a service: there is no compose.yaml here").hint("uc logs SERVICE; uc ls lists them")
	}
	if err != nil {
		return nil, err
	}
	for _, service := range project.Specs {
		names = append(names, qualified(project.Name, service.Name))
	}
	return names, nil
}

func (l *logs) onMachines(replicas []*uncloudv1.Replica) []*uncloudv1.Replica {
	if len(l.machines) == 0 {
		return replicas
	}
	var found []*uncloudv1.Replica
	for _, r := range replicas {
		for _, m := range l.machines {
			if r.GetMachine() == m || r.GetMachineId() == m {
				found = append(found, r)
				break
			}
		}
	}
	return found
}

func (l *logs) request() (*uncloudv1.LogsRequest, error) {
	if l.follow && l.until != "" {
		return nil, usage("-f goes on from now, and takes no --until").hint("uc logs --until %s", l.until)
	}
	request := &uncloudv1.LogsRequest{Follow: l.follow, Tail: -1}
	if l.tail != "all" {
		tail, err := strconv.ParseInt(l.tail, 10, 32)
		if err != nil || tail < 0 {
			return nil, usage("%q is no number of lines", l.tail).hint("uc logs -n 100, or -n all")
		}
		request.Tail = int32(tail)
	}
	var err error
	if request.Since, err = l.pointInTime(l.since); err != nil {
		return nil, err
	}
	request.Until, err = l.pointInTime(l.until)
	return request, err
}

func (l *logs) pointInTime(text string) (*timestamppb.Timestamp, error) {
	if text == "" {
		return nil, nil
	}
	if d, err := time.ParseDuration(text); err == nil {
		return timestamppb.New(l.Now().Add(-d)), nil
	}
	t, err := time.Parse(time.RFC3339, text)
	if err != nil {
		return nil, usage("%q is no time", text).hint("write how long ago, such as 10m or 2h, or a time like 2026-01-31T18:00:00Z")
	}
	return timestamppb.New(t), nil
}

// show opens one stream a replica, because each is in order by itself, and
// writes them as one.
func (l *logs) show(ctx context.Context, request *uncloudv1.LogsRequest, replicas []*uncloudv1.Replica) error {
	var streams []logStream
	for _, r := range replicas {
		lines := make(chan *uncloudv1.LogLine, mergeAhead)
		streams = append(streams, lines)
		l.addSource(r)
		go func() {
			defer close(lines)
			err := l.read(ctx, request, r, func(line *uncloudv1.LogLine) error { return pass(ctx, lines, line) })
			if err != nil && ctx.Err() == nil {
				l.missing(r, err)
			}
		}()
	}
	if err := merge(ctx, streams, nil, 0, l.write); err != nil {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.unread == nil {
		return nil
	}
	return faults.New(faults.CodeOf(l.unread), "not all logs could be read").WithHint("see what runs where: uc ps").Because(l.unread)
}

// read hands on what one call tells of a replica, until it ends.
func (l *logs) read(ctx context.Context, request *uncloudv1.LogsRequest, r *uncloudv1.Replica, hand func(*uncloudv1.LogLine) error) error {
	own := proto.CloneOf(request)
	own.Replicas = []string{r.GetId()}
	stream, err := l.client.Machine(r.GetMachineId()).Logs(ctx, connect.NewRequest(own))
	if err != nil {
		return err
	}
	defer stream.Close()
	for stream.Receive() {
		if err := hand(stream.Msg()); err != nil {
			return err
		}
	}
	return stream.Err()
}

func pass(ctx context.Context, to chan<- *uncloudv1.LogLine, line *uncloudv1.LogLine) error {
	select {
	case to <- line:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// missing tells of a machine that does not answer, once for all its replicas.
func (l *logs) missing(r *uncloudv1.Replica, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.unread == nil {
		l.unread = err
	}
	switch faults.CodeOf(err) {
	case faults.MachineDown, faults.Unreachable:
		if !l.silent[r.GetMachineId()] {
			l.silent[r.GetMachineId()] = true
			l.ui.Warn("%s does not answer, its logs are left out", r.GetMachine())
		}
	default:
		l.ui.Warn("logs of %s on %s: %s", r.GetName(), r.GetMachine(), faults.Of(err).Sentence)
	}
}

// answers notes that a machine does: when it falls silent anew, that is told anew.
func (l *logs) answers(r *uncloudv1.Replica) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.silent, r.GetMachineId())
}

// addSource names the next stream.
func (l *logs) addSource(r *uncloudv1.Replica) {
	l.mu.Lock()
	defer l.mu.Unlock()
	source := r.GetService() + "/" + r.GetName() + " " + r.GetMachine()
	l.sources, l.width = append(l.sources, source), max(l.width, len(source))
}

// write writes a line of the n-th stream to the stream that the container wrote
// it to.
func (l *logs) write(n int, line *uncloudv1.LogLine) error {
	out := l.ui.Out
	if line.GetStderr() {
		out = l.ui.Err
	}
	if l.output == jsonFormat {
		b, err := render.Message(line)
		l.ui.Out.Line("%s", b)
		return err
	}
	at := ""
	if l.timestamps {
		at = line.GetAt().AsTime().UTC().Format("2006-01-02T15:04:05.000Z") + " "
	}
	l.mu.Lock()
	prefix := l.sources[n] + strings.Repeat(" ", l.width-len(l.sources[n]))
	l.mu.Unlock()
	out.Line("%s%s %s", at, out.Source(n, prefix+" |"), line.GetText())
	return nil
}
