package command

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"hash"
	"io"
	"os"
	"time"

	"connectrpc.com/connect"
	"github.com/spf13/cobra"

	uncloudv1 "uncloud/api/uncloud/v1"
	"uncloud/cli/internal/render"
	"uncloud/internal/faults"
)

// backupInfo is what lies beside a backup, as FILE.json. The agent reads the
// same names, so a backup can be given to uncloudd restore as it is.
type backupInfo struct {
	SHA256    string    `json:"sha256"`
	Bytes     int64     `json:"bytes"`
	Schema    int32     `json:"schema"`
	CreatedAt time.Time `json:"createdAt"`
	Cluster   string    `json:"cluster"`
	Machine   string    `json:"machine"`
}

const infoSuffix = ".json"

func newStoreBackup(a *app) *cobra.Command {
	var machine string
	cmd := &cobra.Command{
		Use: "backup FILE", Short: "Write a copy of a machine's store to a file here", Args: exactly(1),
		Long: "Write a copy of a machine's store to a file on the machine where uc runs, and FILE.json with its checksum\n" +
			"beside it; both belong together. The copy is the state of the whole cluster between two changes, and is made\n" +
			"while services are deployed. It holds what services are told in their environment: keep it like a password.\n" +
			"What is in volumes is not in it.",
		Example: "  uc store backup uncloud-$(date +%F).db",
		RunE: func(cmd *cobra.Command, args []string) error {
			about, err := a.backup(cmd.Context(), machine, args[0])
			if err != nil {
				return err
			}
			a.ui.Out.Line("%s %s: %s, the store of %s at %s", a.ui.Out.Good("wrote"), args[0], render.Size(about.Bytes), about.Machine,
				about.CreatedAt.Format(time.RFC3339))
			return nil
		},
	}
	a.addMachine(cmd, &machine, "machine whose store to copy by `name` or id (the connected one)")
	return cmd
}

// backup writes to a file that gets its name when its checksum is right.
func (a *app) backup(ctx context.Context, machine, path string) (about backupInfo, err error) {
	if _, err := os.Lstat(path); err == nil {
		return about, faults.New(faults.Conflict, "there is a file %s", path).WithHint("name a file that does not exist")
	}
	client, err := a.connect(ctx)
	if err != nil {
		return about, err
	}
	stream, err := client.Machine(machine).BackupStore(ctx, connect.NewRequest(&uncloudv1.BackupStoreRequest{}))
	if err != nil {
		return about, err
	}
	partial := path + ".partial"
	f, err := os.OpenFile(partial, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return about, errors.Join(faults.New(faults.Invalid, "write the backup: %w", err).WithHint("name a file in a folder that you may write to"), stream.Close())
	}
	about, err = receiveBackup(stream, f)
	err = errors.Join(err, f.Sync(), f.Close(), stream.Close())
	if err == nil {
		err = writeInfo(path+infoSuffix, about)
	}
	if err == nil {
		err = os.Rename(partial, path)
	}
	if err != nil {
		_ = os.Remove(partial) // the first error is the one to tell
	}
	return about, err
}

func receiveBackup(stream *connect.ServerStreamForClient[uncloudv1.BackupStoreResponse], to io.Writer) (about backupInfo, err error) {
	sum := sha256.New()
	for stream.Receive() {
		if b := stream.Msg().GetBackup(); b != nil {
			about = backupInfo{
				SHA256: b.GetSha256(), Bytes: b.GetBytes(), Schema: b.GetSchema(), CreatedAt: when(b.GetCreatedAt()),
				Cluster: b.GetClusterId(), Machine: b.GetMachine(),
			}
		}
		if _, err := io.MultiWriter(to, sum).Write(stream.Msg().GetChunk()); err != nil {
			return about, faults.New(faults.Invalid, "write the backup: %w", err).WithHint("look for space: df -h .")
		}
	}
	if err := stream.Err(); err != nil {
		return about, err
	}
	if !about.isOf(sum) {
		return about, faults.New(faults.Internal, "what arrived is not what the machine sent: the checksum is another").WithHint("try again")
	}
	return about, nil
}

func (i backupInfo) isOf(sum hash.Hash) bool { return hex.EncodeToString(sum.Sum(nil)) == i.SHA256 }

func writeInfo(path string, about backupInfo) error {
	text, err := json.MarshalIndent(about, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(path, append(text, '\n'), 0o600)
}

// openBackup opens a backup that is what was written.
func openBackup(path string) (*os.File, backupInfo, error) {
	about, err := readInfo(path)
	if err != nil {
		return nil, about, err
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, about, faults.New(faults.NotFound, "there is no backup %s", path).WithHint("make one: uc store backup FILE").Because(err)
	}
	sum := sha256.New()
	_, err = io.Copy(sum, f)
	if err == nil && !about.isOf(sum) {
		err = faults.New(faults.Invalid, "%s is not what was written: its checksum is not that of %s%s", path, path, infoSuffix).
			WithHint("it is damaged or another file: use another backup")
	}
	if err == nil {
		_, err = f.Seek(0, io.SeekStart)
	}
	if err != nil {
		return nil, about, errors.Join(err, f.Close())
	}
	return f, about, nil
}

func readInfo(path string) (about backupInfo, err error) {
	text, err := os.ReadFile(path + infoSuffix)
	if err != nil {
		if _, missing := os.Stat(path); missing != nil {
			return about, faults.New(faults.NotFound, "there is no backup %s", path).WithHint("make one: uc store backup FILE").Because(missing)
		}
		return about, faults.New(faults.Invalid, "%s has no %s%s beside it, so nobody can tell whether it is whole", path, path, infoSuffix).
			WithHint("copy that file along with it; uc store backup writes both").Because(err)
	}
	if err := json.Unmarshal(text, &about); err != nil || about.SHA256 == "" {
		return about, faults.New(faults.Invalid, "%s%s does not describe a backup", path, infoSuffix).
			WithHint("copy it along with the backup; uc store backup writes both").Because(err)
	}
	return about, nil
}
