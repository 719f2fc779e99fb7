package command

import (
	"context"
	"errors"
	"io"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/types/known/timestamppb"

	uncloudv1 "uncloud/api/uncloud/v1"
	"uncloud/cli/internal/render"
	"uncloud/internal/faults"
)

type storeRestore struct {
	*app
	adopt, yes bool
}

func newStoreRestore(a *app) *cobra.Command {
	r := &storeRestore{app: a}
	cmd := &cobra.Command{
		Use: "restore FILE", Short: "Put a backup in place of the connected machine's store", Args: exactly(1),
		Long: "Put a backup in place of the connected machine's store. The machine then has an old copy of the state, asks\n" +
			"the others for all that happened since, and acts when it has it: what was removed since stays removed. Where\n" +
			"no other machine lives, the backup is the state. Containers run on meanwhile; the old store is kept beside\n" +
			"the new one.\n\n" +
			"With --adopt the store stays, and the services of the backup that the cluster does not have are written as\n" +
			"new ones. That brings back what was removed by mistake, and fills a new cluster from the backup of one that\n" +
			"is lost. Volumes come along where the machine that holds them is a member; elsewhere they begin empty.\n\n" +
			"On a machine whose agent does not start: uncloudd restore FILE",
		Example: "  uc --connect ssh://root@pi-1 store restore uncloud-2026-03-01.db\n" +
			"  sudo uc machine init && sudo uc store restore --adopt uncloud-2026-03-01.db",
		RunE: func(cmd *cobra.Command, args []string) error { return r.run(cmd.Context(), args[0]) },
	}
	cmd.Flags().BoolVar(&r.adopt, "adopt", false, "only write the services that the cluster does not have")
	a.addYes(cmd, &r.yes)
	return cmd
}

func (r *storeRestore) run(ctx context.Context, path string) error {
	f, about, err := openBackup(path)
	if err != nil {
		return err
	}
	defer f.Close() //nolint:errcheck // read only
	if _, err := r.connect(ctx); err != nil {
		return err
	}
	r.ui.Out.Line("%s is the store of %s at %s, %s", path, orWord(about.Machine, "a machine"), about.CreatedAt.Format(time.RFC3339), render.Size(about.Bytes))
	question := "put it in place of the store of the connected machine?"
	if r.adopt {
		question = "take its services into the cluster?"
	}
	if err := r.confirm(ctx, r.yes, question); err != nil {
		return err
	}
	answer, err := r.send(ctx, f, about)
	if err != nil {
		return err
	}
	r.tell(answer)
	return nil
}

func (r *storeRestore) send(ctx context.Context, f *os.File, about backupInfo) (*uncloudv1.RestoreStoreResponse, error) {
	stream := r.client.Machine("").RestoreStore(ctx)
	message := &uncloudv1.RestoreStoreRequest{Adopt: r.adopt, Backup: &uncloudv1.StoreBackup{
		Sha256: about.SHA256, Bytes: about.Bytes, Schema: about.Schema, CreatedAt: timestamppb.New(about.CreatedAt),
		ClusterId: about.Cluster, Machine: about.Machine,
	}}
	buf := make([]byte, 256<<10)
	for {
		// An end before its time is the machine's answer, which closing gives.
		if err := stream.Send(message); err != nil && !errors.Is(err, io.EOF) {
			return nil, err
		} else if err != nil {
			break
		}
		n, err := io.ReadFull(f, buf)
		if n == 0 && errors.Is(err, io.EOF) {
			break
		}
		if err != nil && !errors.Is(err, io.ErrUnexpectedEOF) {
			return nil, faults.New(faults.Invalid, "read the backup: %w", err).WithHint("use another copy of it")
		}
		message = &uncloudv1.RestoreStoreRequest{Chunk: buf[:n]}
	}
	answer, err := stream.CloseAndReceive()
	if err != nil {
		return nil, err
	}
	return answer.Msg, nil
}

func (r *storeRestore) tell(answer *uncloudv1.RestoreStoreResponse) {
	out := r.ui.Out
	if !r.adopt {
		out.Line("%s: the machine goes on as site %s", out.Good("restored"), answer.GetSite())
		return
	}
	if kept := answer.GetKept(); len(kept) > 0 {
		out.Line("already here: %s", strings.Join(kept, ", "))
	}
	if adopted := answer.GetAdopted(); len(adopted) > 0 {
		out.Line("%s %s", out.Good("took in"), strings.Join(adopted, ", "))
		r.ui.Note("machines start them now; see them come up with: uc ls")
		return
	}
	out.Line("nothing was taken in")
}
